"""Triton kernels compiled for a GPU that is not here: what a launcher launches, and what the compiler makes of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

SHARED_MEMORY = {80: 163 << 10, 90: 227 << 10}  # bytes that a block may ask for (CUDA programming guide)


@dataclass(frozen=True)
class Compiled:
    """PTX, the bytes of the stack that ptxas needed, the registers of a thread, and shared memory."""

    ptx: str
    stack: int
    registers: int
    shared: int
    threads: int


def launch_of(launcher: Callable[..., None], *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """The one kernel that ``launcher`` launches, with its arguments and options by name."""
    launched = []

    def run(kernel: Any, *values: Any, grid: Any, warmup: bool, **options: Any) -> None:
        assert grid[0] > 0
        launched.append((kernel, dict(zip(kernel.arg_names, values, strict=False)) | options))

    with mock.patch.object(JITFunction, "run", run):
        launcher(*args, **kwargs)
    (only,) = launched
    return only


def compiled(launch: tuple[Any, dict[str, Any]], capability: int, folder: Path) -> Compiled:
    """Compiles for sm_80 or sm_90."""
    binary = binary_of(launch, GPUTarget("cuda", capability, 32))
    path = folder / "kernel.cubin"
    path.write_bytes(binary.asm["cubin"])
    report = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path], capture_output=True, text=True, check=True
    ).stdout
    usage = dict(re.findall(r"(REG|STACK):(\d+)", report))
    return Compiled(
        binary.asm["ptx"],
        int(usage["STACK"]),
        int(usage["REG"]),
        binary.metadata.shared,
        32 * binary.metadata.num_warps,
    )


def compiled_for_amd(launch: tuple[Any, dict[str, Any]], architecture: str) -> tuple[str, int]:
    """Assembly for a GPU such as "gfx942", and how many of its vector registers are spilt."""
    assembly = binary_of(launch, GPUTarget("hip", architecture, 64)).asm["amdgcn"]
    spilt = re.search(r"\.vgpr_spill_count:\s+(\d+)", assembly)
    assert spilt is not None
    return assembly, int(spilt[1])


def binary_of(launch: tuple[Any, dict[str, Any]], target: GPUTarget) -> Any:
    """Compiled with the assumptions that Triton makes of such arguments at run time."""
    kernel, values = launch
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        name, value = parameter.name, values.pop(parameter.name)
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
            continue
        signature[name] = parameter.annotation_type or mangle_type(value)
        number = value.data_ptr() if isinstance(value, torch.Tensor) else value
        if isinstance(number, int) and number % 16 == 0:
            attributes[index,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=target, options=values)
