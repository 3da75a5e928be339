"""How many instructions the CUDA kernels need for one that multiplies. It needs no GPU.

    python tests/helpers/cuda_loops.py OBJECT [HMMA|FFMA]

prints, for each kernel of an object file and each architecture, the straight pieces of code that multiply: how many
products, of how many instructions, and which pieces are loops. Tools as in cuda_code.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass

from cuda_code import FUNCTION, find_tools, short_names

LEAST = 16  # products of a piece worth a line
INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?) ?;")
JUMP = re.compile(r"\b(BRA|BRX|CALL|EXIT|RET|BSSY)\b[^;]*?(?:0x([0-9a-f]+))?\s*$")


@dataclass(frozen=True)
class Piece:
    """Code without a jump into it or out of it, but at its ends."""

    architecture: str
    symbol: str
    products: int
    instructions: int
    loop: bool

    def __str__(self) -> str:
        kind = "loop" if self.loop else "run"
        each = self.instructions / self.products
        return f"{self.architecture} {kind:4} {self.products:3} of {self.instructions:4} instructions, {each:.2f} each"


def pieces(sass: str, product: str = "HMMA") -> list[Piece]:
    """Those that multiply, from ``cuobjdump --dump-sass``."""
    found: list[Piece] = []
    for part in re.split(r"(?=\bcode for sm_)", sass):
        architecture = part.removeprefix("code for ").split("\n", 1)[0].strip()
        for function in re.split(r"(?m)(?=^\s*Function\s*:)", part)[1:]:
            header = FUNCTION.match(function.split("\n", 1)[0])
            lines = [(int(m[1], 16), m[2]) for line in function.split("\n") if (m := INSTRUCTION.match(line))]
            for piece in straight(lines):
                products = sum(product in text for _, text in piece)
                jump = JUMP.search(piece[-1][1])
                loop = jump is not None and jump[2] is not None and int(jump[2], 16) == piece[0][0]
                if header and products >= LEAST:
                    found.append(Piece(architecture, header[1], products, len(piece), loop))
    return found


def straight(lines: list[tuple[int, str]]) -> list[list[tuple[int, str]]]:
    """Cuts (address, instruction) where jumps go from and to."""
    jumps = [JUMP.search(text) for _, text in lines]
    targets = {int(jump[2], 16) for jump in jumps if jump and jump[2]}
    parts: list[list[tuple[int, str]]] = [[]]
    for line, jump in zip(lines, jumps, strict=True):
        if line[0] in targets and parts[-1]:
            parts.append([])
        parts[-1].append(line)
        if jump and jump[1] != "BSSY":
            parts.append([])
    return [part for part in parts if part]


def main(path: str, product: str = "HMMA") -> None:
    tools = find_tools()
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = [tools / "cuobjdump", "--dump-sass", path]
    sass = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    found = pieces(sass, product)
    names = short_names(sorted({piece.symbol for piece in found}))
    for piece in found:
        print(piece, names[piece.symbol], sep="  ")


if __name__ == "__main__":
    main(*sys.argv[1:3])
