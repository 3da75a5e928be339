"""What the tables of experiments say of made-up results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import experiments_table
import pytest
from experiments_table import _alone, _runs, _source
from facemix.report.results import RESULTS, Result, Runs

LOW = {"rank": 3, "multiply_adds": 50, "accuracy": 0.75, "agreement": 0.9}
HIGHER = LOW | {"multiply_adds": 60, "accuracy": 0.7}
WHERE = {"cpu": "a CPU", "cores": 2, "threads": 1, "versions": {"torch": "1.2"}, "commit": "0123456789"}


def seed(**collapse: Any) -> Result:
    found = {"collapsed_multiply_adds": 300, "matrix_multiply_adds": 200, "collapsed_accuracy": 0.5, "low_rank": None}
    values = {"cost": {"whole_multiply_adds": 1000}, "collapse": found | collapse, "environment": WHERE}
    return Result(Path(), values)


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ([seed()], "30.0 %: 50.0 %"),
        ([seed(low_rank=LOW)], "15.0 %: 75.0 %"),  # what the edge had, 100, and the reduced matrix
        ([seed(low_rank=LOW), seed(low_rank=HIGHER)], "15.0 to 16.0 %: 72.5 ± 3.5 %"),
        ([seed(low_rank=LOW), seed(low_rank=LOW)], "15.0 %: 75.0 ± 0.0 %"),
    ],
)  # fmt: skip
def test_an_edge_alone_takes_the_reduced_matrix_where_there_is_one(seeds: list[Result], says: str) -> None:
    assert _alone(Runs(tuple(seeds))) == says


def test_every_machine_and_commit_is_named() -> None:
    other = Result(Path(), {"environment": WHERE | {"commit": None, "threads": 2}})
    text = _source([Runs((seed(), other)), Runs((seed(),))])
    assert text.count("a CPU, 2 cores, 1 thread; PyTorch 1.2; commit 0123456") == 1
    assert text.count("a CPU, 2 cores, 2 threads; PyTorch 1.2; commit unknown") == 1


def test_all_seeds_of_a_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / RESULTS).write_text(json.dumps([{"seed": 0}, {"seed": 1}]))
    monkeypatch.setattr(experiments_table, "COMMITTED", tmp_path)
    assert [result["seed"] for result in _runs("one").seeds] == [0, 1]
