"""Numbers of things, in words."""

from __future__ import annotations

import re
from pathlib import Path

import facemix
import pytest
from facemix.plural import plural


@pytest.mark.parametrize(("number", "said"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (1200, "1200 epochs")])
def test_one_is_not_many(number: int, said: str) -> None:
    assert plural(number, "epoch") == said


def test_nothing_else_makes_plurals() -> None:
    modules = [path for path in Path(facemix.__file__).parent.rglob("*.py") if path.name != "plural.py"]
    assert not [path for path in modules if re.search(r"== 1 else ['\"]e?s['\"]", path.read_text())]
