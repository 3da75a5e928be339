"""Attacks from a user's own file."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Collection
from pathlib import Path

from .attack import Attack

__all__ = ["load_attacks"]

NAME = re.compile(r"[a-z][a-z0-9_]*")
WORDS = ("name", "title", "knows", "source")


def load_attacks(path: Path, names: Collection[str]) -> tuple[type[Attack], ...]:
    """The attacks in a Python file, which is run.

    Args:
        path: of the file.
        names: that other attacks have.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no attack, or one without a word for the report, or one of a name that is taken.
        Exception: whatever it raises.
    """
    if not path.is_file():
        raise FileNotFoundError(f"audit: --attack-file must be a file, got {path}")
    module_name = f"facemix_attack_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"audit: --attack-file must be a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # where a class finds its own file
    spec.loader.exec_module(module)
    found = tuple(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Attack) and value.__module__ == module_name
        and not inspect.isabstract(value)
    )  # fmt: skip
    if not found:
        raise ValueError(f"audit: --attack-file must define a class derived from Attack, with run, got none in {path}")
    taken = set(names)
    for attack in found:
        if missing := [word for word in WORDS if not isinstance(getattr(attack, word, None), str)]:
            raise ValueError(f"audit: {attack.__name__} must have {', '.join(WORDS)}, got no {missing[0]}")
        if not NAME.fullmatch(attack.name):
            raise ValueError(f"audit: name must be small letters, digits and _, got {attack.name!r}")
        if attack.name in taken:
            raise ValueError(f"audit: every attack must have a name of its own, got {attack.name!r} twice")
        taken.add(attack.name)
    return found
