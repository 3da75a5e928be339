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


def _digest_of(csrc: str) -> str:
    """Of all sources, as CMakeLists.txt computes it."""
    paths = (os.path.join(folder, name) for folder, _, names in os.walk(csrc) for name in names)
    lines = []
    for path in sorted(path for path in paths if path.endswith((".cpp", ".cu", ".h"))):
        with open(path, "rb") as file:
            lines.append(f"{os.path.relpath(path, csrc)} {hashlib.sha256(file.read()).hexdigest()}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


_csrc = os.path.join(os.path.dirname(os.path.dirname(__file__)), "csrc")
# In a clone the kernels may be older than what calls them, or than the commit that a result names.
if os.path.isfile(os.path.join(_csrc, "bindings.cpp")) and getattr(C, "sources", None) != _digest_of(_csrc):
    raise ImportError(
        f"facemix_ops: the compiled kernels must be built from this clone's csrc, got ones of another ({C.__file__}): "
        "build them again with `pip install -e .` in the clone"
    )

_wish = os.environ.get("FACEMIX_CPU_CAPABILITY")
if _wish:
    try:
        C.use_capability(_wish)
    except ValueError as error:
        raise ValueError(f"FACEMIX_CPU_CAPABILITY: {error}") from None
