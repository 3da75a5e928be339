"""Object files of one instruction set: no weak or unique symbol, or the linker may let one set's copy serve another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from facemix_ops.native import C

ROOT = Path(__file__).resolve().parents[1]
KERNELS = {p.stem for p in (ROOT / "csrc" / "cpu").glob("*.cpp")} - {"dispatch", "parallel", "sample_orthogonal"}
BUILD = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}" / "CMakeFiles"
WEAK = set("wWvVu")


def objects(isa: str) -> list[Path]:
    """The object files of an instruction set, as `pip install .` in the clone leaves them."""
    found = sorted((BUILD / f"cpu_{isa}.dir").rglob("*.o"))
    assert found, f"no {BUILD}/cpu_{isa}.dir: run `pip install .` in the clone first"
    return [path for path in found if path.name.split(".")[0] in KERNELS]  # not those of sources that are gone


def symbols(path: Path) -> list[tuple[str, str]]:
    """(type, name) of all symbols."""
    lines = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return [(line[17], line[19:]) for line in lines]


@pytest.mark.parametrize("isa", C.compiled_capabilities())
def test_every_kernel_is_compiled(isa: str) -> None:
    assert {p.name.split(".")[0] for p in objects(isa)} == KERNELS


@pytest.mark.parametrize("isa", C.compiled_capabilities())
def test_no_weak_symbols(isa: str) -> None:
    for path in objects(isa):
        found = symbols(path)
        assert found, f"nm shows nothing of {path}"
        assert not [s for s in found if s[0] in WEAK], path


@pytest.mark.parametrize("isa", C.compiled_capabilities())
def test_defined_symbols_carry_the_name_of_the_instruction_set(isa: str) -> None:
    """Everything that another object could link to lies in the namespace facemix::<isa>."""
    for path in objects(isa):
        strays = [n for t, n in symbols(path) if t in "TDBRC" and not n.startswith(f"facemix::{isa}::")]
        assert not strays, path


def test_nm_shows_weak_symbols_where_there_are_some() -> None:
    """The check can fail: the code that is compiled once uses std:: templates, which are weak."""
    common = sorted((BUILD / "cpu_common.dir").rglob("*.o"))
    assert any(t in WEAK for path in common for t, _ in symbols(path))
