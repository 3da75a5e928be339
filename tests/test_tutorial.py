"""docs/tutorial.md runs as it stands."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from documents import Block, Failed, blocks, shell
from PIL import Image

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"


def test_the_tutorial(tmp_path: Path) -> None:
    with shell(tmp_path) as session:
        said = {block.line: session.run(block) for block in blocks(TUTORIAL.read_text()) if block.reason is None}
    assert said
    page = (tmp_path / "run/report.html").read_text()
    assert "faces" in page
    with Image.open(tmp_path / "run/seed-0/examples.png") as picture:
        picture.verify()
    texts = list(said.values())
    # Both times all photographs got a name; through the mix, too, mostly that of their folder.
    tables = [text for text in texts if "80 images classified, 0 refused" in text]
    assert len(tables) == 2
    for table in tables:
        rows = re.findall(r"photos/(\w+)/\d\.png +(\w+) ", table)
        assert len(rows) == 80
        assert sum(folder == name for folder, name in rows) > 60
    assert any("bytes up" in text for text in texts)
    headline = json.loads((tmp_path / "run/seed-0/audit/audit.json").read_text())["verdict"]["headline"]
    assert any(headline in " ".join(text.split()) for text in texts)
    assert headline in (tmp_path / "run/seed-0/audit/audit.html").read_text()


def test_what_is_not_run_is_marked() -> None:
    text = "a\n```sh\necho $A\n```\n\n<!-- not run: slow -->\n```python\nprint(1)\n```\n```csv\na,b\n```\n"
    assert blocks(text) == [Block("sh", "echo $A\n", 3, None), Block("python", "print(1)\n", 8, "slow")]
    for broken in ("```\nsh\n```\n", "\n<!-- not run: why -->\n\n```sh\n```\n", "\n```sh\necho\n"):
        with pytest.raises(AssertionError):
            blocks(broken)


def test_variables_and_processes_last_from_block_to_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with shell(tmp_path) as session:
        session.run(Block("sh", "sleep 600 > pipe &\nP=$!\nWORDS='it'\"'\"'s  so'\n", 1, None))
        assert session.run(Block("python", "import os\nprint(os.environ['WORDS'])\n", 1, None)) == "it's  so\n"
        session.run(Block("sh", "kill -0 $P\n", 1, None))
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""  # there is nobody left who could write
    os.close(reader)


@pytest.mark.parametrize(
    ("language", "code"), [("sh", "echo this\nfalse | cat\n"), ("python", "print('this')\n1 / 0\n")]
)
def test_a_block_that_fails_shows_what_it_said(language: str, code: str, tmp_path: Path) -> None:
    with shell(tmp_path) as session, pytest.raises(Failed, match="line 7: exit status 1\n") as caught:
        session.run(Block(language, code, 7, None))
    assert str(caught.value).startswith(f"line 7: exit status 1\n{code}\nthis\n")
