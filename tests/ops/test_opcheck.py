"""torch.library.opcheck on every registered op; an op without sample inputs is a failure."""

from __future__ import annotations

import pytest
import torch
from op_samples import samples

import facemix_ops.ops as _ops  # registers them
from facemix_ops.ops.library import REGISTERED

assert _ops
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


RANDOM = CHECKS[:-1]  # the last compares two results


@pytest.mark.parametrize(
    ("op", "check"), [(op, check) for op in REGISTERED for check in (RANDOM if op.startswith("sample_") else CHECKS)]
)
def test_opcheck(op: str, check: str) -> None:
    args = samples(op)
    assert args, f"{op} has no sample inputs: add some to tests/helpers/op_samples.py"
    for case in args:
        torch.library.opcheck(getattr(torch.ops.facemix_ops, op).default, case, test_utils=check)


def test_every_op_of_the_library_is_listed() -> None:
    """REGISTERED is all that torch knows under our name."""
    known = {
        n.split("::")[1].split(".")[0] for n in torch._C._dispatch_get_all_op_names() if n.startswith("facemix_ops::")
    }
    assert known == set(REGISTERED)
    assert len(REGISTERED) == len(set(REGISTERED))
