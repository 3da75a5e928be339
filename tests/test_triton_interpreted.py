"""The ops' own tests again, on the Triton kernels, in Triton's interpreter (tests/helpers/interpreted.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import python

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("file", "cases", "selection"),
    [
        # Large groups take minutes; the interpreter has nothing in it that could differ from run to run. What ops/ does
        # around the kernels, formulas of derivatives and registrations, is tested once, on the CPU's.
        ("test_conv_mix.py", 2, "not big_strip and not repeats and not dtype1-64 and not dtype1-33 and not dtype1-16"),
        ("test_conv_mix_int8.py", 2, "dtypes or ties or saturation or refused"),
        ("test_act_mix.py", 6, ""),
        ("test_group_mix.py", 8, ""),
        ("test_group_unmix.py", 4, ""),
        ("test_unmix_linear.py", 4, ""),
        ("test_out.py", 5, ""),
        ("test_autograd.py", 2, "not gradcheck or group_mix or linear or act_mix and contiguous-pool2-prelu"),
        ("test_opcheck.py", 20, "schema or faketensor or listed"),
        ("test_far_apart.py", 8, ""),
    ],
)
def test_interpreted(file: str, cases: int, selection: str, tmp_path: Path) -> None:
    """At most so many ``cases`` of each test, in a process of its own: Triton chooses when it is imported."""
    arguments = ["-q", "-p", "interpreted", "-p", "no:cacheprovider", f"--cases={cases}", "-k", selection]
    arguments.append(str(TESTS / "ops" / file))
    done = python(
        f"import sys, pytest; sys.exit(pytest.main({arguments!r}))",
        tmp_path,
        FACEMIX_BACKEND="triton",
        TRITON_INTERPRET="1",
        PYTHONPATH=str(TESTS / "helpers"),
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
