"""Kernels that tests write in PTX, one body each, on the machine that runs PTX."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from ptx import Global, Module, Traffic, launch

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
# Of thread t of block b: %rd1 is the address of word b * %ntid.x + t of the parameter.
WORD = """
    ld.param.u64 %rd1, [k_param_0];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mad.lo.s32 %r4, %r2, %r3, %r1;
    mul.wide.s32 %rd2, %r4, 4;
    add.s64 %rd1, %rd1, %rd2;
"""


def run(body: str, words: Any, *, threads: int = 32, blocks: int = 1, shared: int = 0, size: int | None = None,
        traffic: Traffic | None = None) -> Any:  # fmt: skip
    """A kernel with ``body`` over ``words``; it may touch ``size`` bytes of them. Returns what they then are."""
    text = f"""{HEAD}
        .extern .shared .align 16 .b8 s[];
        .visible .entry k(.param .u64 k_param_0)
        {{
            .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<40>; .reg .f32 %f<40>; .reg .b64 %rd<9>;
            {WORD} {body}
            ret;
        }}"""
    memory = np.zeros(len(words) + 8, np.uint32)
    begin = -memory.ctypes.data % 16 // 4
    there = memory[begin : begin + len(words)]
    there[:] = np.asarray(words).view(np.uint32)
    known = Global()
    known.add(there.ctypes.data, there.nbytes if size is None else size)
    parameter = struct.pack("<Q", there.ctypes.data)
    launch(Module(text)["k"], (blocks, 1, 1), (threads, 1, 1), shared, parameter, known, traffic)
    return there.copy()
