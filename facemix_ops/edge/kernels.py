"""Every call of the compiled kernels that the edge makes. They take addresses: what comes here was checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..native import C

if TYPE_CHECKING:
    from .bundle import Bundle
    from .key import Key

DTYPE_CODE = {np.dtype(np.float32): 0, np.dtype(np.uint16): 2, np.dtype(np.float16): 3, np.dtype(np.int8): 4}
NONE, RELU, LEAKY = 0, 1, 2
NO_POOL = (1, 1, 1, 1, 0, 0)
Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
ENTROPY = 0, (-1, 1)  # no seed: from the operating system


def conv_mix(bundle: Bundle, layer: Layer, x: NDArray[np.float32], key: Key, y: NDArray[Any], threads: int) -> None:
    """x [B, C, H, W] -> y [B, OC, PH, PW], mixed and shuffled; both contiguous. layer: the bundle's weight and bias,
    scaled where y is int8."""
    b, (weight, bias) = bundle, layer
    pool = NO_POOL if b.pool is None else (*b.pool[0], *b.pool[1], *b.pool[2])
    C.conv_mix(
        _address(x), DTYPE_CODE[x.dtype], x.shape[1:], _strides(x), _address(weight), _address(bias),
        (len(weight), *weight.shape[2:]), b.stride, b.padding, b.dilation, *_activation(b), 0, pool, b.conv_shape,
        y.shape[2:], _address(key.coeffs), _address(key.order), key.coeffs.shape[:2], _address(y), DTYPE_CODE[y.dtype],
        False, 0, False, (-1, threads),
    )  # fmt: skip


def unmix_linear(bundle: Bundle, y: NDArray[np.float32], key: Key, out: NDArray[np.float32], threads: int) -> None:
    """y [B, K], mixed -> out [B, N], rows as they were before the mix; both contiguous."""
    C.unmix_linear(
        _address(y), _address(bundle.last_weight), _address(bundle.last_bias), _address(out), DTYPE_CODE[y.dtype],
        (1, y.shape[1], out.shape[1]), _address(key.coeffs), _address(key.order), key.coeffs.shape[:2], False,
        (-1, threads),
    )  # fmt: skip


def sample_orthogonal(coeffs: NDArray[np.float64], max_coeff: float) -> None:
    """Fills coeffs [G, S, S] from the operating system's CSPRNG."""
    C.sample_orthogonal(_address(coeffs), len(coeffs), coeffs.shape[1], max_coeff, *ENTROPY)


def sample_permutation(order: NDArray[np.int64]) -> None:
    """Fills order [n] from the operating system's CSPRNG."""
    C.sample_permutation(_address(order), len(order), *ENTROPY)


def _activation(bundle: Bundle) -> tuple[int, float]:
    match bundle.activation:
        case None:
            return NONE, 1.0
        case "relu":
            return RELU, 0.0
        case (_, slope):
            return LEAKY, float(slope)
    raise AssertionError(bundle.activation)


def _address(array: NDArray[Any]) -> int:
    # Unlike `array.ctypes` this needs no further module, and gives read-only arrays their address too.
    return array.__array_interface__["data"][0]


def _strides(array: NDArray[Any]) -> tuple[int, ...]:
    """In elements."""
    return tuple(stride // array.itemsize for stride in array.strides)
