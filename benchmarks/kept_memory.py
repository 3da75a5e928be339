"""Memory that PyTorch keeps from one call to the next, in large pages, as our results do.

glibc takes what is as large as these results from the system, and gives it back, at every call: a page fault for each
4 KiB that PyTorch writes, up to half of its time. Its guides tell to preload another allocator; this does as much.
"""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # glibc's malloc.h
NEVER = 2**31 - 1


def keep_memory() -> bool:
    """For the rest of this process; call it before PyTorch allocates. False where malloc is not glibc's."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # PyTorch's own: it asks for large pages, as facemix_ops does
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, NEVER))
