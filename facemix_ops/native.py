"""The compiled kernels, ``facemix_ops._C``: found, checked, and set to an instruction set.

FACEMIX_CPU_CAPABILITY=baseline|avx2|avx512|avx512_bf16 on x86-64 (neon is the only one on AArch64) overrides the choice
of the widest that the CPU has and is good at.
"""

from __future__ import annotations

import hashlib
import os
from typing import NoReturn

try:
    from . import _C as C
except ImportError as error:
    raise ImportError(
        f"facemix_ops has no compiled kernels for this Python; build them with `pip install .` in the clone ({error})"
    ) from error


def _stale(name: str) -> NoReturn:
    raise AttributeError(
        f"facemix_ops: the compiled kernels must have {name!r}, got ones without it, built from other sources "
        f"({C.__file__}): build them again with `pip install -e .` in the clone"
    )


# Python asks this for what a module has not. In a clone the kernels may be older than the files that call them.
vars(C)["__getattr__"] = _stale

# What has the same names may take other arguments.
_sources = os.path.join(os.path.dirname(__file__), os.pardir, "csrc", "bindings.cpp")
if os.path.isfile(_sources):
    with open(_sources, "rb") as _file:
        _digest = hashlib.sha256(_file.read()).hexdigest()
    if C.bindings != _digest:
        raise ImportError(
            f"facemix_ops: the compiled kernels must be built from this clone's csrc/bindings.cpp, got ones of another "
            f"({C.__file__}): build them again with `pip install -e .` in the clone"
        )

_wish = os.environ.get("FACEMIX_CPU_CAPABILITY")
if _wish:
    try:
        C.use_capability(_wish)
    except ValueError as error:
        raise ValueError(f"FACEMIX_CPU_CAPABILITY: {error}") from None
