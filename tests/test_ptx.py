"""The machine that runs PTX (tests/helpers/ptx): what it computes, and what it says of what a GPU would not forgive."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptx import Global, Module, PtxError, Traffic, launch

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


def of_int(operation: str, *values: int, to: str = "b32") -> int:
    """What ``operation`` makes of numbers, for one thread."""
    moves = "".join(f"mov.b32 %r{10 + i}, {value};" for i, value in enumerate(values))
    operands = ", ".join(f"%r{10 + i}" for i in range(len(values)))
    (result,) = run(f"{moves} {operation} %r5, {operands}; st.global.u32 [%rd1], %r5;", np.zeros(1, "u4"), threads=1)
    return int(result)


def of_float(operation: str, *values: float) -> np.float32:
    """The same of floats."""
    bits = [struct.pack(">f", value).hex() for value in values]
    moves = "".join(f"mov.f32 %f{10 + i}, 0f{value};" for i, value in enumerate(bits))
    operands = ", ".join(f"%f{10 + i}" for i in range(len(values)))
    out = run(f"{moves} {operation} %f5, {operands}; st.global.f32 [%rd1], %f5;", np.zeros(1, "f4"), threads=1)
    return out.view(np.float32)[0]


@pytest.mark.parametrize(
    ("operation", "values", "expected"),
    [
        ("add.s32", (0x7FFFFFFF, 1), 0x80000000),
        ("sub.s32", (1, 2), 0xFFFFFFFF),
        ("mul.lo.s32", (-3, 5), 2**32 - 15),
        ("mul.hi.s32", (-(2**31), 4), 2**32 - 2),
        ("mul.hi.u32", (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFE),
        ("mad.lo.s32", (3, -4, 5), 2**32 - 7),
        ("div.s32", (-7, 2), 2**32 - 3),
        ("rem.s32", (-7, 2), 2**32 - 1),
        ("div.u32", (0xFFFFFFF9, 2), 0x7FFFFFFC),
        ("shl.b32", (1, 32), 0),
        ("shr.u32", (0x80000000, 31), 1),
        ("shr.s32", (0x80000000, 40), 0xFFFFFFFF),
        ("min.s32", (-1, 1), 0xFFFFFFFF),
        ("max.u32", (0xFFFFFFFF, 1), 0xFFFFFFFF),
        ("prmt.b32", (0x33221100, 0x77665544, 0x7410), 0x77441100),
        ("prmt.b32", (0x00008000, 0, 0x9999), 0xFFFFFFFF),
        ("bfe.u32", (0xABCD, 4, 8), 0xBC),
        ("bfe.s32", (0xF0, 4, 4), 0xFFFFFFFF),
        ("bfi.b32", (0xF, 0, 8, 4), 0xF00),
        ("max.NaN.bf16x2", (0x3F80BF80, 0x40000000), 0x40000000),
        ("max.NaN.f16x2", (0x3C007E00, 0x40000000), 0x40007E00),
        ("max.NaN.f16x2", (0x00008000, 0x80008000), 0x00008000),
        ("max.NaN.bf16x2", (0x80008000, 0x80000000), 0x80000000),
        ("neg.s32", (5,), 2**32 - 5),
        ("not.b32", (5,), 2**32 - 6),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_integers(operation: str, values: tuple[int, ...], expected: int) -> None:
    assert of_int(operation, *values) == expected


@pytest.mark.parametrize(
    ("operation", "values", "expected"),
    [
        ("add.f32", (1.5, 2.0), 3.5),
        ("fma.rn.f32", (1 + 2**-12, 1 + 2**-12, -1.0), 2**-11 + 2**-24),  # the product is not rounded
        ("max.f32", (float("nan"), 1.0), 1.0),
        ("max.NaN.f32", (float("nan"), 1.0), float("nan")),
        ("copysign.f32", (-0.0, 2.0), -2.0),
        ("cvt.rni.f32.f32", (2.5,), 2.0),
        ("cvt.rzi.f32.f32", (-2.5,), -2.0),
        ("cvt.rna.tf32.f32", (1 + 2**-11,), 1 + 2**-10),
        ("cvt.rna.tf32.f32", (float("inf"),), float("inf")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_floats(operation: str, values: tuple[float, ...], expected: float) -> None:
    np.testing.assert_equal(of_float(operation, *values), np.float32(expected))


def test_conversions() -> None:
    """To bfloat16 by ties to even, and a pair of them; to integers, which end somewhere."""
    body = "ld.global.f32 %f1, [%rd1]; cvt.rn.bf16x2.f32 %r5, %f1, %f1; st.global.b32 [%rd1], %r5;"
    out = run(body, np.array([1 + 2**-8, 1 + 3 * 2**-8, np.nan], "f4"), threads=3)
    assert [hex(word) for word in out] == ["0x3f803f80", "0x3f823f82", "0x7fff7fff"]
    body = (
        "ld.global.u16 %h1, [%rd1]; setp.lt.bf16 %p1, %h1, 0x0000; selp.b32 %r5, 1, 0, %p1; st.global.b32 [%rd1], %r5;"
    )
    assert run(body, np.array([0x3F80, 0xBF80, 0x8000, 0xFFC0], "u4"), threads=4).tolist() == [0, 1, 0, 0]
    body = "ld.global.f32 %f1, [%rd1]; cvt.rni.s32.f32 %r5, %f1; st.global.b32 [%rd1], %r5;"
    out = run(body, np.array([2.5, -3.5, 1e20, np.nan], "f4"), threads=4)
    assert out.view(np.int32).tolist() == [2, -4, 2**31 - 1, 0]


def test_threads_that_go_other_ways_meet_again() -> None:
    body = """
        mov.u32 %r5, 0;
        and.b32 %r6, %r1, 1;
        setp.eq.s32 %p1, %r6, 0;
        @%p1 bra EVEN;
        LOOP: add.s32 %r5, %r5, 3; setp.lt.s32 %p2, %r5, %r1; @%p2 bra LOOP;
        bra.uni DONE;
        EVEN: mov.u32 %r5, 100;
        DONE: shfl.sync.bfly.b32 %r7, %r5, 1, 31, -1;
        @!%p1 add.s32 %r7, %r7, 1000;
        st.global.u32 [%rd1], %r7;
    """
    lanes = np.arange(32)
    own = np.where(lanes % 2 == 0, 100, np.maximum(3, -(-lanes // 3) * 3))
    assert run(body, np.zeros(32, "u4")).tolist() == (own[lanes ^ 1] + np.where(lanes % 2, 1000, 0)).tolist()


@pytest.mark.parametrize("kind", ["bf16", "f16", "tf32", "f64"])
def test_products_of_matrices(kind: str) -> None:
    """Elements where the PTX ISA says that lanes hold them."""
    from ptx.tensor_cores import multiplied

    k, n, rows = {"bf16": (16, 8, 16), "f16": (16, 8, 16), "tf32": (8, 8, 16), "f64": (4, 8, 8)}[kind]
    random = np.random.default_rng(0)
    a, b, c = (random.integers(-4, 5, shape).astype("f8") for shape in ((rows, k), (k, n), (rows, n)))
    g, t = np.arange(32) // 4, np.arange(32) % 4

    def words(*elements: Any) -> Any:
        if kind == "f64":
            return elements[0].view("u8")
        if kind == "tf32":
            return elements[0].astype("f4").view("u4")
        halves = [x.astype("f4").view("u4") >> 16 if kind == "bf16" else x.astype("f2").view("u2") for x in elements]
        return halves[0].astype("u4") | halves[1].astype("u4") << 16

    if kind in ("bf16", "f16"):
        of_a = [words(a[g + r, 2 * t + i], a[g + r, 2 * t + i + 1]) for i in (0, 8) for r in (0, 8)]
        of_b = [words(b[2 * t + i, g], b[2 * t + i + 1, g]) for i in (0, 8)]
    elif kind == "tf32":
        of_a, of_b = [words(a[g + r, t + i]) for i in (0, 4) for r in (0, 8)], [words(b[t + i, g]) for i in (0, 4)]
    else:
        of_a, of_b = [words(a[g, t])], [words(b[t, g])]
    floats, bits = ("f8", "u8") if kind == "f64" else ("f4", "u4")
    places = [(g + r, 2 * t + i) for r in range(0, rows, 8) for i in (0, 1)]
    of_c = [c[place].astype(floats).view(bits) for place in places]
    shape = f"m{rows}n{n}k{k}"
    out = multiplied(shape, kind, of_a, of_b, of_c)
    for place, found in zip(places, out, strict=True):
        assert found.view(floats).tolist() == (c + a @ b)[place].tolist()


def in_lines(lines: Any) -> Any:
    """A matrix as wgmma reads it from shared memory: its lines of 128, 64 or 32 bytes after each other, in each
    stretch of 128 bytes their pieces of 16 in the order that a swizzle gives them; as words."""
    bytes_of = np.ascontiguousarray(lines).view(np.uint8).reshape(len(lines), -1, 16)
    swizzle = 16 * bytes_of.shape[1]
    out = np.empty_like(bytes_of)
    for number, line in enumerate(bytes_of):
        for piece in range(swizzle // 16):
            out[number, piece ^ number * swizzle // 128 % (swizzle // 16)] = line[piece]
    return out.reshape(-1).view(np.uint32)


def described(at: int, swizzle: int, stride: int, leading: int = 0) -> int:
    """A descriptor, as a signed number."""
    bits = {128: 1, 64: 2, 32: 3}[swizzle] << 62 | stride >> 4 << 32 | leading >> 4 << 16 | at >> 4
    return bits - (1 << 64 if bits >> 63 else 0)


FILL = "".join(
    f"ld.global.u32 %r9, [%rd1+{512 * i}]; st.shared.u32 [%r10+{512 * i}], %r9;" for i in range(24)
)  # 12 KiB of shared memory, by 128 threads
FILLED = f"mov.u32 %r8, s; shl.b32 %r10, %r1, 2; add.s32 %r10, %r8, %r10; {FILL}"
SEEN = "bar.sync 0; fence.proxy.async.shared::cta;"
MULTIPLY = (
    "wgmma.fence.sync.aligned; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {{%r20, %r21, %r22, %r23}}, "
    "{a}, {b}, {kept}, 1, 1{turned}; wgmma.commit_group.sync.aligned;"
)
ENDED = "wgmma.wait_group.sync.aligned 0;"
SAVE = "".join(f"st.global.u32 [%rd1+{512 * i}], %r{20 + i};" for i in range(4))
GROUP: dict[str, Any] = {"threads": 128, "shared": 12288}


@pytest.mark.parametrize("swizzle", [128, 64, 32])
@pytest.mark.parametrize(
    ("kind", "turned"), [("bf16", False), ("bf16", True), ("f16", False), ("f16", True), ("tf32", False)]
)
def test_products_of_warpgroups(swizzle: int, kind: str, turned: bool) -> None:
    """Of shared memory, in all ways that it may hold the left matrix; twice, and added up. Section 9.7.15."""
    size, dtype = (4, "f4") if kind == "tf32" else (2, "u2")
    long, depth = swizzle // size, 32 // size
    random = np.random.default_rng(0)
    a, b = random.integers(-4, 5, (64, long)).astype("f4"), random.integers(-4, 5, (8, long)).astype("f4")

    def elements(x: Any) -> Any:
        if kind == "tf32":
            return x
        return (x.view("u4") >> 16).astype(dtype) if kind == "bf16" else x.astype("f2").view(dtype)

    first = long - depth  # of K, which both products take
    begin_a, stride, leading, lines = first * size, 8 * swizzle, 0, elements(a)
    if turned:
        begin_a, leading = 0, depth * swizzle
        columns = elements(a[:, first:]).reshape(-1, long, depth)  # as many rows as a line holds
        lines = columns.transpose(0, 2, 1).reshape(-1, long)
    image = np.zeros(3072, "u4")
    for at, part in ((0, in_lines(lines)), (2048, in_lines(elements(b)))):
        image[at : at + len(part)] = part
    descriptors = (
        f"mov.b64 %rd5, {described(begin_a, swizzle, stride, leading)};"
        f"mov.b64 %rd6, {described(8192 + first * size, swizzle, stride)};"
    )
    multiply = MULTIPLY.replace("k16", f"k{depth}").replace("bf16", kind)
    turns = "" if kind == "tf32" else f", {int(turned)}, 0"
    products = "".join(multiply.format(a="%rd5", b="%rd6", kept=kept, turned=turns) for kept in ("0", "%p1"))
    body = f"{FILLED} {SEEN} {descriptors} setp.eq.u32 %p1, %r8, %r8; {products} {ENDED} {SAVE}"
    out = run(body, image, **GROUP)[:512].view("f4").reshape(4, 128)
    lane, expected = np.arange(128), 2 * (a[:, first:] @ b[:, first:].T)
    for i in range(4):
        row, column = lane // 32 * 16 + lane % 32 // 4 + 8 * (i // 2), lane % 4 * 2 + i % 2
        assert out[i].tolist() == expected[row, column].tolist()


def test_products_of_registers() -> None:
    """The left matrix as of mma, warp by warp."""
    a, b = np.arange(64 * 16).reshape(64, 16) % 7 - 3.0, np.arange(8 * 16).reshape(8, 16) % 5 - 2.0

    def halves(x: Any) -> Any:
        return (x.astype("f4").view("u4") >> 16).astype("u2")

    lane = np.arange(128)
    row, k = lane // 32 * 16 + lane % 32 // 4, lane % 4 * 2
    pairs = np.ascontiguousarray(halves(a)).view("u4")  # neighbours in K
    registers = [pairs[row + 8 * r, (k + 8 * h) // 2] for h in (0, 1) for r in (0, 1)]
    image = np.zeros(3072, "u4")
    image[:64], image[1024 : 1024 + 512] = in_lines(halves(b)), np.concatenate(registers)
    held = "".join(f"ld.global.u32 %r{11 + i}, [%rd1+{4096 + 512 * i}];" for i in range(4))
    multiply = MULTIPLY.format(a="{%r11, %r12, %r13, %r14}", b="%rd6", kept="0", turned=", 0")
    body = f"{FILLED} {SEEN} {held} mov.b64 %rd6, {described(0, 32, 256)}; {multiply} {ENDED} {SAVE}"
    out = run(body, image, **GROUP)[:512].view("f4").reshape(4, 128)
    for i in range(4):
        assert out[i].tolist() == (a @ b.T)[row + 8 * (i // 2), k + i % 2].tolist()


PRODUCT = f"mov.b64 %rd5, {described(0, 32, 256)}; " + MULTIPLY.format(a="%rd5", b="%rd5", kept="0", turned=", 0, 0")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{SEEN} {FILLED} bar.sync 0; {PRODUCT} {ENDED}", "no fence is behind what wrote it"),
        (f"{FILLED} fence.proxy.async.shared::cta; {PRODUCT} {ENDED}", "another warp wrote it, and no barrier"),
        (f"{FILLED} {SEEN} {PRODUCT} bar.sync 0; st.shared.u32 [%r10], %r1; {ENDED}", "a product reads it"),
        (f"{FILLED} {SEEN} {PRODUCT} bar.sync 0; cp.async.ca.shared.global [%r10], [%rd1], 4;", "a product reads it"),
        (f"{FILLED} {SEEN} {PRODUCT} wgmma.wait_group.sync.aligned 1;", "ends with products under way"),
        (f"{FILLED} {SEEN} setp.lt.s32 %p1, %r1, 64; @!%p1 ret; {PRODUCT} {ENDED}", "by some of its threads"),
        (f"{FILLED} {SEEN} {PRODUCT.replace(', 0, 1, 1,', ', 0, -1, 1,')} {ENDED}", "change their sign"),
        (f"{FILLED} {SEEN} {PRODUCT.replace('.f32.', '.f16.')} {ENDED}", "cannot run wgmma of m64n8k16, f16 bf16"),
        (f"{FILLED} {SEEN} mov.b64 %rd5, 16; {PRODUCT[PRODUCT.index('wgmma') :]} {ENDED}", "with the descriptor 0x10"),
    ],
    ids=lambda value: "",
)
def test_what_products_of_warpgroups_must_not_do(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        run(body, np.zeros(3072, "u4"), **GROUP)


def test_sums_of_products_under_way() -> None:
    """Nobody has them before they are waited for."""
    body = f"{FILLED} {SEEN} {PRODUCT} {SAVE} {ENDED}"
    assert np.isnan(run(body, np.zeros(3072, "u4"), **GROUP)[:512].view("f4")).all()


@pytest.mark.parametrize("turned", ["", ".trans"])
def test_matrices_are_stored(turned: str) -> None:
    """stmatrix is what ldmatrix reads."""
    body = f"""mov.u32 %r8, s; and.b32 %r9, %r1, 7; shl.b32 %r9, %r9, 4; add.s32 %r9, %r8, %r9;
        ld.global.u32 %r5, [%rd1]; stmatrix.sync.aligned.m8n8.x1{turned}.shared.b16 [%r9], {{%r5}};
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r6}}, [%r9]; st.global.u32 [%rd1], %r6;"""
    words = np.arange(64, dtype="u2").view("u4")
    matrix = np.arange(64, dtype="u2").reshape(8, 8)
    expected = np.ascontiguousarray(matrix.T if turned else matrix).reshape(-1).view("u4")
    assert run(body, words, shared=128).tolist() == expected.tolist()


READ_OTHERS = "st.shared.u32 [%r5], %r1; {between} xor.b32 %r6, %r5, 128; ld.shared.u32 %r7, [%r6];"
SHARED = "mov.u32 %r8, s; shl.b32 %r5, %r1, 2; add.s32 %r5, %r8, %r5;"
COPY = "cp.async.ca.shared.global [%r5], [%rd1], 4, 4; cp.async.commit_group;"


@pytest.mark.parametrize("between", ["bar.sync 0;", ""])
def test_a_barrier_between_warps(between: str) -> None:
    body = f"{SHARED} {READ_OTHERS.format(between=between)} st.global.u32 [%rd1], %r7;"
    if between:
        lanes = np.arange(64)
        assert run(body, np.zeros(64, "u4"), threads=64, shared=256).tolist() == (lanes ^ 32).tolist()
    else:
        with pytest.raises(PtxError, match="another warp wrote it, and no barrier"):
            run(body, np.zeros(64, "u4"), threads=64, shared=256)


def test_warps_may_have_bytes_of_a_word() -> None:
    """No barrier is between what is one warp's."""
    body = """mov.u32 %r5, s; and.b32 %r6, %r1, 31; shl.b32 %r6, %r6, 1; add.s32 %r5, %r5, %r6; shr.u32 %r7, %r1, 5;
        add.s32 %r5, %r5, %r7; st.shared.u8 [%r5], %r1; ld.shared.u8 %r7, [%r5]; st.global.u32 [%rd1], %r7;"""
    assert run(body, np.zeros(64, "u4"), threads=64, shared=64).tolist() == list(range(64))


def test_a_barrier_before_it_is_written_again() -> None:
    body = f"{SHARED} {READ_OTHERS.format(between='bar.sync 0;')} st.shared.u32 [%r5], %r7;"
    with pytest.raises(PtxError, match="another warp read it, and no barrier"):
        run(body, np.zeros(64, "u4"), threads=64, shared=256)


@pytest.mark.parametrize(
    ("waits", "message"),
    [
        ("cp.async.wait_group 0;", None),
        ("cp.async.wait_group 1;", "a copy to it is under way"),
        ("", "a copy to it is under way"),
    ],
)
def test_copies_are_waited_for(waits: str, message: str | None) -> None:
    body = f"{SHARED} {COPY} {waits} ld.shared.u32 %r7, [%r5]; add.s32 %r7, %r7, 1; st.global.u32 [%rd1], %r7;"
    words = np.arange(32, dtype="u4")
    if message is None:
        assert run(body, words, shared=128).tolist() == (words + 1).tolist()
    else:
        with pytest.raises(PtxError, match=message):
            run(body, words, shared=128)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ld.global.u32 %r5, [%rd1+4];", "outside of every tensor"),
        ("st.global.u32 [%rd1+-4], %r1;", "outside of every tensor"),
        ("ld.global.u32 %r5, [%rd1+2];", "aligned to 4"),
        ("ld.global.v2.u32 {%r5, %r6}, [%rd1+4];", "aligned to 8"),
        (f"{SHARED} ld.shared.u32 %r6, [%r5+128];", "outside of the block's 128 bytes"),
        (f"{SHARED} ld.shared.u16 %h1, [%r5+1];", "aligned to 2"),
        (f"{SHARED} {COPY}", "ends with copies under way"),
        ("setp.lt.s32 %p1, %r1, 16; @%p1 bra.uni A; bar.sync 0; A: mov.u32 %r5, 0; bar.sync 0;", "different barriers"),
        ("setp.lt.s32 %p1, %r1, 7; @%p1 shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;", "by some of its threads"),
        ("frob.s32 %r5, %r1;", "cannot run frob.s32"),
        ("cvt.rz.f32.s32 %f5, %r1;", "cannot run cvt.rz.f32.s32"),
    ],
    ids=lambda value: "",
)
def test_what_a_gpu_would_not_forgive(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        run(body, np.zeros(32, "u4"), shared=128)


def test_memory_of_the_call_alone() -> None:
    """Nor a part of a word behind its end."""
    with pytest.raises(PtxError, match="outside of every tensor"):
        run("ld.global.u32 %r5, [%rd1];", np.zeros(32, "u4"), size=126)


def test_memory_that_was_given_away_again() -> None:
    """What was added last counts where it lies, and what does not touch it stays."""
    memory = np.zeros(64, np.uint8)
    begin, known = memory.ctypes.data + -memory.ctypes.data % 16, Global()
    for at, size in ((0, 16), (16, 8), (32, 4)):
        known.add(begin + at, size)
    known.add(begin, 24)
    known.load(np.array([begin + 20, begin + 32], np.uint64), 4, 1)
    with pytest.raises(PtxError, match="outside of every tensor"):
        known.load(np.array([begin + 24], np.uint64), 4, 1)


LANES = np.arange(64)  # of two warps, which count on their own


@pytest.mark.parametrize(
    ("apart", "size", "lanes", "ratio"),
    [(4, 4, 64, 1), (8, 4, 64, 2), (32, 4, 64, 8), (64, 4, 64, 8), (16, 16, 64, 1), (32, 8, 64, 4), (2, 2, 32, 1),
     (0, 4, 64, 8), (4, 4, 1, 8)],
)  # fmt: skip
def test_sectors_are_counted(apart: int, size: int, lanes: int, ratio: float) -> None:
    """Of 32 bytes, against the bytes that are wanted."""
    traffic = Traffic()
    traffic.of_global("writes", np.uint64(1 << 40) + (LANES[:lanes] * apart).astype("u8"), size, LANES[:lanes])
    assert traffic.ratios() == {"writes": ratio}


@pytest.mark.parametrize(
    ("apart", "size", "ratio"),
    [(4, 4, 1), (8, 4, 2), (128, 4, 32), (132, 4, 1), (0, 4, 1), (2, 2, 1), (16, 16, 1), (80, 16, 1), (96, 16, 2),
     (8, 8, 1), (64, 16, 4)],
)  # fmt: skip
def test_rounds_of_banks_are_counted(apart: int, size: int, ratio: float) -> None:
    """32 banks of words; a quarter of a warp reads 16 bytes each at once."""
    traffic = Traffic()
    traffic.of_shared("reads", (LANES * apart).astype("u4"), size, LANES)
    assert traffic.ratios() == {"reads": ratio}


def test_instructions_are_counted() -> None:
    """Of warps, whichever of their threads take part; moves do not count."""
    traffic = Traffic()
    body = "setp.lt.s32 %p1, %r1, 40; @%p1 bra DONE; add.s32 %r5, %r1, 1; DONE: mov.u32 %r6, 1;"
    run(body, np.zeros(64, "u4"), threads=64, traffic=traffic)
    assert traffic.instructions == 2 * 7 + 1


def test_all_accesses_of_a_kernel_are_counted() -> None:
    body = f"""{SHARED} {COPY} cp.async.wait_group 0; ld.shared.u32 %r7, [%r5]; st.shared.u32 [%r5], %r7;
        ld.global.u32 %r9, [%rd1]; st.global.u32 [%rd1], %r7;"""
    traffic = Traffic()
    run(body, np.zeros(32, "u4"), shared=128, traffic=traffic)
    ratios = traffic.ratios()
    assert {kind: ratios.pop(kind) for kind in ("shared reads", "shared writes", "copies to shared")} == {
        "shared reads": 1, "shared writes": 1, "copies to shared": 1,
    }  # fmt: skip
    assert set(ratios) == {"global reads", "global writes"}


def test_too_much_shared_memory() -> None:
    with pytest.raises(PtxError, match="bytes of shared memory"):
        run("", np.zeros(32, "u4"), shared=228 << 10)


def test_what_counts_says_what_it_needs(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "ptx_traffic.py"
    clean = {name: value for name, value in os.environ.items() if name not in ("FACEMIX_BACKEND", "FACEMIX_PTX_BUILD")}
    done = subprocess.run([sys.executable, str(script)], env=clean, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "FACEMIX_PTX_BUILD must name the build folder that `make check-cuda` leaves" in done.stderr
