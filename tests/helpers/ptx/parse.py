"""PTX as text to kernels: registers, memory, and basic blocks of instructions (PTX ISA, sections 4 to 6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .memory import PtxError


@dataclass(frozen=True)
class Instruction:
    """``predicate`` is a register, or None; ``negated``: it counts where that is false."""

    opcode: str
    operands: tuple[str, ...]
    predicate: str | None = None
    negated: bool = False

    @property
    def ends(self) -> bool:
        """Whether threads may go elsewhere, or wait: the last of its block."""
        return self.opcode.split(".")[0] in ("bra", "ret", "exit", "bar")


@dataclass(eq=False)
class Block:
    """What runs from its first instruction to its last; only the last may go elsewhere, or wait."""

    instructions: list[Instruction] = field(default_factory=list)


@dataclass(eq=False)
class Kernel:
    """Parameters, shared and local variables: (offset, size) in bytes by name; widths of registers in bits, 1 of a
    predicate; numbers of blocks by their labels."""

    name: str
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)
    registers: dict[str, int] = field(default_factory=dict)
    shared: dict[str, tuple[int, int]] = field(default_factory=dict)
    local: dict[str, tuple[int, int]] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def static_shared(self) -> int:
        """Bytes of shared memory that the kernel has whatever it is launched with."""
        return _end(self.shared)


_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(")
_PARAMETER = re.compile(r"\.param\s+(.*?)([\w$]+)(?:\[(\d+)\])?\s*$", re.S)
_VARIABLE = re.compile(r"\.(shared|local)\s+.*?\.align\s+(\d+)\s+\.b8\s+([\w$]+)\s*\[(\d*)\]")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)", re.S)
_LABEL = re.compile(r"([\w$]+):(?!:)")


class Module:
    """The kernels of a text, by their names; each is read when it is asked for."""

    def __init__(self, ptx: str) -> None:
        ptx = re.sub(r"/\*.*?\*/", "", re.sub(r"//[^\n]*", "", ptx), flags=re.S)
        self._text = re.sub(r"^\s*\.(loc|file)\b[^\n]*", "", ptx, flags=re.M)
        self._entries = {entry[1]: entry.end() for entry in _ENTRY.finditer(self._text)}
        self._shared: dict[str, tuple[int, int]] = {}
        for variable in _VARIABLE.finditer(re.sub(r"\{.*?\n\s*\}", "", self._text, flags=re.S)):
            _place(self._shared, variable)
        self._kernels: dict[str, Kernel] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Kernel:
        """Raises PtxError for what this does not know."""
        if name not in self._kernels:
            self._kernels[name] = self._read(name, self._entries[name])
        return self._kernels[name]

    def _read(self, name: str, at: int) -> Kernel:
        kernel, end, offset = Kernel(name, shared=dict(self._shared)), self._text.index(")", at), 0
        for parameter in self._text[at:end].split(","):
            if match := _PARAMETER.search(parameter.strip()):
                size = int(re.findall(r"\.[busf](\d+)", match[1])[0]) // 8 * int(match[3] or 1)
                alignment = re.search(r"\.align\s+(\d+)\s+\.b8", match[1])
                align = int(alignment[1]) if alignment else size
                offset = -(-offset // align) * align
                kernel.parameters[match[2]] = (offset, size)
                offset += size
        _read_body(kernel, self._text, self._text.index("{", end) + 1)
        return kernel


def _end(variables: dict[str, tuple[int, int]]) -> int:
    return max((at + size for at, size in variables.values()), default=0)


def _place(variables: dict[str, tuple[int, int]], declared: re.Match[str]) -> None:
    align = int(declared[2])
    variables[declared[3]] = (-(-_end(variables) // align) * align, int(declared[4] or 0))


def _read_body(kernel: Kernel, text: str, at: int) -> None:
    scopes: list[dict[str, str]] = [{}]  # names of registers, as they are declared and as they are here
    kernel.blocks.append(Block())
    while True:
        while text[at].isspace():
            at += 1
        if text[at] == "{":
            scopes.append({})
            at += 1
        elif text[at] == "}":
            scopes.pop()
            at += 1
            if not scopes:
                return
        elif label := _LABEL.match(text, at):
            if kernel.blocks[-1].instructions:
                kernel.blocks.append(Block())
            kernel.labels[label[1]] = len(kernel.blocks) - 1
            at = label.end()
        else:
            end = text.index(";", at)
            _read_statement(kernel, scopes, text[at:end].strip())
            at = end + 1


def _read_statement(kernel: Kernel, scopes: list[dict[str, str]], statement: str) -> None:
    if registers := _REGISTERS.match(statement):
        width = 1 if registers[1] == "pred" else int(registers[1][1:])
        for name in registers[2].split(","):
            name = name.strip()
            counted = re.match(r"(.*)<(\d+)>", name)
            for each in [f"{counted[1]}{i}" for i in range(int(counted[2]))] if counted else [name]:
                unique = each if len(scopes) == 1 else f"{each}@{len(kernel.registers)}"
                scopes[-1][each] = unique
                kernel.registers[unique] = width
    elif variable := _VARIABLE.match(statement):
        _place(kernel.shared if variable[1] == "shared" else kernel.local, variable)
    elif statement.startswith(".pragma"):
        pass
    elif statement.startswith("."):
        raise PtxError(f"{kernel.name}: cannot read {statement!r}")
    elif statement:
        _append(kernel, _instruction(scopes, statement))


def _instruction(scopes: list[dict[str, str]], statement: str) -> Instruction:
    def renamed(register: re.Match[str]) -> str:
        return next((scope[register[0]] for scope in reversed(scopes) if register[0] in scope), register[0])

    match = re.match(r"(?:@(!?)(%?[\w$]+)\s+)?(\S+)\s*(.*)", statement, re.S)
    assert match is not None
    operands = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[]+)+", match[4])
    names = [re.sub(r"%?[A-Za-z_$][\w$]*", renamed, operand).strip() for operand in operands]
    predicate = match[2] and re.sub(r"%?[\w$]+", renamed, match[2])
    return Instruction(match[3], tuple(names), predicate, match[1] == "!")


def _append(kernel: Kernel, instruction: Instruction) -> None:
    kernel.blocks[-1].instructions.append(instruction)
    if instruction.ends:
        kernel.blocks.append(Block())
