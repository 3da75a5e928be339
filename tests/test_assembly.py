"""tests/helpers/assembly.py finds what it is there for: the same loop with few accumulators, and with too many."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from assembly import hot_loops, main

SOURCE = """
typedef float Vec __attribute__((vector_size(16)));
void loop(const Vec* a, float const* b, long n, Vec* out) {
    Vec sum[N] = {};
    for (long k = 0; k < n; ++k)
#pragma GCC unroll 64
        for (int i = 0; i < N; ++i) sum[i] += a[k] * b[k * N + i];
    for (int i = 0; i < N; ++i) out[i] = sum[i];
}
"""


def compiled(folder: Path, accumulators: int, isa: str) -> Path:
    """A build folder with that loop as its conv_mix."""
    (folder / "loop.c").write_text(SOURCE)
    target = folder / f"CMakeFiles/cpu_{isa}.dir/csrc/cpu/conv_mix.cpp.o"
    target.parent.mkdir(parents=True)
    command = ["g++", "-O3", f"-DN={accumulators}", "-c", "-x", "c++", folder / "loop.c", "-o", target]
    subprocess.run(command, check=True)
    return target


@pytest.mark.parametrize(("accumulators", "spills"), [(8, False), (40, True)])
def test_spills(tmp_path: Path, accumulators: int, spills: bool, capsys: pytest.CaptureFixture[str]) -> None:
    (loop,) = hot_loops(compiled(tmp_path, accumulators, "some"))
    assert loop.fmas == accumulators
    assert loop.loads >= accumulators
    assert (loop.spills > 0) == spills
    assert main([str(tmp_path)]) == int(spills)
    assert ("SPILLED" in capsys.readouterr().out) == spills


def test_nothing_to_look_at(tmp_path: Path) -> None:
    """No object file is no success."""
    assert main([str(tmp_path)]) == 1
