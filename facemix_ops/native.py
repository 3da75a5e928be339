"""The compiled kernels, ``facemix_ops._C``: found, checked, and set to an instruction set.

FACEMIX_CPU_CAPABILITY=baseline|avx2|avx512|avx512_bf16 on x86-64 (neon is the only one on AArch64) overrides the choice
of the widest that the CPU has and is good at.
"""

from __future__ import annotations

import hashlib
import os

try:
    from . import _C as C
except ImportError as error:
    raise ImportError(
        f"facemix_ops has no compiled kernels for this Python; build them with `pip install .` in the clone ({error})"
    ) from error


# In a clone the kernels may be older than the files that call them, and lack a name, or take other arguments.
_sources = os.path.join(os.path.dirname(__file__), os.pardir, "csrc", "bindings.cpp")
if os.path.isfile(_sources):
    with open(_sources, "rb") as _file:
        _digest = hashlib.sha256(_file.read()).hexdigest()
    if getattr(C, "bindings", None) != _digest:
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
