"""Documents run as they stand: their ```sh and ```python blocks, in their order, in one folder.

A block that is not to run has a line before it that says why: <!-- not run: reason -->.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "Failed", "Shell", "blocks", "section", "shell"]

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


def section(text: str, title: str) -> str:
    """What is under the heading `## title`, on the lines that it has in the document."""
    head, heading, rest = text.partition(f"\n## {title}\n")
    assert heading, f"the document must have a section {title!r}"
    return "\n" * (head + heading).count("\n") + rest.partition("\n## ")[0] + "\n"


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
