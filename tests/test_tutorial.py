"""docs/tutorial.md runs as it stands: its ```sh and ```python blocks, in their order, in one folder.

A block that is not to run has a line before it that says why: <!-- not run: reason -->.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)
LANGUAGES = ("sh", "python")
TIMEOUT = 240


@dataclass(frozen=True)
class Block:
    """A piece of code, the line that its code begins in, and why it is not to run."""

    language: str
    code: str
    line: int
    reason: str | None


def blocks(text: str) -> list[Block]:
    """All blocks of a language that runs."""
    found = [
        Block(match["language"], match["code"], text.count("\n", 0, match.start("code")) + 1, match["reason"])
        for match in BLOCK.finditer(text)
    ]
    assert text.count("\n```") == 2 * len(found), "every fence must open or close a block with a language"
    assert text.count("<!-- not run") == sum(block.reason is not None for block in found), "a mark must precede a block"
    return [block for block in found if block.language in LANGUAGES]


class Failed(Exception):
    """A block ended with another status than 0."""


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    """What runs blocks in `folder`; whatever they left running ends with it."""
    session = Shell(folder)
    try:
        yield session
    finally:
        for group in session.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


class Shell:
    """A shell for one block after another: variables and files stay, and what runs in the background goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._variables = folder, folder / ".variables"
        self._variables.touch()
        self.groups: list[int] = []

    def run(self, block: Block) -> str:
        """The block's output.

        Raises:
            Failed: with line and output.
        """
        code = f"python - <<'END_OF_BLOCK'\n{block.code}END_OF_BLOCK\n" if block.language == "python" else block.code
        script = f"set -euo pipefail\nsource .variables\nset -a\n{code}set +a\nexport -p > .variables\n"
        output = self._folder / ".output"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with output.open("w") as stream:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self._folder, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip
        self.groups.append(process.pid)
        status = process.wait(TIMEOUT)
        text = output.read_text()
        if status:
            raise Failed(f"line {block.line}: exit status {status}\n{block.code}\n{text}")
        return text


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
