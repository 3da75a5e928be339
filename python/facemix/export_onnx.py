"""A cloud part as an ONNX model that takes mixed features as they come over the wire, checked against PyTorch."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .cloud.model import CloudModel
from .errors import FacemixError
from .wire.names import FEATURES, NETWORK, OUTPUTS, SCALES

__all__ = ["OPSET", "TOLERANCE", "WIRE_DTYPES", "check_onnx", "converted", "onnx_model", "row_bytes"]

WIRE_DTYPES = ("float32", "float16", "int8")

#: Read by ONNX Runtime 1.18 and newer, of 2024: servers lag behind.
OPSET = 20

CHECKED_ROWS = (1, 2, 7)
#: How far an output may be from PyTorch's, as a part of the largest one. Both compute in float32 and add in another
#: order; a layer that was converted wrongly shows in the first digit.
TOLERANCE = 1e-4
INT8_STEP = 1 / 64  # of the features that are checked: 127 of them are about two


class OnTheWire(nn.Module):
    """A cloud part behind the wire: casts mixed features to float32, times their scales [B, C] where they have any."""

    def __init__(self, cloud: nn.Module) -> None:
        super().__init__()
        self.cloud = cloud

    def forward(self, mixed_features: Tensor, mixed_scales: Tensor | None = None) -> Tensor:
        x = mixed_features.to(torch.float32)
        if mixed_scales is not None:
            x = x * mixed_scales.reshape(*mixed_scales.shape, *(1,) * (x.dim() - 2))
        return self.cloud(x)


def converted(
    module: nn.Module, feeds: Sequence[Tensor], inputs: Sequence[str], output: str, what: str
) -> onnx.ModelProto:
    """Convert `module`, in eval mode, for any number of rows.

    Args:
        feeds: an example of each input, of two rows or more: torch.export takes a size of one for a constant.
        inputs, output: what the model calls them.
        what: is converted, for the error message.

    Raises:
        FacemixError: if PyTorch cannot convert it.
    """
    rows = torch.export.Dim("rows", min=1)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                tuple(feeds),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=tuple({0: rows} for _ in feeds),
            )
    except torch.onnx.OnnxExporterError as error:
        raise FacemixError(f"export: PyTorch must convert {what} to ONNX, got {error}") from error
    assert program is not None  # with dynamo=True
    proto: onnx.ModelProto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # where the model's code lies on this machine
    return proto


def onnx_model(model: CloudModel, wire_dtype: str) -> onnx.ModelProto:
    """Convert `model` for any number of rows, with its name, version and network in the metadata.

    Inputs are mixed_features [B, ...] of `wire_dtype` and, with int8, mixed_scales float32 [B, C]; the output is
    mixed_outputs float32 [B, ...].

    Raises:
        ValueError: if `wire_dtype` is none of WIRE_DTYPES.
        FacemixError: if PyTorch cannot convert the model.
    """
    if wire_dtype not in WIRE_DTYPES:
        raise ValueError(f"export: wire dtype must be one of {', '.join(WIRE_DTYPES)}, got {wire_dtype!r}")
    feeds = [torch.from_numpy(array) for array in _feeds(model, wire_dtype, 2).values()]
    names = [FEATURES, SCALES][: len(feeds)]
    proto = converted(OnTheWire(model.module).eval(), feeds, names, OUTPUTS, what=model.name)
    onnx.helper.set_model_props(proto, {"name": model.name, "version": str(model.version), NETWORK: model.network})
    return proto


def check_onnx(proto: bytes, model: CloudModel, wire_dtype: str) -> None:
    """Compare the ONNX model in ONNX Runtime with PyTorch on random features, for several numbers of rows.

    Raises:
        FacemixError: if an output is further from PyTorch's than TOLERANCE allows.
    """
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    for rows in CHECKED_ROWS:
        feeds = _feeds(model, wire_dtype, rows)
        features = feeds[FEATURES].astype(np.float32)
        if SCALES in feeds:
            scales = feeds[SCALES]
            features *= scales.reshape(*scales.shape, *(1,) * (features.ndim - 2))
        expected = model.run(features)
        (got,) = session.run([OUTPUTS], feeds)
        if got.shape != expected.shape:
            raise FacemixError(f"export: the ONNX model must answer {expected.shape} for {rows} rows, got {got.shape}")
        error = float(np.abs(got - expected).max() / np.abs(expected).max())
        if not error <= TOLERANCE:  # nor is NaN
            raise FacemixError(
                f"export: the ONNX model must answer as PyTorch does, within {TOLERANCE:g} of the largest output, got "
                f"{error:.2g} for {rows} rows"
            )


def _feeds(model: CloudModel, wire_dtype: str, rows: int) -> dict[str, NDArray[Any]]:
    """Random inputs of the ONNX model, the same in every run."""
    generator = np.random.default_rng(rows)
    shape = (rows, *model.input_shape)
    if wire_dtype != "int8":
        return {FEATURES: generator.standard_normal(shape).astype(wire_dtype)}
    scales = generator.uniform(0.5 * INT8_STEP, INT8_STEP, shape[:2])
    return {FEATURES: generator.integers(-127, 128, shape, np.int8), SCALES: scales.astype(np.float32)}


def row_bytes(model: CloudModel, wire_dtype: str) -> int:
    """Bytes of a row on the wire, without its scales."""
    return math.prod(model.input_shape) * np.dtype(wire_dtype).itemsize


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's remarks about its own internals, and about packages it could use, from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
