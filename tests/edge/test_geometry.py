"""Whatever geometry a bundle may hold, the kernels compute it: random draws against plain PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bundles import CONFIG, images, written
from tolerances import assert_near
from torch import Tensor
from torch.nn import functional as F
from torch_edge import key_of

from facemix_ops.edge import Bundle, BundleError, EdgeModel


def draw(seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A config and its weights; extreme now and then."""
    generator = np.random.default_rng(seed)

    def pair(low: int, high: int) -> list[int]:
        return generator.integers(low, high + 1, 2).tolist()

    far = seed % 4 == 0  # windows that mostly lie in the padding, strides past the image
    channels, outputs, kernel = int(generator.integers(1, 6)), int(generator.integers(1, 70)), pair(1, 5)
    config = {
        **CONFIG,
        "image_shape": [*pair(1, 24), channels],
        "mean": generator.uniform(0, 1, channels).tolist(),
        "std": generator.uniform(0.1, 1, channels).tolist(),
        "stride": pair(1, 40 if far else 3),
        "padding": pair(0, 30 if far else 4),
        "dilation": pair(1, 6 if far else 2),
        "activation": [None, "relu", ["leaky_relu", 0.3], ["leaky_relu", -2.0]][generator.integers(4)],
        "pool": [None, [pair(1, 4), pair(1, 20 if far else 3), pair(0, 1)]][generator.integers(2)],
        "group_size": int(generator.choice([2, 3, 5, 8])),
        "classes": None,
    }
    shapes = {
        "first.weight": (outputs, channels, *kernel), "first.bias": (outputs,), "last.weight": (3, 4), "last.bias": (3,)
    }  # fmt: skip
    return config, {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def valid(count: int) -> list[int]:
    """The first seeds whose draws fit together."""
    seeds, seed = [], 0
    while len(seeds) < count:
        try:
            Bundle.parse(written(*draw(seed)))
            seeds.append(seed)
        except BundleError:
            pass
        seed += 1
    return seeds


def features(bundle: Bundle, x: Tensor) -> Tensor:
    """What is mixed, in plain PyTorch, in the dtype of x."""
    weight, bias = (torch.from_numpy(t.copy()).to(x.dtype) for t in (bundle.weight, bundle.bias))
    z = F.conv2d(x, weight, bias, bundle.stride, bundle.padding, bundle.dilation)
    if bundle.activation is not None:
        slope = 0.0 if bundle.activation == "relu" else bundle.activation[1]
        z = torch.where(z < 0, z * slope, z)
    return z if bundle.pool is None else F.max_pool2d(z, *bundle.pool)


@pytest.mark.parametrize("seed", valid(60))
def test_random_geometry(seed: int) -> None:
    bundle = Bundle.parse(written(*draw(seed)))
    model, pictures = EdgeModel(bundle), images(2 * bundle.group_size, bundle.image_shape, seed)
    with model.mix(pictures) as request:
        key, rows = key_of(request)
        x = torch.empty(len(pictures), *(bundle.image_shape[i] for i in (2, 0, 1)), dtype=torch.float64)
        mean, std = torch.tensor(bundle.mean).double(), torch.tensor(bundle.std).double()
        x[rows] = ((torch.from_numpy(pictures) / 255.0 - mean) / std).permute(0, 3, 1, 2)

        def mix(t: Tensor) -> Tensor:
            grouped = t.reshape(key.groups, key.group_size, -1)
            y = torch.empty_like(t)
            y[key.order] = torch.einsum("gij,gjf->gif", key.coeffs.to(t.dtype), grouped).view(t.shape)
            return y

        expected, plain = mix(features(bundle, x)), mix(features(bundle, x.float()))
        assert expected.shape[1:] == bundle.features_shape
        assert_near(torch.from_numpy(request.payload), expected, plain)
