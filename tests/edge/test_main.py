"""`python -m facemix_ops.edge`: what a bundle holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import CONFIG, bundle_bytes, images, tensors, written
from processes import error_of, output_of

from facemix_ops.edge.__main__ import main


def test_a_bundle_is_described(tmp_path: Path) -> None:
    (tmp_path / "edge.safetensors").write_bytes(bundle_bytes(pool=[[3, 2], [2, 1], [1, 0]], max_coeff=0.9))
    code = """
import runpy, sys
sys.modules["torch"] = None
sys.argv = ["edge", "edge.safetensors"]
try:
    runpy.run_module("facemix_ops.edge", run_name="__main__")
except SystemExit as ended:
    assert ended.code == 0
"""
    lines = dict(line.split("  ", 1) for line in output_of(code, tmp_path).splitlines())
    rows = {name: value.strip() for name, value in lines.items()}
    assert rows["model"] == "small, version 3"
    assert rows["network"] == "0123456789abcdef"
    assert rows["image"].endswith("12 x 10 x 3")
    assert rows["pool"] == "(3, 2), stride (2, 1), padding (1, 0)"
    assert rows["sent for an image"] == "5 x 3 x 4"
    assert rows["sent for a group"] == "0.9 KiB in float32, 0.5 KiB in float16 or bfloat16, 0.3 KiB in int8"
    assert rows["largest coefficient"] == "0.9"
    assert (rows["int8 scales"], rows["decoys"]) == ("none", "none")
    assert rows["classes"] == "4: ann, ben, cid, dot"


def test_scales_and_decoys_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edge.safetensors"
    scales = np.array([0.5, 0.25, 1, 2, 0.125], np.float32)
    path.write_bytes(written(CONFIG, {**tensors(), "wire.scales": scales, "decoys": images(3)}))
    assert main([str(path)]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert rows["int8 scales"].strip() == "0.125 to 2"
    assert rows["decoys"].strip() == "3"


def test_attributes_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edge.safetensors"
    path.write_bytes(bundle_bytes(classes=None, attributes=["hat", "tie"]))
    assert main([str(path)]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert rows["attributes"].strip() == "2: hat, tie"
    assert "classes" not in rows


@pytest.mark.parametrize("changes", [{"pool": None}, {"classes": None}, {"activation": None}])
def test_fields_may_be_absent(changes: dict[str, None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edge.safetensors"
    path.write_bytes(bundle_bytes(**changes))
    assert main([str(path)]) == 0
    assert "group size" in capsys.readouterr().out


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edge.safetensors"
    assert main([str(path)]) == 1
    assert "No such file" in capsys.readouterr().err
    path.write_bytes(bundle_bytes()[:50])
    assert main([str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"facemix_ops.edge: error: {path}: the header must lie in the file")
    assert error.count("\n") == 1


def test_whoever_has_seen_enough_ends_the_output(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    path.write_bytes(bundle_bytes())
    for arguments in (["facemix_ops.edge", str(path)], ["facemix_ops.info"]):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "wb") as closed:
            command = [sys.executable, "-m", *arguments]
            done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (141, "")


def test_kernels_that_cannot_run_stop_nothing(tmp_path: Path) -> None:
    """None runs."""
    (tmp_path / "edge.safetensors").write_bytes(bundle_bytes())
    code = """
import runpy, sys
sys.argv = ["edge", "edge.safetensors"]
runpy.run_module("facemix_ops.edge", run_name="__main__")
"""
    assert output_of(code, tmp_path, FACEMIX_CPU_CAPABILITY="sse9").startswith("model ")
    error = error_of("from facemix_ops.edge import EdgeModel", tmp_path, FACEMIX_CPU_CAPABILITY="sse9")
    assert error.startswith("ValueError: FACEMIX_CPU_CAPABILITY: ")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "BUNDLE" in capsys.readouterr().out
