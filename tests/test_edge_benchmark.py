"""benchmarks/edge.py: that its contestants compute the same, and that one which does not is named."""

from __future__ import annotations

from pathlib import Path

import edge
import pytest


@pytest.mark.parametrize("workload", edge.WORKLOADS)
def test_everybody_scores_the_same(workload: str, tmp_path: Path) -> None:
    edge.write_network(tmp_path, edge.WORKLOADS[workload])
    runs = {name: [edge.measure(tmp_path, name, 1, 1)] for name in edge.CONTESTANTS}
    edge.check(runs)
    runs["torch"][0]["scores"][3][5] += 1.0
    with pytest.raises(SystemExit, match="torch must score like the others, got an error of 1"):
        edge.check(runs)
    runs["torch"][0]["scores"][3][5] = float("nan")
    with pytest.raises(SystemExit, match="torch must score like the others"):
        edge.check(runs)


def test_a_summary_is_of_all_processes() -> None:
    first = {"import_s": 0.1, "load_s": 0.2, "first_s": 0.3, "mix_s": [1.0] * 9, "reply_s": [2.0], "peak_bytes": 5e6}
    second = {"import_s": 0.3, "load_s": 0.4, "first_s": 0.5, "mix_s": [3.0], "reply_s": [2.0] * 3, "peak_bytes": 7e6}
    found = edge.summary([first, second])
    assert found["mix_p95_ms"] == pytest.approx(2100)  # of ten requests, between the last two
    del found["mix_p95_ms"]
    assert found == pytest.approx(
        {"import_ms": 200, "load_ms": 300, "first_request_ms": 400, "mix_p50_ms": 1000, "reply_p50_ms": 2000,
         "reply_p95_ms": 2000, "peak_mb": 7}
    )  # fmt: skip
