"""The ops' own tests again, on the Triton kernels, in Triton's interpreter (tests/helpers/interpreted.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import python

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("ops", "cases", "selection"),
    [
        # Large groups take minutes; the interpreter has nothing in it that could differ from run to run. What ops/ does
        # around the kernels, formulas of derivatives and registrations, is tested once, on the CPU's.
        ("conv_mix", 2, "not big_strip and not repeats and not dtype1-64 and not dtype1-33 and not dtype1-16"),
        ("conv_mix_int8", 2, "dtypes or ties or saturation or refused"),
        ("act_mix", 4, ""),
        ("group_mix group_unmix unmix_linear out far_apart", 8, ""),
        ("autograd", 2, "not gradcheck or group_mix or linear or act_mix and contiguous-pool2-prelu"),
        ("opcheck", 20, "schema or faketensor or listed"),
    ],
)
def test_interpreted(ops: str, cases: int, selection: str, tmp_path: Path) -> None:
    """At most so many ``cases`` of each test, in a process of their own: Triton chooses when it is imported."""
    arguments = ["-q", "-p", "interpreted", "-p", "no:cacheprovider", f"--cases={cases}", "-k", selection]
    arguments += [str(TESTS / "ops" / f"test_{op}.py") for op in ops.split()]
    done = python(
        f"import sys, pytest; sys.exit(pytest.main({arguments!r}))",
        tmp_path,
        FACEMIX_BACKEND="triton",
        TRITON_INTERPRET="1",
        PYTHONPATH=str(TESTS / "helpers"),
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
