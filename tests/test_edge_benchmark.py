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
