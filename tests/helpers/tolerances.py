"""How far a kernel may be from the float64 reference. The only numbers of this kind in the suite.

A kernel may lose ``FACTOR`` times what plain PyTorch loses in the same dtype, and on top of that the rounding of its
result to its dtype and ``SUMS`` roundings of the type that it computes in (sums are taken in another order, and
PyTorch's error may happen to be 0). Everything is relative to the largest expected value. int8 has the whole number
nearest to a value that near: where two are, either.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FACTOR = 2.0
SUMS = 64
Measure = Callable[[Tensor, Tensor], float]


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest absolute difference; 0 for empty tensors."""
    return (actual.double() - expected.double()).abs().max().item() if expected.numel() else 0.0


def mean_error(actual: Tensor, expected: Tensor) -> float:
    """The root of its mean square: where roundings pass through many layers, the largest is a matter of luck."""
    return (actual.double() - expected.double()).square().mean().sqrt().item()


def bound(dtype: torch.dtype, expected: Tensor, plain: Tensor | None = None, measure: Measure = error) -> float:
    """The largest error allowed in ``dtype`` where ``expected`` is the float64 result, ``plain`` PyTorch's own (for
    int8: before it is rounded)."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    scale = expected.abs().max().item() if expected.numel() else 0.0
    rounding = 0.5 if dtype == torch.int8 else scale * torch.finfo(dtype).eps
    floor = rounding + scale * SUMS * torch.finfo(compute).eps
    return floor + (0.0 if plain is None else FACTOR * measure(plain, expected))


def assert_near(actual: Tensor, expected: Tensor, plain: Tensor | None = None, measure: Measure = error) -> None:
    """Shape, finiteness and error of ``actual`` against the float64 ``expected``."""
    assert actual.shape == expected.shape
    assert expected.isfinite().all(), "the expected values must be finite"
    assert actual.isfinite().all()
    saturated = expected.clamp(-127, 127) if actual.dtype == torch.int8 else expected
    found, allowed = measure(actual, saturated), bound(actual.dtype, expected, plain, measure)
    assert found <= allowed, f"error {found:.3g}, allowed {allowed:.3g} ({actual.dtype}, {list(actual.shape)})"


def assert_same_product(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> None:
    """<a, b> == <c, d> in float64, relative to |a| |b|: a sum that cancels out is not held to its own size."""
    a, b, c, d = (t.double() for t in (*left, *right))
    scale = a.norm() * b.norm()
    assert scale > 0
    assert_near(torch.stack([(a * b).sum(), scale]), torch.stack([(c * d).sum(), scale]))
