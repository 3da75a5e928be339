"""The hot loops of conv_mix as the compiler left them: FMAs, loads per FMA, spills.

    python tests/helpers/assembly.py BUILD [BUILD ...]

takes build folders (CMake, not sanitized), finds the innermost loops with the most FMAs in the object files of each
instruction set, prints a line for each, and exits with 1 where one spills: has a vector register on the stack. (An
address that is read from there once in a dozen FMAs is reported, and costs nothing.) The baseline of x86-64 has no FMA:
there multiplications are counted, and with 16 registers and no broadcast its spills are reported but not refused.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

AARCH64 = 183  # e_machine of an ELF file
HOT = 0.75  # loops with at least this share of the most FMAs: one source has blocks of several sizes


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its instructions that multiply and add, read memory, and touch the stack, vectors or not."""

    fmas: int
    loads: int
    spills: int
    addresses: int

    def __str__(self) -> str:
        rate = f"{self.fmas:3} FMAs, {self.loads / self.fmas:.2f} loads per FMA"
        return f"{rate}, {self.spills} spills, {self.addresses} addresses from the stack"


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str


def machine(path: Path) -> int:
    """e_machine of an ELF file."""
    return int.from_bytes(path.read_bytes()[18:20], "little")


def functions(path: Path) -> list[list[Instruction]]:
    """The instructions of every function of an object file."""
    objdump = "aarch64-linux-gnu-objdump" if machine(path) == AARCH64 else "objdump"
    text = subprocess.run(
        [objdump, "-dw", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    found: list[list[Instruction]] = []
    for line in text.splitlines():
        if line.endswith(">:"):
            found.append([])
        elif match := re.match(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)", line):
            found[-1].append(Instruction(int(match[1], 16), match[2], match[3]))
    return found


def innermost_loops(code: list[Instruction]) -> list[list[Instruction]]:
    """The bodies of backward jumps that hold no other backward jump."""
    spans = []
    for i in code:
        jump = re.match(r"j|b\.|b$|cbn?z|tbn?z", i.name) and re.search(r"(?:^|, )([0-9a-f]+) <", i.operands)
        if jump and code[0].address <= int(jump[1], 16) <= i.address:
            spans.append((int(jump[1], 16), i.address))
    inner = [s for s in spans if not any(t != s and s[0] <= t[0] and t[1] <= s[1] for t in spans)]
    return [[i for i in code if first <= i.address <= last] for first, last in inner]


def measure(body: list[Instruction], is_arm: bool, framed: bool) -> Loop:
    """Counts. Broadcasts from memory inside an x86 FMA are loads; an AArch64 pair (ldp) is two."""
    fmas = loads = 0
    stack: Counter[bool] = Counter()  # by whether a vector register is involved
    for i in body:
        if is_arm:
            fmas += i.name in ("fmla", "fmadd")
            loads += {"ldp": 2}.get(i.name, i.name.startswith("ld"))
            if re.search(r"\[(sp|x29)\b", i.operands):
                stack[bool(re.search(r"\b[vqds]\d", i.operands))] += 1
        else:
            fmas += i.name.startswith(("vfmadd", "vdpbf16", "mulp"))
            memory = "(" in i.operands and not i.name.startswith(("lea", "nop", "prefetch"))
            loads += memory and not re.search(r"\)$", i.operands)  # the last operand is the destination
            if re.search(r"\(%rsp|\(%rbp" if framed else r"\(%rsp", i.operands):
                stack["mm" in i.operands] += 1
    return Loop(fmas, loads, stack[True], stack[False])


def hot_loops(path: Path) -> Counter[Loop]:
    """The loops with the most FMAs, and how often each occurs."""
    is_arm = machine(path) == AARCH64
    loops: Counter[Loop] = Counter()
    for code in functions(path):
        framed = any(i.name == "mov" and i.operands == "%rsp,%rbp" for i in code)
        loops.update(measure(body, is_arm, framed) for body in innermost_loops(code))
    most = max((loop.fmas for loop in loops), default=0)
    return Counter({loop: n for loop, n in loops.items() if loop.fmas and loop.fmas >= HOT * most})


def main(builds: list[str]) -> int:
    """Prints the table; 1 where something was spilled, or nothing was found."""
    paths = [p for b in builds for p in sorted(Path(b).glob("CMakeFiles/cpu_*.dir/csrc/cpu/conv_mix*.o"))]
    spilled = not paths
    for path in paths:
        isa = path.parents[2].name.removeprefix("cpu_").removesuffix(".dir")
        loops = hot_loops(path)
        spilled |= not loops
        for loop, count in sorted(loops.items(), key=lambda item: -item[0].fmas):
            refused = loop.spills > 0 and isa != "baseline"
            spilled |= refused
            print(f"{isa:12} {path.name:16} {count:2} x {loop}{'  SPILLED' if refused else ''}")
    if not paths:
        print(f"no conv_mix object files in {', '.join(builds) or 'no folder'}: build first", file=sys.stderr)
    return int(spilled)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
