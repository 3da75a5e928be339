"""Files of ours that something damaged: errors that name them, and say what to do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

__all__ = ["NO_MEMORY", "read_json", "undamaged"]

NO_MEMORY = ("can't allocate memory", "out of memory")  # PyTorch's words, of a CPU and of a GPU

Kind = TypeVar("Kind", dict[str, Any], list[Any])

#: What readers raise about a file that is missing, cut off, or of something else.
DAMAGE = (FileNotFoundError, EOFError, KeyError, RuntimeError, TypeError, UnpicklingError, ValueError)


@contextlib.contextmanager
def undamaged(rule: str, advice: str) -> Iterator[None]:
    """The block reads a file.

    Args:
        rule: who needs which file, and what it must be.
        advice: what to do where it is not.

    Raises:
        ValueError: it is not.
    """
    try:
        yield
    except DAMAGE as error:
        if any(words in str(error) for words in NO_MEMORY):  # the file may be as good as ever
            raise
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{rule}, got {type(error).__name__}: {reason}: {advice}") from error


def read_json(op: str, path: Path, kind: type[Kind], advice: str) -> Kind:
    """The `kind`, dict or list, in a JSON file.

    Raises:
        ValueError: there is none.
    """
    with undamaged(f"{op}: {path} must be JSON, a {kind.__name__}", advice):
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, kind):
            raise TypeError(type(value).__name__)
    return value
