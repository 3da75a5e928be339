"""The section of docs/serving.md on a network of one's own runs as it stands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from documents import blocks, section, shell

SERVING = Path(__file__).parents[1] / "docs" / "serving.md"
NAMES = ["ada", "ben", "cleo", "dan", "eve", "finn", "gus", "hana"]


def test_your_own_network(tmp_path: Path) -> None:
    with shell(tmp_path) as session:
        said = [session.run(block) for block in blocks(section(SERVING.read_text(), "Your own network"))]
    truth = [NAMES[row // 10] for row in range(0, 80, 9)]
    (line,) = [line for text in said for line in text.splitlines() if line.startswith("[")]
    names = ast.literal_eval(line)
    assert len(names) == len(truth)
    # They were trained on: most are recognised, where guessing gets one in eight.
    assert sum(name == true for name, true in zip(names, truth, strict=True)) > 5
    tables = [re.findall(r"photos/(\d+)\.png +(\w+) ", text) for text in said if "photos/0.png" in text]
    through_the_cloud, local = (table for table in (tables[0][: len(truth)], tables[0][len(truth) :]))
    for table in (through_the_cloud, local):
        assert len(table) == len(truth)
        assert sum(name == NAMES[int(row) // 10] for row, name in table) > 5
    for file in ("cloud.safetensors", "edge.safetensors", "results.json"):
        assert (tmp_path / "run/seed-0" / file).is_file()
