"""tests/helpers/cuda_loops.py finds the pieces that multiply. No CUDA tool is needed."""

from __future__ import annotations

from cuda_loops import Piece, pieces

STEP = "HMMA.16816.F32.BF16 R12, R4, R20, R12"


def sass(*lines: str) -> str:
    """As cuobjdump prints them."""
    numbered = [f"        /*{16 * k:04x}*/      {line} ;      /* 0x000000140c0c723c */" for k, line in enumerate(lines)]
    return "\n".join(["\tcode for sm_90", "\t\tFunction : kernel", "\t.headerflags @x", *numbered, ""])


def test_a_loop_and_a_run() -> None:
    loop = ["LDS.128 R4, [R2]", *[STEP] * 16, "@!P0 BRA 0x20"]
    run = [*[STEP] * 20, "FFMA R0, R1, R2, R3", "EXIT"]
    found = pieces(sass("S2R R1, SR_TID.X", "MOV R2, R1", *loop, *run))
    assert found == [Piece("sm_90", "kernel", 16, 18, True), Piece("sm_90", "kernel", 20, 22, False)]
    assert str(found[0]).endswith("loop  16 of   18 instructions, 1.12 each")


def test_what_is_jumped_to_begins_a_piece() -> None:
    found = pieces(sass(*[STEP] * 16, *[STEP] * 16, "@P0 BRA 0x100", "EXIT"))
    assert [(piece.instructions, piece.loop) for piece in found] == [(16, False), (17, True)]


def test_few_products_and_other_products_are_left_out() -> None:
    assert pieces(sass(*[STEP] * 15, "EXIT")) == []
    assert pieces(sass(*[STEP] * 16, "EXIT"), "FFMA") == []
    assert len(pieces(sass(*["FFMA R0, R1, R2, R3"] * 16, "EXIT"), "FFMA")) == 1
