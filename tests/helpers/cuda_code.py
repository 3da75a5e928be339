"""The CUDA kernels as the compiler left them: registers, stack, shared memory, matrix instructions. It needs no GPU.

    python tests/helpers/cuda_code.py BUILD

takes the build folder that `.ci/check-cuda` fills, prints a line for each kernel and architecture, and exits with 1
where

- a fast kernel keeps anything on the stack, which is where spilled registers go. All are fast but those for double,
  those of GENERAL, and those for any group size: the first number among a kernel's template arguments is the group
  size that it is compiled for, or 0;
- a fast kernel reads shared memory by bytes or halves, as a memcpy from there does;
- a block cannot start: registers, threads or static shared memory beyond the hardware's, or no __launch_bounds__ that
  says how many threads there will be (dynamic shared memory is asked for at the launch: tests/cuda refuses too much);
- a kernel with a template argument of MATRIX has no instruction of the tensor cores, no kernel has such an argument, or
  an op of MATRIX_OPS has no kernel with such instructions.

cuobjdump and nvdisasm (PyPI: nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm) are looked for beside this Python, on the
PATH and in $CUDA_HOME/bin.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_90")
REGISTERS = 65536  # of a block, all its threads together; a thread's are counted in eights
THREADS = 1024
SHARED_BYTES = (48 << 10) + (1 << 10)  # static, and what the system takes for itself on sm_90
GENERAL = ("conv_mix_kernel",)
MATRIX = ("TensorProduct", "TensorCores")
MATRIX_OPS = ("conv_mix_bf16", "conv_mix_f16", "conv_mix_tf32", "unmix_linear")
TENSOR_CORES = re.compile(r"\b(HMMA|HGMMA)\.")
NARROW = re.compile(r"\bLDS\.[SU](8|16)\b")
FUNCTION = re.compile(r"^\s*Function\s*:?\s*(\w+):?\s*$")


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture; threads and blocks as its __launch_bounds__ say, 0 where they do not."""

    name: str  # such as group_mix_kernel<__half, 8>
    architecture: str
    registers: int
    stack: int
    shared: int
    threads: int
    blocks: int
    matrix: int  # instructions of the tensor cores,
    narrow: int  # and those that read less than a word of shared memory

    @property
    def fast(self) -> bool:
        name, _, arguments = self.name.partition("<")
        size = re.search(r"\b\d+\b", arguments)
        return name not in GENERAL and "double" not in arguments and (size is None or int(size[0]) > 0)

    @property
    def faults(self) -> list[str]:
        """What is wrong with it; empty where nothing is."""
        warps = -(-self.threads // 32)
        registers = max(1, self.blocks) * warps * 32 * (-(-self.registers // 8) * 8)
        found = {
            "SPILLS": self.fast and self.stack > 0,
            "READS BYTES OF SHARED MEMORY": self.fast and self.narrow > 0,
            "NO LAUNCH BOUNDS": self.threads == 0,
            "TOO MANY THREADS": self.threads > THREADS,
            "TOO MANY REGISTERS": registers > REGISTERS,
            "TOO MUCH SHARED MEMORY": self.shared > SHARED_BYTES,
            "NO TENSOR CORES": any(kind in self.name for kind in MATRIX) and self.matrix == 0,
        }
        return [fault for fault, present in found.items() if present]

    def __str__(self) -> str:
        bounds = f"{self.threads:4} threads" + (f" x {self.blocks}" if self.blocks > 1 else "")
        used = f"{self.registers:3} registers, {self.stack:4} B stack, {self.shared:5} B shared"
        kind = "fast" if self.fast else ""
        return f"{self.architecture} {kind:4} {used}, {bounds}, {self.matrix:3} matrix  {self.name}"


def resources(text: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(architecture, symbol): (registers, stack, shared) from ``cuobjdump --dump-resource-usage``."""
    found, architecture, symbol = {}, "", ""
    for line in text.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            architecture = match[1]
        elif match := FUNCTION.match(line):
            symbol = match[1]
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) ", line):
            found[architecture, symbol] = (int(match[1]), int(match[2]), int(match[3]))
    return found


def launch_bounds(text: str) -> dict[str, tuple[int, int]]:
    """symbol: (threads, blocks) from ``cuobjdump --dump-ptx``, the same for all architectures."""
    found, symbol = {}, ""
    for line in text.splitlines():
        if match := re.search(r"\.entry (\w+)", line):
            symbol = match[1]
            found[symbol] = (0, 0)
        elif match := re.match(r"\s*\.maxntid (\d+)(?:, *(\d+))?(?:, *(\d+))?", line):
            x, y, z = (int(n or 1) for n in match.groups())
            found[symbol] = (x * y * z, found[symbol][1])
        elif match := re.match(r"\s*\.minnctapersm (\d+)", line):
            found[symbol] = (found[symbol][0], int(match[1]))
    return found


def instructions(text: str, wanted: re.Pattern[str]) -> Counter[tuple[str, str]]:
    """(architecture, symbol): instructions of this kind in ``cuobjdump --dump-sass``."""
    found: Counter[tuple[str, str]] = Counter()
    architecture = symbol = ""
    for line in text.splitlines():
        if match := re.search(r"code for (\w+)", line):
            architecture = match[1]
        elif match := FUNCTION.match(line):
            symbol = match[1]
        elif wanted.search(line):
            found[architecture, symbol] += 1
    return found


def short_names(symbols: list[str]) -> dict[str, str]:
    """Demangled, without namespaces and parameters."""
    lines = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    plain = [line.replace("(anonymous namespace)::", "").split("(")[0] for line in lines.splitlines()]
    return {s: re.sub(r"^void |\w+::", "", p) for s, p in zip(symbols, plain, strict=True)}


def kernels(usage: str, ptx: str, sass: str) -> list[Kernel]:
    """All kernels of an object file, from what cuobjdump says."""
    used, bounds = resources(usage), launch_bounds(ptx)
    matrix, narrow = instructions(sass, TENSOR_CORES), instructions(sass, NARROW)
    names = short_names(sorted({symbol for _, symbol in used}))
    return [
        Kernel(names[s], a, *numbers, *bounds.get(s, (0, 0)), matrix[a, s], narrow[a, s])
        for (a, s), numbers in used.items()
    ]


def find_tools() -> Path:
    """The folder of cuobjdump and nvdisasm. Exits where there is none."""
    packages = Path(sys.prefix, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    folders = [*packages.glob("nvidia/*/bin"), *map(Path, os.environ["PATH"].split(os.pathsep))]
    folders += [Path(os.environ["CUDA_HOME"], "bin")] if "CUDA_HOME" in os.environ else []
    for folder in folders:
        if all(shutil.which(tool, path=folder) for tool in ("cuobjdump", "nvdisasm")):
            return folder
    sys.exit("check-cuda needs cuobjdump and nvdisasm: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")


def read(path: Path, tools: Path) -> list[Kernel]:
    """All kernels of an object file."""
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def dump(what: str) -> str:
        command = [tools / "cuobjdump", f"--dump-{what}", path]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    return kernels(dump("resource-usage"), dump("ptx"), dump("sass"))


def missing(name: str, found: list[Kernel]) -> list[str]:
    """What an object file should hold, and does not; one without any kernels is the host's."""
    faults = []
    for architecture in ARCHITECTURES if found or name in MATRIX_OPS else ():
        here = [kernel for kernel in found if kernel.architecture == architecture]
        if not here:
            faults.append(f"{name}: no kernel for {architecture}")
        elif name in MATRIX_OPS and not any(kernel.matrix for kernel in here):
            faults.append(f"{name}: no kernel for {architecture} uses the tensor cores")
    return faults


def main(build: str) -> int:
    """Prints the table; 1 where anything is wrong."""
    tools = find_tools()
    unseen = set(MATRIX)
    paths = sorted(Path(build).rglob("cuda_kernels.dir/**/*.cu.o"))
    wrong = [] if paths else [f"no CUDA object files in {build}: build the target cuda_kernels first"]
    for path in paths:
        found = read(path, tools)
        for kernel in sorted(found, key=lambda k: (k.architecture, k.name)):
            print(kernel, *kernel.faults)
            wrong += [f"{kernel.name}, {kernel.architecture}: {', '.join(kernel.faults)}"] if kernel.faults else []
        unseen -= {kind for kind in MATRIX if any(kind in kernel.name for kernel in found)}
        wrong += missing(path.name.split(".")[0], found)
    absent = set(MATRIX_OPS) - {path.name.split(".")[0] for path in paths}
    wrong += [f"{name}: no such object file; MATRIX_OPS in {Path(__file__).name} names it" for name in sorted(absent)]
    wrong += [f"no kernel of {kind}; MATRIX in {Path(__file__).name} names it" for kind in sorted(unseen)]
    print("\n".join(wrong) or f"{len(paths)} object files: all kernels fit, no fast one spills", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
