"""benchmarks/experiments.sh with a facemix that only writes the files: what it runs, and what it keeps."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from experiments_table import AFFINE, COMMITTED, PROTECTIONS, TASKS

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "experiments.sh"
#: Notes what it was called with, and writes what a command leaves in its folder.
STUB = """#!/bin/sh
echo "$*" >>"$OUT/calls"
case "$1" in report) folder="$2" ;; *) folder=$(echo "$*" | sed 's/.*--out \\([^ ]*\\).*/\\1/') ;; esac
[ "$1" = blind ] && exec touch "$folder"
[ "$1" = benchmarks/hardening.py ] && exec touch "$7"
mkdir -p "$folder/pre-1-S-2" "$folder/pictures"
for name in report.md results.json audit.json sweep.csv sweep.md figure4a.png figure4b.png pictures/end_to_end.png; do
    echo "$*" >"$folder/$name"
done
"""


def script(out: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    stub = out / "facemix"
    stub.write_text(STUB)
    stub.chmod(0o755)
    changed = os.environ | {"FACEMIX": str(stub), "PYTHON": str(stub), "OUT": str(out)}
    return subprocess.run([SCRIPT, *parts], env=changed, capture_output=True, text=True, timeout=60)


def test_everything_that_the_tables_read_is_kept(tmp_path: Path) -> None:
    done = script(tmp_path)
    assert done.returncode == 0, done.stderr
    kept = {str(path.relative_to(tmp_path / "results")) for path in (tmp_path / "results").rglob("*") if path.is_file()}
    runs = {*TASKS, *(f"orl-affine/{name}" for name in AFFINE), *(f"protections/{name}" for name in PROTECTIONS)}
    assert {f"experiments/{name}/results.json" for name in (*runs, "synthetic", "figure4")} <= kept
    assert "audit/picture.png" in kept
    assert {f"audit/{name}.json" for name in ("orl", "orl-blinded", *PROTECTIONS)} <= kept
    committed = {str(path.relative_to(COMMITTED.parent)) for path in COMMITTED.parent.rglob("*") if path.is_file()}
    assert kept <= committed


def test_a_report_is_written_after_the_audit(tmp_path: Path) -> None:
    assert script(tmp_path, "orl").returncode == 0
    commands = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert commands == ["train", "audit", "blind", "audit", "report"]


def test_blinders_are_not_made_again(tmp_path: Path) -> None:
    assert script(tmp_path, "orl").returncode == script(tmp_path, "orl").returncode == 0
    assert (tmp_path / "calls").read_text().count("blind --edge") == 1


@pytest.mark.parametrize("parts", [("orl2",), ("synthetic", "figure 4")])
def test_an_unknown_part_is_refused_before_anything_runs(parts: tuple[str, ...], tmp_path: Path) -> None:
    done = script(tmp_path, *parts)
    assert done.returncode == 2
    known = "orl protections hardening orl-affine figure4 synthetic picture"
    assert f"a part must be one of {known}, got {parts[-1]}" in done.stderr
    assert not (tmp_path / "calls").exists()
