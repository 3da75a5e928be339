"""A pytest plugin for the ops in Triton's interpreter.

That takes milliseconds for what a kernel does in nanoseconds: ``--cases`` runs some of each test's (some_cases.py), and
gradients are checked along random directions. It works out whether sums overflow, and then says nothing of it: that,
more than half of its time, is switched off. And it multiplies the bits of bfloat16 as if they were integers: here it
gets the product that a GPU makes of them. Devices are as small as images, so that programs have several rows.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, InterpreterOptions, TensorHandle, interpreter_builder

from facemix_ops.triton import tiles

pytest_plugins = ["some_cases"]
tiles.BUSY = 4
_dot = InterpreterBuilder.create_dot


def _widened(x: Any) -> Any:
    if x.dtype.scalar != tl.bfloat16:
        return x
    return TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    return _dot(self, _widened(a), _widened(b), *rest)


InterpreterBuilder.create_dot = _create_dot
interpreter_builder.options = InterpreterOptions(sanitize_overflow=False)
torch.autograd.gradcheck = partial(torch.autograd.gradcheck, fast_mode=True)
torch.autograd.gradgradcheck = partial(torch.autograd.gradgradcheck, fast_mode=True)
