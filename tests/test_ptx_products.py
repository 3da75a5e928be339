"""Products of matrices on the machine that runs PTX: by a warp, and by a group of four."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ptx import PtxError
from ptx_by_hand import run


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
