"""The whole network in this process, without any mixing: what the split inference is compared with."""

from __future__ import annotations

import os
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from facemix.cloud.model import CloudModel
from facemix.edge import Answer, Cost
from facemix.edge.torch_half import TorchHalf
from facemix_ops.edge import Bundle, EdgeModel
from facemix_ops.edge.preprocess import Preprocess
from facemix_ops.edge.result import result_of

__all__ = ["LocalModel"]


class LocalModel:
    """The edge's two parts and the cloud's middle put together again. Needs PyTorch.

    Args:
        half: the edge half.
        cloud: the file of the cloud half, see `facemix.export.export_cloud`.

    Raises:
        FileNotFoundError, ValueError: if the file will not do, or is the middle of another network.
    """

    def __init__(self, half: EdgeModel | TorchHalf, cloud: str | os.PathLike[str]) -> None:
        self._half, self._middle = half, CloudModel(cloud)
        ours, theirs = ((model.name, model.version, model.network) for model in (half.bundle, self._middle))
        if ours != theirs:
            raise ValueError(
                f"infer: {cloud} must be the middle of {ours[0]} version {ours[1]}, network {ours[2]}, "
                f"got {theirs[0]} version {theirs[1]}, network {theirs[2]}"
            )

    def classify(self, images: NDArray[np.uint8]) -> Answer:
        """Classify uint8 [N, H, W, C]; all of the time is the edge's."""
        start = time.perf_counter()
        with torch.inference_mode():
            if isinstance(self._half, TorchHalf):
                features = self._half.first(self._half.inputs(images))
            else:
                features = _first(self._half.bundle, images)
            outputs = torch.from_numpy(self._middle.run(features.contiguous().numpy()))
            scores = (
                self._half.last(outputs) if isinstance(self._half, TorchHalf) else _last(self._half.bundle, outputs)
            ).numpy()
        result = result_of(scores, self._half.bundle)
        seconds = time.perf_counter() - start
        cost = Cost(
            images=len(images), rows=len(images), requests=0, attempts=0, messages=0, bytes_up=0, bytes_down=0,
            edge_seconds=seconds, cloud_seconds=0.0, network_seconds=0.0,
        )  # fmt: skip
        return Answer(**result._asdict(), cost=cost)


def _first(bundle: Bundle, images: NDArray[np.uint8]) -> Tensor:
    """The bundle's first part: [N, H, W, C] -> [N, OC, PH, PW]."""
    height, width, channels = bundle.image_shape
    planes = np.empty((len(images), channels, height, width), np.float32)
    for image, plane in zip(images, planes, strict=True):
        Preprocess(bundle)(image, plane)
    weight, bias = (torch.tensor(values) for values in (bundle.weight, bundle.bias))
    x = F.conv2d(torch.from_numpy(planes), weight, bias, bundle.stride, bundle.padding, bundle.dilation)
    if bundle.activation is not None:
        x = F.leaky_relu(x, 0.0 if bundle.activation == "relu" else float(bundle.activation[1]))
    return x if bundle.pool is None else F.max_pool2d(x, *bundle.pool)


def _last(bundle: Bundle, outputs: Tensor) -> Tensor:
    return F.linear(outputs, torch.tensor(bundle.last_weight), torch.tensor(bundle.last_bias))
