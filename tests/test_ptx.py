"""The machine that runs PTX (tests/helpers/ptx): what it computes, and what it says of what a GPU would not forgive."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ptx import Global, PtxError, Traffic
from ptx_by_hand import run


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
