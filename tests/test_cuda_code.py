"""tests/helpers/cuda_code.py reads what cuobjdump prints, and finds what it is there for. No CUDA tool is needed."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import cuda_code
import pytest
from cuda_code import NARROW, TENSOR_CORES, Kernel, instructions, kernels, launch_bounds, main, missing, resources

MIX = "_ZN7facemix4cuda45_GLOBAL__N__1760255e_12_group_mix_cu_c62e42d816group_mix_kernelI13__nv_bfloat16Li8EEEvPKT_PS3_"
ANY = MIX.replace("Li8E", "Li0E")
# As cuobjdump 13.5 printed it, shortened.
USAGE = f"""
Fatbin elf code:
================
arch = sm_80
code version = [1,8]
host = linux

Resource usage:
 Common:
  GLOBAL:0
 Function {ANY}:
  REG:40 STACK:256 SHARED:0 LOCAL:0 CONSTANT[0]:405 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function {MIX}:
  REG:122 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:405 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin elf code:
================
arch = sm_90
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function {MIX}:
  REG:127 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:597 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
PTX = f"""
.version 9.0
.target sm_90
.extern .shared .align 16 .b8 dynamic_shared[];
.visible .entry {MIX}(
.param .u64 {MIX}_param_0
)
.maxntid 256, 1, 1
.minnctapersm 2
{{
.entry {ANY}(
.param .u64 {ANY}_param_0
)
.maxntid 32, 4
{{
"""
SASS = f"""
	code for sm_80
		Function : {MIX}
        /*0000*/                   HMMA.16816.F32.BF16 R12, R4, R20, R12 ;          /* 0x000000140c0c723c */
        /*0010*/                   HMMA.16816.F32.BF16 R16, R4, R22, R16 ;          /* 0x000000160c10723c */
        /*0020*/                   FFMA R0, R1, R2, R3 ;                            /* 0x0000000201007223 */
        /*0030*/                   LDS.128 R12, [R10] ;                             /* 0x000000000a0c7984 */
	code for sm_90
		Function : {MIX}
        /*0000*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24 ;   /* 0x00e00000081879f0 */
"""


def kernel(**changes: Any) -> Kernel:
    """One that fits."""
    good: dict[str, Any] = {"name": "f_kernel<TensorCores<__half>, 8>", "architecture": "sm_90", "registers": 128,
                            "stack": 0, "shared": 1024, "threads": 256, "blocks": 2, "matrix": 64,
                            "narrow": 0}  # fmt: skip
    return Kernel(**good | changes)


def test_parsers() -> None:
    assert resources(USAGE) == {
        ("sm_80", ANY): (40, 256, 0),
        ("sm_80", MIX): (122, 0, 0),
        ("sm_90", MIX): (127, 8, 1024),
    }
    assert launch_bounds(PTX) == {MIX: (256, 2), ANY: (128, 0)}
    assert instructions(SASS, TENSOR_CORES) == {("sm_80", MIX): 2, ("sm_90", MIX): 1}
    assert instructions(SASS, NARROW) == {}
    assert instructions(SASS.replace("LDS.128 R12", "LDS.U8 R12"), NARROW) == {("sm_80", MIX): 1}


def test_kernels() -> None:
    found = {(k.architecture, k.name): k for k in kernels(USAGE, PTX, SASS)}
    general = found["sm_80", "group_mix_kernel<__nv_bfloat16, 0>"]
    assert not general.fast
    assert general.faults == []  # a stack where S is not known
    assert (general.threads, general.matrix) == (128, 0)
    fast = found["sm_80", "group_mix_kernel<__nv_bfloat16, 8>"]
    assert fast.fast
    assert fast.faults == []
    assert (fast.threads, fast.blocks, fast.matrix) == (256, 2, 2)
    assert found["sm_90", "group_mix_kernel<__nv_bfloat16, 8>"].faults == ["SPILLS"]


def test_a_kernel_without_launch_bounds_is_refused() -> None:
    assert [k.faults for k in kernels(USAGE, "", SASS)] == [["NO LAUNCH BOUNDS"]] * 2 + [["SPILLS", "NO LAUNCH BOUNDS"]]


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        ({"stack": 8}, ["SPILLS"]),
        ({"stack": 8, "name": "f_kernel<double, 8>"}, []),
        ({"stack": 8, "name": "f_kernel<float, 0, 4, false>"}, []),
        ({"stack": 8, "name": "f_kernel<float, 4, 0, false>"}, ["SPILLS"]),
        ({"stack": 8, "name": "f_kernel<TensorProduct<__half>>"}, ["SPILLS"]),
        ({"stack": 8, "name": "f_kernel"}, ["SPILLS"]),
        ({"stack": 8, "name": "conv_mix_kernel<float>"}, []),
        ({"threads": 2048, "registers": 8}, ["TOO MANY THREADS"]),
        ({"registers": 129}, ["TOO MANY REGISTERS"]),  # 136 x 256 x 2
        ({"threads": 257}, ["TOO MANY REGISTERS"]),  # nine warps
        ({"registers": 255, "blocks": 1}, []),
        ({"shared": 50177}, ["TOO MUCH SHARED MEMORY"]),
        ({"narrow": 1}, ["READS BYTES OF SHARED MEMORY"]),
        ({"narrow": 1, "name": "conv_mix_kernel<float>"}, []),
        ({"matrix": 0}, ["NO TENSOR CORES"]),
        ({"matrix": 0, "name": "conv_mix_tile_kernel<TensorProduct<__half>, 8, false>"}, ["NO TENSOR CORES"]),
        ({"matrix": 0, "name": "f_kernel<__half, 8>"}, []),
    ],
)
def test_faults(changes: dict[str, Any], faults: list[str]) -> None:
    assert kernel(**changes).faults == faults
    assert str(kernel(**changes)).endswith(kernel(**changes).name)


def test_what_an_op_must_have() -> None:
    both = [kernel(architecture=a) for a in cuda_code.ARCHITECTURES]
    assert missing("unmix_linear", both) == []
    assert missing("conv_mix_tile", []) == []
    assert missing("unmix_linear", []) == [f"unmix_linear: no kernel for {a}" for a in cuda_code.ARCHITECTURES]
    assert missing("unmix_linear", both[:1]) == ["unmix_linear: no kernel for sm_90"]
    without = [kernel(architecture=a, matrix=0, name="f_kernel<__half, 8>") for a in cuda_code.ARCHITECTURES]
    assert missing("group_mix", without) == []
    assert missing("unmix_linear", without)[0] == "unmix_linear: no kernel for sm_80 uses the tensor cores"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build folder with one object file, and tools that print the texts above."""
    tools, target = tmp_path / "bin", tmp_path / "CMakeFiles/cuda_kernels.dir/csrc/cuda/group_mix.cu.o"
    for folder in (tools, target.parent):
        folder.mkdir(parents=True)
    target.touch()
    script = ["#!/bin/sh", 'case "$1" in']
    for what, text in (("resource-usage", USAGE), ("ptx", PTX), ("sass", SASS)):
        (tmp_path / what).write_text(text)
        script.append(f"--dump-{what}) cat {shlex.quote(str(tmp_path / what))};;")
    for name in ("cuobjdump", "nvdisasm"):
        (tools / name).write_text("\n".join([*script, "esac", ""]))
        (tools / name).chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    return tmp_path


def test_main(build: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_code, "MATRIX_OPS", ())
    monkeypatch.setattr(cuda_code, "MATRIX", ())
    assert main(str(build)) == 1
    said = capsys.readouterr().out
    assert "group_mix_kernel<__nv_bfloat16, 8>, sm_90: SPILLS" in said
    (build / "resource-usage").write_text(USAGE.replace("STACK:8", "STACK:0"))
    assert main(str(build)) == 0
    assert "all kernels fit" in capsys.readouterr().out
    monkeypatch.setattr(cuda_code, "MATRIX", ("TensorProduct",))
    assert main(str(build)) == 1
    assert "no kernel of TensorProduct" in capsys.readouterr().out
    monkeypatch.setattr(cuda_code, "MATRIX_OPS", ("unmix_linear",))
    assert main(str(build)) == 1
    assert "unmix_linear: no such object file" in capsys.readouterr().out


def test_nothing_to_look_at(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No object file is no success."""
    assert main(str(build / "empty")) == 1
    assert "build the target cuda_kernels first" in capsys.readouterr().out


def test_without_the_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    with pytest.raises(SystemExit, match="pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"):
        main(str(tmp_path))
