"""What goes over the wire: float32, float16, bfloat16, which NumPy lacks, as the bits of uint16; or, upwards only, int8
with a scale for each channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rules import bad_type, bad_value

#: The array dtype of each wire dtype.
WIRE_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "int8": np.dtype(np.int8),
}
FLOATS = tuple(dtype for name, dtype in WIRE_DTYPES.items() if name != "int8")
#: int8 holds whole numbers up to this in magnitude.
LARGEST = 127


def widened(op: str, reply: NDArray[Any]) -> NDArray[np.float32]:
    """A reply as float32, contiguous and aligned; uint16 is taken for the bits of bfloat16.

    Raises:
        TypeError: for any other dtype than these three.
    """
    if reply.dtype not in FLOATS:
        bad_type(op, "reply", "have dtype float32, float16, or uint16 (the bits of bfloat16)", str(reply.dtype))
    if reply.dtype == np.uint16:
        return (reply.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(reply, np.float32) if reply.flags.aligned else reply.astype(np.float32)


def check_finite(op: str, rule: str, values: NDArray[np.float32]) -> None:
    """Refuse a reply that breaks `rule`: it, or the scores that it leads to, are not finite."""
    if not np.isfinite(values).all():
        bad_value(op, "reply", rule, f"{np.count_nonzero(~np.isfinite(values))} values that are not")
