"""Registration of the ops with torch.library, and what their implementations share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, overload

import torch
from torch import Tensor

from ..backend import Choice, select, warn_if_slow
from ..native import C
from ..rules import bad_value

LIB = torch.library.Library("facemix_ops", "DEF")
C.use_openmp()  # PyTorch's own threads: they spin between its ops, and ours would wait for a core
DTYPE_CODE = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3, torch.int8: 4}
# Settings of PyTorch that its type hints do not know.
CUDA: Any = torch.backends.cuda
CUDNN: Any = torch.backends.cudnn
# Results from this size on cost more to map into memory than to compute.
LARGE_BYTES = 4 << 20
# Ops as registered; the tests want samples of every one.
REGISTERED: list[str] = []
# The kernels in use, by op and device type. They write into results that they are given.
KERNELS: dict[tuple[str, str], Callable[..., Any]] = {}


def register(
    schema: str,
    *,
    native: Callable[..., Any],
    triton: Callable[..., Any] | None = None,
    fresh: Callable[..., Any],
    reference: Callable[..., Any],
    fake: Callable[..., Any],
) -> None:
    """Defines ``facemix_ops::<schema>``, for every device type with the backend that ``select`` says.

    ``native`` and ``triton`` (None where there is no such kernel) write into results that they are given;
    ``fresh(kernel, *arguments)`` has one of them write into new ones. ``reference`` is for all other devices.
    """
    name = schema.split("(")[0]
    kernels = {"native": native, "triton": triton}

    @wraps(reference)
    def stand_in(x: Tensor, *rest: Any) -> Any:
        warn_if_slow(name, x.device.type)
        return reference(x, *rest)

    LIB.define(schema)
    LIB.impl(name, stand_in, "CompositeExplicitAutograd")
    for device in ("cpu", "cuda", "xpu"):
        kernel = kernels.get(choice(name, device).backend)
        if kernel is not None:
            kernel = kernel if device == "cpu" else on_its_device(kernel)
            KERNELS[name, device] = kernel
            LIB.impl(name, partial(fresh, kernel), device.upper())
    torch.library.register_fake(f"facemix_ops::{name}", fake, lib=LIB)
    REGISTERED.append(name)


def on_its_device(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """``kernel``, with the device of the first tensor that it is given as the current one, as PyTorch's ops have it.

    The caller's comes back, and is not touched where nothing has used it yet.
    """

    @wraps(kernel)
    def launched(*arguments: Any) -> Any:
        device = next(x for x in arguments if isinstance(x, Tensor)).get_device()
        if device == torch.accelerator.current_device_index():
            return kernel(*arguments)
        with torch.accelerator.device_index(device):
            return kernel(*arguments)

    return launched


def choice(name: str, device: str) -> Choice:
    """What an op is registered with for a device type."""
    try:
        return select(name, device)
    except RuntimeError:  # FACEMIX_BACKEND cannot serve this device: said when a tensor from there comes
        return Choice("none", "")


def register_autograd(name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]) -> None:
    """torch.library.register_autograd for one of our ops."""
    torch.library.register_autograd(f"facemix_ops::{name}", backward, setup_context=setup_context, lib=LIB)


def kernel_for(name: str, x: Tensor) -> Callable[..., Any] | None:
    """The op's kernel for tensors like ``x``, which can write into ``out`` itself; None where the reference runs."""
    return KERNELS.get((name, x.device.type))


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a kernel accumulates in: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_channels_last(x: Tensor) -> bool:
    """Whether results are laid out NHWC: the input is dense in that order, or a slice of a tensor that is."""
    return x.dim() == 4 and not x.is_contiguous() and x.shape[1] > 1 and x.stride(1) == 1


def layout_of(x: Tensor) -> torch.memory_format:
    """The layout of results for ``x``."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def empty_image(x: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An empty [B, C, H, W] in the layout of ``x``."""
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout_of(x))


def recycled(fresh: Tensor) -> Tensor:
    """``fresh`` itself, which nothing was written to yet, or where it is large a tensor like it in recycled memory."""
    if not fresh.is_cpu or fresh.nbytes < LARGE_BYTES:
        return fresh
    memory = torch.frombuffer(C.ResultMemory(fresh.nbytes), dtype=torch.uint8).untyped_storage()
    # Not a view of a tensor of it: autograd lets nobody change a view that an op returns.
    return torch.empty(0, dtype=fresh.dtype).set_(memory, 0, fresh.shape, fresh.stride())


def dense(x: Tensor) -> Tensor:
    """``x`` itself where its rows are dense blocks of memory (contiguous or channels_last), else a contiguous copy.

    ``torch.empty_like`` of the result has the result's strides.
    """
    if x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


@overload
def plain(x: Tensor) -> Tensor: ...
@overload
def plain(x: None) -> None: ...
def plain(x: Tensor | None) -> Tensor | None:
    """``x`` contiguous, with a pending negation carried out."""
    if x is None or (x.is_contiguous() and not x.is_neg()):
        return x
    return x.resolve_neg().contiguous()


def address(x: Tensor | None) -> int:
    """Of the first element; 0 for None."""
    return 0 if x is None else x.data_ptr()


def place(x: Tensor) -> tuple[int, int]:
    """Where a kernel runs: (-1, threads) on the CPU, (ordinal, stream) on the CUDA device of ``x``."""
    if x.is_cuda:
        return x.get_device(), torch.cuda.current_stream(x.device).cuda_stream
    return -1, torch.get_num_threads()


def allows_tf32(x: Tensor, backend: Any) -> bool:
    """Whether PyTorch is set to multiply tensors like ``x`` in TF32; backend: ``CUDNN.conv`` or ``CUDA.matmul``."""
    return x.is_cuda and backend.fp32_precision == "tf32"


def key_args(x: Tensor, coeffs: Tensor, order: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Coefficients as float64 and the order, both contiguous, and (G, S).

    A key for another number of rows than ``x`` has is refused: not every call comes through the checks of the ops'
    faces (torch.jit.trace drops them), and kernels would write past their results.
    """
    if coeffs.dim() != 3 or coeffs.shape[1] != coeffs.shape[2] or coeffs.shape[:2].numel() != x.shape[0]:
        bad_value("facemix_ops", "coeffs", f"be [G, S, S] for {x.shape[0]} rows", f"{list(coeffs.shape)}")
    if order.dtype != torch.int64 or list(order.shape) != [x.shape[0]]:
        bad_value("facemix_ops", "order", f"be int64 {[x.shape[0]]}", f"{order.dtype} {list(order.shape)}")
    if coeffs.dtype != torch.float64 or not coeffs.is_contiguous():
        coeffs = coeffs.double().contiguous()
    groups, size, _ = coeffs.shape
    return coeffs, order if order.is_contiguous() else order.contiguous(), (groups, size)


def written(out: Tensor) -> Tensor:
    """``out``, which a kernel wrote into behind autograd's back: a graph that has saved it must not trust it now."""
    torch.autograd.graph.increment_version(out)
    return out


# Device types that have autocast; torch.compile cannot ask, before PyTorch 2.11.
AUTOCAST = frozenset(d for d in ("cpu", "cuda", "xpu", "mps", "hpu", "mtia") if torch.amp.is_autocast_available(d))


def autocast(x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """The arguments as PyTorch's own convolutions take them under autocast: in its dtype, float64 excepted."""
    device = x.device.type
    if device not in AUTOCAST or not torch.is_autocast_enabled(device):
        return (x, *others)
    dtype = torch.get_autocast_dtype(device)

    def cast(t: Tensor | None) -> Tensor | None:
        return t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t

    return tuple(map(cast, (x, *others)))


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd will record what is done to these."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
