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

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?PT?\d*\s+)?([A-Z][A-Z0-9_.x]*)\s+(.*?);")
REGISTER = re.compile(r"R(\d+)")
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


def overwritten(sass: str) -> list[str]:
    """Of the instructions of a kernel, those that write a register that a product of a warpgroup may still read.

    A product takes its left matrix from registers as it goes. ptxas before 13.3 may put other values into them before
    it has ended (triton-lang/triton#9433): then all is well, but the result.
    """
    found: list[str] = []
    groups: list[list[int]] = [[]]  # of products under way: of each the first of the four registers that it reads
    for line in sass.splitlines():
        if (match := INSTRUCTION.search(line)) is None:
            continue
        name, operands = match[1], [operand.strip() for operand in match[2].split(",")]
        if name.startswith("WARPGROUP.DEPBAR"):
            left = int(operands[-1], 16)  # groups, besides the one that is not whole
            groups = groups[-1 - left :]
        target = REGISTER.match(operands[0])
        if target and not name.startswith(("ST", "RED")):
            first = int(target[1])
            if any(first < read + 4 and read < first + _registers_of(name) for group in groups for read in group):
                found.append(line.strip())
        if name.startswith("HGMMA"):
            groups[-1] += [int(read[1:]) for read in operands[1:2] if REGISTER.match(read)]
            groups += [[]] if "gsb0" in operands else []
    return found


def _registers_of(name: str) -> int:
    """How many registers an instruction writes, at most."""
    if name.startswith("HGMMA"):
        return int(name.split("x")[1]) // 2
    if name.startswith(("HMMA", "IMMA", "DMMA", "LDSM")) or ".128" in name:
        return 4
    return 2 if ".64" in name or ".WIDE" in name or name.startswith("D") else 1


def disassembled(cubin: Path) -> str:
    """Its SASS."""
    tool = triton.knobs.nvidia.nvdisasm.path
    return subprocess.run([tool, "-c", cubin], capture_output=True, text=True, check=True).stdout


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
