"""sample_orthogonal: Haar-distributed orthogonal matrices; sample_permutation: the shuffle that goes with them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import is_int
from ..native import C
from ..rules import MAX_GROUP, bad_type, bad_value, check_max_coeff
from .library import LIB, REGISTERED, address, choice, on_its_device, place

# Drawn at every call: a compiler must neither merge two calls nor repeat one.
TAGS = (torch.Tag.nondeterministic_seeded,)


def _moved(drawn: Tensor, device: torch.device | str) -> Tensor:
    """What was drawn, on ``device``; where that is another one nothing of it is left here.

    A blocking copy has been read to its end when ``to`` returns. In a graph of torch.compile the compiler decides what
    becomes of memory, see :meth:`facemix_ops.MixKey.close`.
    """
    there = drawn.to(device)
    if not torch.compiler.is_compiling() and there is not drawn:
        drawn.zero_()
    return there


def _orthogonal(groups: int, size: int, max_coeff: float, seed: Tensor | None) -> Tensor:
    coeffs = _fake_orthogonal(groups, size, max_coeff, None)
    here = None if seed is None else seed.cpu()
    C.sample_orthogonal(coeffs.data_ptr(), groups, size, max_coeff, address(here), place(coeffs))
    return coeffs if seed is None else _moved(coeffs, seed.device)


def _orthogonal_cuda(groups: int, size: int, max_coeff: float, seed: Tensor) -> Tensor:
    if max_coeff < 1 or size > MAX_GROUP:  # those the CPU draws alone
        return _orthogonal(groups, size, max_coeff, seed)
    coeffs = _fake_orthogonal(groups, size, max_coeff, seed)
    C.sample_orthogonal(coeffs.data_ptr(), groups, size, max_coeff, seed.data_ptr(), place(seed))
    return coeffs


def _permutation(n: int, seed: Tensor | None) -> Tensor:
    order = _fake_permutation(n, None)
    here = None if seed is None else seed.cpu()
    C.sample_permutation(order.data_ptr(), n, address(here), place(order))
    return order if seed is None else _moved(order, seed.device)


def _permutation_cuda(n: int, seed: Tensor) -> Tensor:
    order = _fake_permutation(n, seed)
    C.sample_permutation(order.data_ptr(), n, seed.data_ptr(), place(seed))
    return order


def _fake_orthogonal(groups: int, size: int, max_coeff: float, seed: Tensor | None) -> Tensor:
    return torch.empty(groups, size, size, dtype=torch.float64, device="cpu" if seed is None else seed.device)


def _fake_permutation(n: int, seed: Tensor | None) -> Tensor:
    return torch.empty(n, dtype=torch.int64, device="cpu" if seed is None else seed.device)


# The seed, int64 [], says where: on CUDA the kernels read it there. Anywhere else the CPU draws, and what it drew is
# brought to the seed.
for _schema, _cpu, _cuda, _fake in (
    (
        "sample_orthogonal(SymInt groups, int size, float max_coeff, Tensor? seed) -> Tensor",
        _orthogonal,
        _orthogonal_cuda,
        _fake_orthogonal,
    ),
    ("sample_permutation(SymInt n, Tensor? seed) -> Tensor", _permutation, _permutation_cuda, _fake_permutation),
):
    _name = _schema.split("(")[0]
    LIB.define(_schema, tags=TAGS)
    LIB.impl(_name, _cpu, "CompositeExplicitAutograd")
    if choice(_name, "cuda").backend == "native":
        LIB.impl(_name, on_its_device(_cuda), "CUDA")
    torch.library.register_fake(f"facemix_ops::{_name}", _fake, lib=LIB)
    REGISTERED.append(_name)


def _seed(generator: torch.Generator | None) -> Tensor | None:
    """Drawn where the generator lies, and not read: nothing waits for a device."""
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator):
        bad_type("sample_orthogonal", "generator", "be a torch.Generator", type(generator).__name__)
    return torch.randint(2**63 - 1, (), generator=generator, device=generator.device)


def sample_orthogonal(
    groups: int,
    size: int,
    *,
    max_coeff: float | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """float64 [groups, size, size]: one random orthogonal matrix a group, from the operating system's CSPRNG.

    Gaussian, Householder QR, sign fix, in double: the Haar distribution (Mezzadri 2007). ``max_coeff``, ``device`` and
    ``generator`` are described at :meth:`facemix_ops.MixKey.sample`; matrices above 64 always come from the CPU.

    Raises ValueError for a bound that is too low for ``size``, or above 1.
    """
    if not is_int(groups) or not is_int(size):
        bad_type("sample_orthogonal", "groups and size", "be ints", f"{groups!r}, {size!r}")
    if groups < 0 or size < 1:
        bad_value("sample_orthogonal", "groups and size", "be at least 0 and 1", f"{groups}, {size}")
    check_max_coeff("sample_orthogonal", max_coeff, size)
    coeffs = torch.ops.facemix_ops.sample_orthogonal(groups, size, max_coeff or 1.0, _seed(generator))
    return coeffs if device is None else _moved(coeffs, device)


def sample_permutation(
    n: int, *, device: torch.device | str | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """int64 [n]: a uniform permutation from the operating system's CSPRNG; ``generator`` as for the matrices."""
    order = torch.ops.facemix_ops.sample_permutation(n, _seed(generator))
    return order if device is None else _moved(order, device)
