"""A run of `facemix infer`, with a network that reads the brightness: a row for each image, whatever happens."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from facemix.edge import Answer, CloudUnreachable, Cost
from facemix.infer.results import WRITERS
from facemix.infer.run import Tally, classify_all
from numpy.typing import NDArray

BUNDLE: Any = SimpleNamespace(name="m", version=1, network="f", image_shape=(16, 16, 1), classes=None, attributes=None)


def brightness(images: NDArray[np.uint8]) -> Answer:
    """The class is the pixels' value."""
    scores = np.zeros((len(images), 256), np.float32)
    labels = images[:, 0, 0, 0].astype(np.int64)
    scores[np.arange(len(images)), labels] = 1
    return Answer(scores, labels, None, Cost(len(images), len(images), 1, 2, 1, 1024, 512, 0.001, 0.002, 0.003))


def shades(folder: Path, count: int) -> list[str]:
    """Pictures of brightness 0, 1, 2 and so on, every fifth of them broken."""
    paths = []
    for n in range(count):
        paths.append(str(folder / f"{n:03}.pgm"))
        Path(paths[-1]).write_bytes(b"" if n % 5 == 2 else b"P5 16 16 255\n" + bytes([n] * 256))
    return paths


def classified(
    paths: Any, classify: Callable[[NDArray[np.uint8]], Answer], format: str = "csv", output: Path | None = None,
    quiet: bool = True,
) -> Tally:  # fmt: skip
    return classify_all(paths, BUNDLE, classify, call_images=8, top=1, format=format, output=output, quiet=quiet)


def test_an_image_that_is_a_decoy_is_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its file is called."""
    sent: list[int] = []

    def recorded(images: NDArray[np.uint8]) -> Answer:
        sent.extend(images[:, 0, 0, 0])
        return brightness(images)

    decoys = np.full((2, 16, 16, 1), 11, np.uint8)
    with pytest.raises(ValueError, match=r"decoys must be other images than those to classify, got .*011\.pgm as both"):
        classify_all(
            iter(shades(tmp_path, 40)), BUNDLE, recorded, call_images=8, decoys=decoys, top=1, format="csv",
            output=None, quiet=True,
        )  # fmt: skip
    assert 0 in sent
    assert 11 not in sent


def test_rows_come_in_order_and_refused_images_in_their_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def counted(images: NDArray[np.uint8]) -> Answer:
        calls.append(len(images))
        return brightness(images)

    paths = shades(tmp_path, 40)
    tally = classified(iter(paths), counted)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["image"] for row in rows] == paths
    assert [row["label"] for row in rows] == ["" if n % 5 == 2 else str(n) for n in range(40)]
    assert {row["error"] for row in rows if not row["label"]} == {"must be an image, got an empty file"}
    assert calls == [8, 8, 8, 8]  # whole requests, whatever was refused
    assert (tally.classified, tally.refused) == (32, 8)
    assert tally.reason == f"{paths[2]}: must be an image, got an empty file"


def test_an_image_that_comes_again_is_classified_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And fills no place in a request."""
    calls: list[NDArray[np.uint8]] = []

    def counted(images: NDArray[np.uint8]) -> Answer:
        calls.append(images)
        return brightness(images)

    paths = [path for path in shades(tmp_path, 25) for _ in range(3)]
    paths += paths[::-1]
    tally = classified(paths, counted)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["image"] for row in rows] == paths
    assert [row["label"] for row in rows] == ["" if row["error"] else str(int(Path(row["image"]).stem)) for row in rows]
    assert [len(images) for images in calls] == [8, 8, 4]
    assert len(np.unique(np.concatenate(calls), axis=0)) == 20
    assert (tally.classified, tally.refused, tally.cost["images"]) == (120, 30, 20)


def test_the_line_about_the_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = shades(tmp_path, 10)
    classified(paths, brightness, quiet=False)
    captured = capsys.readouterr()
    assert captured.err.startswith("facemix infer: 8 images classified, 2 refused, in ")
    assert captured.err.endswith(
        "; each 0.12 KiB up, 0.06 KiB down, 0.12 ms edge, 0.25 ms cloud, 0.38 ms network; 1 request, 2 attempts\n"
    )
    assert "facemix" not in captured.out
    classified(paths, brightness)
    assert not capsys.readouterr().err


def test_images_are_read_a_request_ahead(tmp_path: Path) -> None:
    taken: list[str] = []

    def endless() -> Iterator[str]:
        for path in shades(tmp_path, 60):
            taken.append(path)
            yield path

    def broken(images: NDArray[np.uint8]) -> Answer:
        raise CloudUnreachable("gone")

    with pytest.raises(CloudUnreachable):
        classified(endless(), broken)
    assert len(taken) <= 8 * 5 / 4 + 8 + 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CloudUnreachable("gone"), ValueError("too few decoys")])
@pytest.mark.parametrize("format", WRITERS)
def test_what_was_done_is_not_lost(error: BaseException, format: str, tmp_path: Path) -> None:
    calls = 0

    def failing(images: NDArray[np.uint8]) -> Answer:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error
        return brightness(images)

    paths, output = shades(tmp_path, 40), tmp_path / "out"
    with pytest.raises(type(error)):
        classified(paths, failing, format, output)
    text = output.read_text()
    if format == "json":
        document = json.loads(text)
        assert document["complete"] is False
        assert [entry["image"] for entry in document["images"]] == paths[:20]
        assert document["cost"]["classified"] == 16
    else:
        assert [path for path in paths if path in text] == paths[:20]


def test_a_run_that_fails_at_once_leaves_the_old_file(tmp_path: Path) -> None:
    def failing(images: NDArray[np.uint8]) -> Answer:
        raise CloudUnreachable("gone")

    output = tmp_path / "out"
    output.write_text("old")
    with pytest.raises(CloudUnreachable):
        classified(shades(tmp_path, 2), failing, "json", output)
    assert output.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_output_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="infer: --output must be a file, got /dev/null"):
        classified(shades(tmp_path, 2), brightness, output=Path("/dev/null"))
    with pytest.raises(ValueError, match="infer: --output must be a file"):
        classified(shades(tmp_path, 2), brightness, output=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--output must be where files can be written, got .*/file is no folder$"):
        classified(shades(tmp_path, 2), brightness, output=tmp_path / "file" / "out")
