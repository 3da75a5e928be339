"""The pictures of a report."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from experiments import ALL, results
from facemix.report import Runs, Spread
from facemix.report.charts import curves, matrix, strip
from facemix.report.results import Result
from PIL import Image


def runs_of(values: dict[str, Any]) -> Runs:
    return Runs((Result(Path(), values),))


def test_curves() -> None:
    values = results(0, ALL)
    values["curves"]["baseline"] = [
        {"epoch": n, "loss": loss, "validation_loss": 1.0}
        for n, loss in ((1, 4.0), (2, 0.04), (3, 0.0), (4, float("nan")))
    ]
    values["curves"]["linear_cloud"] = []
    charts = dict(curves(runs_of(values)))
    assert list(charts) == ["baseline", "mixing-aware, through the mix"]
    lines = re.findall(r'<polyline class="(\w+)" points="([^"]*)"', charts["baseline"])
    assert [name for name, _ in lines] == ["loss", "validation_loss"]
    (left, top), (_, bottom) = [tuple(map(float, point.split(","))) for point in lines[0][1].split()]
    ((_, middle), *_) = [tuple(map(float, point.split(","))) for point in lines[1][1].split()]
    assert left == 46.0
    assert top == 8.0  # the largest loss of all
    # The scale is logarithmic: 1 lies between 4 and 0.04 as log 1 does.
    assert (middle - top) / (bottom - top) == pytest.approx(0.602 / 2, abs=0.01)
    assert re.findall(r'text-anchor="end">([^<]*)<', charts["baseline"]) == ["0.05", "0.1", "0.2", "0.5", "1", "2"]
    values["curves"] = {"baseline": [{"epoch": n, "loss": 2 + n / 4, "validation_loss": None} for n in (1, 2)]}
    ((_, chart),) = curves(runs_of(values))
    assert re.findall(r'text-anchor="end">([^<]*)<', chart) == ["2.25", "2.5"]
    assert curves(runs_of({**values, "curves": {}})) == []
    longer = results(0, {"baseline": 0.9, "baseline_longer": 0.95})
    assert [name for name, _ in curves(runs_of(longer))] == ["baseline", "baseline, going on without the mix"]


def test_strip() -> None:
    places = re.findall(r'cx="([^"]*)"', strip(Spread.of((0.0, 0.5, 1.0)), 0.25))
    assert places == ["6.0", "90.0", "174.0"]
    assert 'class="chance" x1="48.0"' in strip(Spread.of((0.0,)), 0.25)


def test_matrix(tmp_path: Path) -> None:
    uri = matrix([[3, 1], [0, 0]])
    assert uri is not None
    path = tmp_path / "matrix.png"
    path.write_bytes(base64.b64decode(uri.partition(",")[2]))
    with Image.open(path) as image:
        side = image.width // 2
        assert image.size == (320, 320)
        shown = [image.getpixel((side * x + 1, side * y + 1))[3] for y in (0, 1) for x in (0, 1)]
    assert shown == [round(255 * 0.75**0.5), round(255 * 0.5), 0, 0]
    assert matrix([[1]] * 1501) is None
