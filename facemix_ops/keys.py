"""Private keys: one random orthogonal matrix a group, and one shuffle of the mixed rows."""

from __future__ import annotations

from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from .checks import check_tensor, is_int
from .rules import MAX_GROUP, MIN_GROUP, bad_type, bad_value, short

# |A^T A - I| of a matrix kept in float32, with room for S = 64.
ORTHOGONALITY = 1e-4


class MixKey:
    """``coeffs`` float64 [G, S, S] and ``order`` int64 [B = G*S]: what mixes and shuffles one request.

    Row ``b`` of the mixed batch is sent as row ``order[b]``:
    ``y[order[g*S+i]] = sum_j coeffs[g,i,j] * x[g*S+j]`` (the paper's eq. 4 and section 3.5).

    A key is private and for one request. It is never printed, pickled or copied along with a model; ``close()``, or
    leaving a ``with`` block, zeroes its memory (not before ``backward()`` where gradients are wanted: PyTorch
    then reports a changed tensor).

    That it mixes one request only is up to you: **an open key mixes as often as it is asked to**, without a word, and
    a graph that was traced or exported around one holds it. What draws its own keys uses none twice:
    :class:`facemix_ops.edge.EdgeModel`, for every request another, and the layers where no key is passed to them.

    Use :meth:`sample`. The constructor takes matrices of your own: it raises ValueError unless each is orthogonal
    (the inverse of the mix is its adjoint only then) and ``order`` is a permutation (default: no shuffle).
    """

    __slots__ = ("_closed", "_coeffs", "_order")

    def __init__(self, coeffs: Tensor, order: Tensor | None = None) -> None:
        check_tensor("MixKey", "coeffs", coeffs, ndim=3)
        if coeffs.requires_grad:
            bad_value("MixKey", "coeffs", "not require gradients", "a tensor that does")
        groups, size = coeffs.shape[0], coeffs.shape[1]
        if coeffs.shape[2] != size:
            bad_value("MixKey", "coeffs", "have shape [G, S, S]", f"{list(coeffs.shape)}")
        check_group_size("MixKey", size)
        coeffs = coeffs.to(torch.float64, copy=True).contiguous()
        eye = torch.eye(size, dtype=coeffs.dtype, device=coeffs.device)
        error = (coeffs.transpose(1, 2) @ coeffs - eye).abs().max().item() if groups else 0.0
        if not error <= ORTHOGONALITY:
            bad_value("MixKey", "coeffs", f"be orthogonal to {ORTHOGONALITY}", f"|A^T A - I| = {error:.2g}")
        rows = torch.arange(groups * size, device=coeffs.device)
        if order is None:
            order = rows
        elif not isinstance(order, Tensor) or order.dtype != torch.int64 or order.shape != rows.shape:
            bad_type("MixKey", "order", f"be an int64 Tensor of shape {list(rows.shape)}", short(order))
        elif order.device != coeffs.device:
            bad_value("MixKey", "order", f"be on the device of coeffs, {coeffs.device}", str(order.device))
        elif not torch.equal(order.sort().values, rows):
            bad_value("MixKey", "order", f"be a permutation of 0..{len(rows) - 1}", "repeated or foreign entries")
        self._set(coeffs, order.to(torch.int64, copy=True).contiguous())

    def _set(self, coeffs: Tensor, order: Tensor) -> None:
        self._coeffs, self._order, self._closed = coeffs, order, False

    @classmethod
    def _wrap(cls, coeffs: Tensor, order: Tensor) -> Self:
        """A key of tensors that are known to be good, without the checks and the copies."""
        key = cls.__new__(cls)
        key._set(coeffs, order)
        return key

    @classmethod
    def sample(
        cls,
        batch: int,
        group_size: int,
        *,
        max_coeff: float | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Self:
        """A fresh key for ``batch`` rows in groups of ``group_size`` (2 to 64).

        Coefficients are Haar-distributed orthogonal matrices and the order is a uniform permutation, both from the
        operating system's CSPRNG, on the CPU. ``generator`` instead draws a seed for a fast, reproducible generator:
        for tests and training, never for a request. Neither of the two is cryptographic, and they give different keys:
        SplitMix64 on the CPU (Steele, Lea, Flood 2014); and where ``generator`` is a CUDA device's and the extension
        has CUDA kernels Philox4x32-10 (Salmon et al. 2011). Those draw on the device and read nothing back, so that
        CUDA graphs may hold them; keys below a ``max_coeff`` come from the CPU even so, which waits for the seed.

        ``device`` is where the key goes: by default where ``generator`` lies, or the CPU.

        ``max_coeff`` bounds the largest |coefficient|; None, the default, does not. Haar matrices are often lopsided,
        so that a mixed row is nearly one image: set it for requests, but for images that are sent again in the same
        group, which several keys with a bound give away (docs/security.md); 0.6 is a good bound for groups of 8. The
        distribution is then that of a random walk of plane rotations, from a Haar matrix to below the bound and eight
        sweeps on: it tends to the Haar measure restricted to the bound, and is not an exact draw from it. The lowest
        bound is 1/cbrt(S), rounded up to three digits: 0.5 for groups of 8. There every draw succeeds; those for large
        groups take long (a third of a second for 64).

        Raises ValueError where ``batch`` does not divide by ``group_size``, or ``max_coeff`` is too low, or above 1.
        """
        from .ops.sample_orthogonal import sample_orthogonal, sample_permutation

        check_group_size("MixKey.sample", group_size)
        if not is_int(batch):
            bad_type("MixKey.sample", "batch", "be an int", type(batch).__name__)
        if batch < 0 or batch % group_size:
            bad_value(
                "MixKey.sample",
                "batch",
                f"be a multiple of group_size = {group_size} (fill a short batch with decoys)",
                f"{batch}",
            )
        coeffs = sample_orthogonal(
            batch // group_size, group_size, max_coeff=max_coeff, device=device, generator=generator
        )
        return cls._wrap(coeffs, sample_permutation(batch, device=device, generator=generator))

    @property
    def coeffs(self) -> Tensor:
        """float64 [G, S, S]. Raises ValueError once the key is closed."""
        self._require_open()
        return self._coeffs

    @property
    def order(self) -> Tensor:
        """int64 [B]. Raises ValueError once the key is closed."""
        self._require_open()
        return self._order

    @property
    def groups(self) -> int:
        """G."""
        return self._coeffs.shape[0]

    @property
    def group_size(self) -> int:
        """S."""
        return self._coeffs.shape[1]

    @property
    def batch(self) -> int:
        """B = G * S."""
        return self._order.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the key lies."""
        return self._coeffs.device

    @property
    def closed(self) -> bool:
        """Whether the memory was zeroed."""
        return self._closed

    def to(self, device: torch.device | str) -> Self:
        """This key on another device; itself where it is there already. The copy is closed on its own."""
        self._require_open()
        coeffs = self._coeffs.to(device)
        return self if coeffs is self._coeffs else self._wrap(coeffs, self._order.to(device))

    def close(self) -> None:
        """Zeroes the key's memory. Any later use raises ValueError.

        Of keys that a graph of torch.compile draws for itself, the compiler may drop the memory without zeroing it.
        """
        if not self._closed:
            # A key sampled in inference mode may be written to only there. A compiled graph cannot ask.
            inference = not torch.compiler.is_compiling() and self._coeffs.is_inference()
            with torch.inference_mode() if inference else torch.no_grad():
                self._coeffs.zero_()
                self._order.zero_()
            self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            bad_value("MixKey", "key", "be open", "a closed key: its memory was zeroed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"MixKey(groups={self.groups}, group_size={self.group_size}, device='{self.device}'{state})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("MixKey: a key is private and for one request: it cannot be pickled or copied")


def check_group_size(op: str, size: Any) -> None:
    """Group sizes are ints from 2 to 64."""
    if not is_int(size):
        bad_type(op, "group_size", "be an int", type(size).__name__)
    if not MIN_GROUP <= size <= MAX_GROUP:
        bad_value(op, "group_size", f"be between {MIN_GROUP} and {MAX_GROUP}", f"{size}")


def check_key(op: str, key: MixKey, x: Tensor, argument: str = "x") -> None:
    """An open key for just this many rows, on the device of ``x``."""
    if not isinstance(key, MixKey):
        bad_type(op, "key", "be a facemix_ops.MixKey", type(key).__name__)
    if key.closed:
        bad_value(op, "key", "be open", "a closed key: its memory was zeroed")
    # No local holds the key's tensors: reports of errors may show those of every frame.
    if x.dim() == 0 or key.batch != x.shape[0]:
        rows = "none, a scalar" if x.dim() == 0 else f"{x.shape[0]}"
        bad_value(
            op,
            "key",
            f"be for as many rows as {argument} has: {rows}",
            f"{key.batch} ({key.groups} groups of {key.group_size})",
        )
    if key.device != x.device:
        bad_value(op, "key", f"be on the device of {argument}, {x.device}", str(key.device))
