"""sample_orthogonal: Haar-distributed orthogonal matrices; sample_permutation: the shuffle that goes with them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import is_int
from ..native import C
from ..rules import bad_type, bad_value, check_max_coeff
from .library import LIB, REGISTERED

# Drawn at every call: a compiler must neither merge two calls nor repeat one.
TAGS = (torch.Tag.nondeterministic_seeded,)


def _orthogonal(groups: int, size: int, max_coeff: float, seed: int | None) -> Tensor:
    coeffs = torch.empty(groups, size, size, dtype=torch.float64, device="cpu")
    if not C.sample_orthogonal(coeffs.data_ptr(), groups, size, max_coeff, seed):
        bad_value(
            "sample_orthogonal",
            "max_coeff",
            f"be within reach for group_size {size} (above 1/sqrt(S) = {size**-0.5:.3f}, with room to spare)",
            f"{max_coeff}",
        )
    return coeffs


def _permutation(n: int, seed: int | None) -> Tensor:
    order = torch.empty(n, dtype=torch.int64, device="cpu")
    C.sample_permutation(order.data_ptr(), n, seed)
    return order


for _schema, _impl in (
    ("sample_orthogonal(SymInt groups, int size, float max_coeff, int? seed) -> Tensor", _orthogonal),
    ("sample_permutation(SymInt n, int? seed) -> Tensor", _permutation),
):
    _name = _schema.split("(")[0]
    LIB.define(_schema, tags=TAGS)
    LIB.impl(_name, _impl, "CompositeExplicitAutograd")
    REGISTERED.append(_name)


@torch.library.register_fake("facemix_ops::sample_orthogonal", lib=LIB)
def _fake_orthogonal(groups: int, size: int, max_coeff: float, seed: int | None) -> Tensor:
    return torch.empty(groups, size, size, dtype=torch.float64, device="cpu")


@torch.library.register_fake("facemix_ops::sample_permutation", lib=LIB)
def _fake_permutation(n: int, seed: int | None) -> Tensor:
    return torch.empty(n, dtype=torch.int64, device="cpu")


def _seed(generator: torch.Generator | None) -> int | None:
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator):
        bad_type("sample_orthogonal", "generator", "be a torch.Generator", type(generator).__name__)
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device).item())


def sample_orthogonal(
    groups: int,
    size: int,
    *,
    max_coeff: float | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """float64 [groups, size, size]: one random orthogonal matrix a group, from the operating system's CSPRNG.

    Gaussian, Householder QR, sign fix, in double: the Haar distribution (Mezzadri 2007). ``max_coeff`` and
    ``generator`` are described at :meth:`facemix_ops.MixKey.sample`.

    Raises ValueError for a bound outside (1/sqrt(size), 1], or one that the walk does not reach.
    """
    if not is_int(groups) or not is_int(size):
        bad_type("sample_orthogonal", "groups and size", "be ints", f"{groups!r}, {size!r}")
    if groups < 0 or size < 1:
        bad_value("sample_orthogonal", "groups and size", "be at least 0 and 1", f"{groups}, {size}")
    check_max_coeff("sample_orthogonal", max_coeff, size)
    coeffs = torch.ops.facemix_ops.sample_orthogonal(groups, size, max_coeff or 1.0, _seed(generator))
    return coeffs if device is None else coeffs.to(device)


def sample_permutation(
    n: int, *, device: torch.device | str | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """int64 [n]: a uniform permutation from the operating system's CSPRNG."""
    order = torch.ops.facemix_ops.sample_permutation(n, _seed(generator))
    return order if device is None else order.to(device)
