"""Runs the PTX that a compiler made of a kernel, instruction by instruction, where there is no GPU.

All threads of some blocks step together, each register one array over them. What a GPU would not allow is an error:
addresses outside of the tensors of a call, or not aligned; a word of shared memory that two warps touch, one of them
writing, without a barrier between; copies, or products of warpgroups, that nobody waited for; memory that is written
while such a product reads it, or was, without a fence behind; a barrier that some threads never reach.
Two warps may write a word in one step, as Triton's do where lanes hold the same.
"""

from .machine import launch
from .memory import Global, PtxError
from .parse import Kernel, Module
from .traffic import Traffic

__all__ = ["Global", "Kernel", "Module", "PtxError", "Traffic", "launch"]
