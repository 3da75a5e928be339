"""Instructions to lines of Python over arrays of lanes; ``q`` is which lanes an instruction is for, True for all."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from .memory import PtxError
from .parse import Instruction, Kernel
from .warpgroups import shape_of

# Of a type, by its letter and width: the letter and bytes of numpy's.
_KINDS = {
    **{f"{letter}{bits}": f"{numpy}{bits // 8}" for letter, numpy in (("u", "u"), ("b", "u"), ("s", "i"))
       for bits in (8, 16, 32, 64)},
    "f16": "f2", "f32": "f4", "f64": "f8", "pred": "?",
}  # fmt: skip
_SIGNS = {"add": "+", "sub": "-", "and": "&", "or": "|", "xor": "^"}
_FUNCTIONS = {"not": "~", "neg": "-", "abs": "np.abs", "sqrt": "np.sqrt", "rem": "remainder", "fma": "fused"}
_WHOLE = {"rni": "np.rint", "rzi": "np.trunc", "rmi": "np.floor", "rpi": "np.ceil"}  # to whole numbers
_OTHER_MEANINGS = {"sat", "ftz", "cc", "rz", "rm", "rp", "approx", "full"}
_SPECIAL = re.compile(r"%(tid|ntid|ctaid|nctaid)\.([xyz])$|%(laneid|warpid)$")
_CACHE_HINTS = {"ca", "cg", "cs", "cv", "lu", "wb", "wt", "nc", "volatile", "weak", "L1", "L2"}


@dataclass
class Translation:
    """Python of a block, the views of registers that it needs, (register, kind) by name, and how the block ends."""

    source: str
    views: dict[str, tuple[str, str]]
    end: Instruction | None


@dataclass
class Translator:
    """Of one kernel."""

    kernel: Kernel
    _views: dict[str, tuple[str, str]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def block(self, number: int) -> Translation:
        """Block ``number`` as a function of the lanes that are there."""
        instructions = self.kernel.blocks[number].instructions
        end = instructions[-1] if instructions and instructions[-1].ends else None
        self._views = {}
        lines = ["def run(m):", " q = m"]
        for instruction in instructions[: len(instructions) - (end is not None)]:
            if instruction.predicate:
                sign = "~" if instruction.negated else ""
                lines.append(f" q = m & {sign}{self.value(instruction.predicate, 'pred')}")
            lines += [f" {line}" for line in self._lines(instruction)]
            if instruction.predicate:
                lines.append(" q = m")
        return Translation("\n".join(lines), self._views, end)

    # --- operands ----------------------------------------------------------------------------------------------------

    def view(self, register: str, kind: str) -> str:
        """The array of a register, seen as a kind of numpy's of its width."""
        number = self._numbers.setdefault(register, len(self._numbers))
        name = f"r{number}_{kind.replace('?', 'p')}"
        self._views[name] = (register, kind)
        return name

    def value(self, operand: str, ptx_type: str) -> str:
        """An operand as an array, or a number, of a type."""
        kind = _KINDS.get(ptx_type)
        if kind is None:
            raise PtxError(f"{self.kernel.name}: cannot run anything of {ptx_type}")
        if operand in self.kernel.registers:
            width = self.kernel.registers[operand]
            if ptx_type == "pred" or width == 8 * int(kind[1]):
                return self.view(operand, kind)
            return f"{self.view(operand, f'u{width // 8}')}.astype('u{kind[1]}').view('{kind}')"  # its lower bits
        if special := _SPECIAL.match(operand):
            name = f"{special[1]}_{special[2]}" if special[1] else special[3]
            return f"{name}.astype('{kind}')"
        for variables in (self.kernel.shared, self.kernel.local, self.kernel.parameters):
            if operand in variables:
                return f"np.dtype('{kind}').type({variables[operand][0]})"
        return _constant(operand, kind)

    def write(self, operand: str, ptx_type: str, expression: str) -> str:
        """Where an instruction's result goes."""
        kind = _KINDS[ptx_type]
        if operand == "_":
            return expression
        if operand not in self.kernel.registers:
            raise PtxError(f"{self.kernel.name}: {operand} is no register")
        width = self.kernel.registers[operand]
        if kind != "?" and width > 8 * int(kind[1]):  # with the sign, where the type has one
            kind = f"{kind[0] if kind[0] != 'f' else 'u'}{width // 8}"
        return f"np.copyto({self.view(operand, kind)}, {expression}, where=q)"

    def address(self, operand: str) -> str:
        """[register + offset] or [variable + offset]"""
        match = re.fullmatch(r"\[\s*([%\w$@.]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand)
        if not match:
            raise PtxError(f"{self.kernel.name}: cannot read the address {operand}")
        base, offset = match[1], int(match[2] or "0", 0)
        if base in self.kernel.registers:
            kind = f"u{self.kernel.registers[base] // 8}"
            return f"{self.view(base, kind)} + {_constant(str(offset), kind)}"
        for variables in (self.kernel.shared, self.kernel.local, self.kernel.parameters):
            if base in variables:
                return f"np.full(lanes, {variables[base][0] + offset}, 'u8')"
        raise PtxError(f"{self.kernel.name}: cannot read the address {operand}")

    # --- instructions ------------------------------------------------------------------------------------------------

    def _lines(self, instruction: Instruction) -> list[str]:
        name, *modifiers = instruction.opcode.split(".")
        if name in _SIGNS:
            method: Callable[..., list[str]] | None = partial(self._plain, _SIGNS[name])
        elif name in _FUNCTIONS:
            method = partial(self._called, _FUNCTIONS[name])
        else:
            method = getattr(self, f"_{name}", None)
        if method is None or (name != "rcp" and _OTHER_MEANINGS & set(modifiers)):
            raise PtxError(f"{self.kernel.name}: cannot run {instruction.opcode}")
        return method(modifiers, instruction.operands)

    def _plain(self, sign: str, modifiers: list[str], operands: tuple[str, ...]) -> list[str]:
        of = modifiers[-1]
        d, a, b = operands
        return [self.write(d, of, f"{self.value(a, of)} {sign} {self.value(b, of)}")]

    def _called(self, function: str, modifiers: list[str], operands: tuple[str, ...]) -> list[str]:
        of = modifiers[-1]
        d, *rest = operands
        return [self.write(d, of, f"{function}({', '.join(f'lanewise({self.value(x, of)})' for x in rest)})")]

    def _rcp(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if m != ["approx", "ftz", "f64"]:
            raise PtxError(f"{self.kernel.name}: cannot run rcp.{'.'.join(m)}")
        return self._called("reciprocal", m, o)

    def _copysign(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        return self._called("np.copysign", m, (o[0], o[2], o[1]))

    def _div(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        return self._plain("/", m, o) if m[-1][0] == "f" else self._called("divided", m, o)

    def _mul(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if "wide" in m:
            return [self.write(o[0], _twice(m[-1]), self._wide(m[-1], o[1], o[2]))]
        return self._called("high_product", m, o) if "hi" in m else self._plain("*", m, o)

    def _mad(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        d, a, b, c = o
        if "wide" in m:
            of = _twice(m[-1])
            return [self.write(d, of, f"{self._wide(m[-1], a, b)} + {self.value(c, of)}")]
        of = m[-1]
        return [self.write(d, of, f"{self.value(a, of)} * {self.value(b, of)} + {self.value(c, of)}")]

    def _wide(self, of: str, a: str, b: str) -> str:
        return f"wide_product(lanewise({self.value(a, of)}), lanewise({self.value(b, of)}))"

    def _min(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        return self._extremum(_extremum("minimum", "fmin", m), m, o)

    def _max(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if m[-1] in ("bf16x2", "f16x2"):
            a, b = (self.value(x, "b32") for x in o[1:])
            return [self.write(o[0], "b32", f"larger_of_pairs({a}, {b}, {m[-1] == 'bf16x2'})")]
        return self._extremum(_extremum("maximum", "fmax", m), m, o)

    def _extremum(self, function: str, m: list[str], o: tuple[str, ...]) -> list[str]:
        if m[-1] != "bf16":
            return self._called(function, m, o)
        a, b = (f"from_bfloat16(lanewise({self.value(x, 'b16')}))" for x in o[1:])
        return [self.write(o[0], "b16", f"to_bfloat16({function}({a}, {b}))")]

    def _shl(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        return self._shift(m, o, left=True)

    def _shr(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        return self._shift(m, o, left=False)

    def _shift(self, m: list[str], o: tuple[str, ...], left: bool) -> list[str]:
        a, by = self.value(o[1], m[-1]), self.value(o[2], "u32")
        return [self.write(o[0], m[-1], f"shifted(lanewise({a}), {by}, {left})")]

    def _bfe(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        a, begin, length = self.value(o[1], m[-1]), self.value(o[2], "u32"), self.value(o[3], "u32")
        return [self.write(o[0], m[-1], f"field(lanewise({a}), lanewise({begin}), lanewise({length}))")]

    def _bfi(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        a, b = (self.value(x, m[-1]) for x in o[1:3])
        begin, length = (self.value(x, "u32") for x in o[3:])
        operands = ", ".join(f"lanewise({x})" for x in (a, b, begin, length))
        return [self.write(o[0], m[-1], f"inserted({operands})")]

    def _prmt(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if m != ["b32"]:
            raise PtxError(f"{self.kernel.name}: cannot run prmt.{'.'.join(m)}")
        return self._called("permuted", m, o)

    def _selp(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        d, a, b, p = o
        of = m[-1]
        return [self.write(d, of, f"np.where({self.value(p, 'pred')}, {self.value(a, of)}, {self.value(b, of)})")]

    def _setp(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        comparison, of = m[0], m[-1]
        a, b = (f"lanewise({self.value(x, 'b16' if of == 'bf16' else of)})" for x in o[1:3])
        if of == "bf16":
            a, b = f"from_bfloat16({a})", f"from_bfloat16({b})"
        found = f"compared('{comparison}', {a}, {b})"
        if len(m) == 3 and m[1] in ("and", "or", "xor"):
            third = o[3].lstrip("!")
            negated = "~" if o[3].startswith("!") else ""
            found = f"{found} {_SIGNS[m[1]]} {negated}{self.value(third, 'pred')}"
        return [self.write(o[0], "pred", found)]

    def _mov(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        d, a = o
        if a.startswith("{"):
            parts = _listed(a)
            of = f"u{int(m[-1][1:]) // len(parts)}"
            shift = int(of[1:])
            kind = _KINDS[m[-1]]
            words = [f"(lanewise({self.value(x, of)}).astype('{kind}') << np.dtype('{kind}').type({i * shift}))"
                     for i, x in enumerate(parts)]  # fmt: skip
            return [self.write(d, m[-1], " | ".join(words))]
        if d.startswith("{"):
            parts = _listed(d)
            of = f"u{int(m[-1][1:]) // len(parts)}"
            whole = self.value(a, m[-1])
            kind = _KINDS[m[-1]]
            return [f"whole = lanewise({whole}).copy()"] + [
                self.write(x, of, f"(whole >> np.dtype('{kind}').type({i * int(of[1:])})).astype('{_KINDS[of]}')")
                for i, x in enumerate(parts)
                if x != "_"
            ]
        return [self.write(d, m[-1], self.value(a, m[-1]))]

    def _cvt(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        to, of = m[-2:]
        if of == "f32" and to in ("bf16x2", "f16x2"):
            high, low = (f"lanewise({self.value(x, of)})" for x in o[1:])
            half = "to_bfloat16({})" if to == "bf16x2" else "{}.astype('f2').view('u2')"
            both = f"{half.format(low)}.astype('u4') | {half.format(high)}.astype('u4') << np.uint32(16)"
            return [self.write(o[0], "b32", both)]
        a = f"lanewise({self.value(o[1], 'b16' if of == 'bf16' else of)})"
        if to == "bf16":
            return [self.write(o[0], "b16", f"to_bfloat16({a})")]
        if of == "bf16":
            return [self.write(o[0], to, f"from_bfloat16({a})")]
        if to == "tf32":
            return [self.write(o[0], "b32", f"to_tf32({a})")]
        kind = _KINDS[to]
        if of[0] == "f" and to[0] != "f":
            return [self.write(o[0], to, f"to_integer({a}, '{m[0]}', '{kind}')")]
        if of == to and m[0] in _WHOLE:
            return [self.write(o[0], to, f"{_WHOLE[m[0]]}({a})")]
        if m[:-2] not in ([], ["rn"]):
            raise PtxError(f"{self.kernel.name}: cannot run cvt.{'.'.join(m)}")
        return [self.write(o[0], to, f"{a}.astype('{kind}')")]

    def _cvta(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if "global" not in m and "param" not in m:
            raise PtxError(f"{self.kernel.name}: cannot run cvta.{'.'.join(m)}")
        return [self.write(o[0], "u64", self.value(o[1], "u64"))]

    # --- memory ------------------------------------------------------------------------------------------------------

    def _ld(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        space, of = self._space(m)
        registers = _listed(o[0]) if o[0].startswith("{") else [o[0]]
        kind = _KINDS[of]
        lines = [f"v = load_{space}({self.address(o[1])}, {kind[1]}, {len(registers)}, q)"]
        return lines + [self.write(r, of, f"v[{i}].view('{kind}')") for i, r in enumerate(registers) if r != "_"]

    def _st(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        space, of = self._space(m)
        registers = _listed(o[1]) if o[1].startswith("{") else [o[1]]
        unsigned = f"u{int(_KINDS[of][1]) * 8}"
        values = ", ".join(
            f"lanewise({self.value(r, of if _is_float(r) else unsigned)}).view('{_KINDS[unsigned]}')" for r in registers
        )
        return [f"store_{space}({self.address(o[0])}, {_KINDS[of][1]}, [{values}], q)"]

    def _space(self, m: list[str]) -> tuple[str, str]:
        space, of = m[0], m[-1]
        if space == "volatile":
            space = m[1]
        hints = {x.split("::")[0] for x in m[:-1]} - {space, "v2", "v4"}
        if space not in ("global", "shared", "local", "param") or not hints <= _CACHE_HINTS:
            raise PtxError(f"{self.kernel.name}: cannot run ld or st.{'.'.join(m)}")
        return space, of

    def _cp(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if m[:2] == ["async", "commit_group"]:
            return ["commit_copies(q)"]
        if m[:2] == ["async", "wait_group"]:
            return [f"wait_for_copies({int(o[0])}, q)"]
        if m[:2] == ["async", "wait_all"]:
            return ["commit_copies(q)", "wait_for_copies(0, q)"]
        if m[0] != "async" or m[2:4] != ["shared", "global"]:
            raise PtxError(f"{self.kernel.name}: cannot run cp.{'.'.join(m)}")
        read = self.value(o[3], "u32") if len(o) > 3 else o[2]
        return [f"copy({self.address(o[0])}, {self.address(o[1])}, {int(o[2], 0)}, lanewise(np.asarray({read})), q)"]

    # --- of a warp ---------------------------------------------------------------------------------------------------

    def _mma(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        shape, kind = m[2], m[6]
        d, a, b, c = (_listed(x) for x in o)
        of = "b64" if kind == "f64" else "b32"
        words = [[f"lanewise({self.value(x, of)})" for x in matrix] for matrix in (a, b, c)]
        matrices = ", ".join(f"[{', '.join(matrix)}]" for matrix in words)
        lines = [f"whole_warps(q); v = multiplied('{shape}', '{kind}', {matrices})"]
        return lines + [self.write(x, of, f"v[{i}]") for i, x in enumerate(d)]

    def _wgmma(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if m[0] == "fence":
            return ["whole_warpgroups(q)"]
        if m[0] == "commit_group":
            return ["commit_products(q)"]
        if m[0] == "wait_group":
            return [f"wait_for_products({int(o[0])}, q)"]
        of = shape_of(m[3], m[4:])
        d, a, b, kept, *scales = o
        if scales[:2] != ["1", "1"]:
            raise PtxError(f"{self.kernel.name}: cannot run wgmma with operands that change their sign")
        turned = [x == "1" for x in scales[2:]]
        registers = a.startswith("{")
        operands = [f"lanewise({self.value(x, 'b32' if registers else 'b64')})" for x in _listed(a)]
        left = f"([{', '.join(operands)}], {not registers and turned[:1] == [True]})"
        right = f"(lanewise({self.value(b, 'b64')}), {turned[-1:] == [True]})"
        return [f"multiply({of}, {_listed(d)}, {left}, {right}, lanewise({self.value(kept, 'pred')}), q)"]

    def _fence(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if m != ["proxy", "async", "shared::cta"]:
            raise PtxError(f"{self.kernel.name}: cannot run fence.{'.'.join(m)}")
        return ["fence(q)"]

    def _ldmatrix(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        registers = _listed(o[0])
        lines = [f"whole_warps(q); v = load_matrices({self.address(o[1])}, {len(registers)}, {'trans' in m}, q)"]
        return lines + [self.write(r, "b32", f"v[{i}]") for i, r in enumerate(registers)]

    def _stmatrix(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        words = ", ".join(f"lanewise({self.value(x, 'b32')})" for x in _listed(o[1]))
        return [f"whole_warps(q); store_matrices({self.address(o[0])}, [{words}], {'trans' in m}, q)"]

    def _shfl(self, m: list[str], o: tuple[str, ...]) -> list[str]:
        if int(o[3], 0) not in (31, 0) or "|" in o[0]:
            raise PtxError(f"{self.kernel.name}: cannot run shfl within parts of a warp")
        a, by = self.value(o[1], "b32"), self.value(o[2], "b32")
        return [f"whole_warps(q); {self.write(o[0], 'b32', f'shuffled(lanewise({a}), {m[1]!r}, lanewise({by}))')}"]


def _listed(operand: str) -> list[str]:
    return [x.strip() for x in operand.strip("{} ").split(",")]


def _twice(of: str) -> str:
    return f"{of[0]}{int(of[1:]) * 2}"


def _is_float(operand: str) -> bool:
    return bool(re.match(r"0[fd][0-9a-fA-F]{8}", operand))


def _extremum(missing: str, number: str, modifiers: list[str]) -> str:
    """Of floats, whether a number or what is missing comes out."""
    return f"np.{number if 'f' in modifiers[-1] and 'NaN' not in modifiers else missing}"


def _constant(operand: str, kind: str) -> str:
    if _is_float(operand):
        bits = bytes.fromhex(operand[2:])
        value = struct.unpack(">f" if operand[1] == "f" else ">d", bits)[0]
        if kind[0] != "f":
            return f"np.dtype('{kind}').type({int.from_bytes(bits)})"
        return f"np.dtype('{kind}').type(float('{value!r}'))"
    if kind == "?":
        return f"np.bool_({bool(int(operand, 0))})"
    bits_of = 8 * int(kind[1])
    number = int(operand.rstrip("U"), 0) % 2**bits_of
    if kind[0] == "i" and number >= 2 ** (bits_of - 1):
        number -= 2**bits_of
    return f"np.dtype('{kind}').type({number})"
