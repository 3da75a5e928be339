"""Patches with keys of their own: cut on the edge, mixed apart, put together after the un-mix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_scenes import textures
from facemix.audit.edge import load_edge
from facemix.audit.scene import send
from facemix.blinders_offline import write_blinders
from facemix.cli import main
from facemix.cloud.model import CloudModel
from facemix.collapse import collapsed
from facemix.cost import partition_cost
from facemix.data import Labelled
from facemix.demo.cloud_process import cloud_process
from facemix.edge import BlindedHalf, Client, load_half
from facemix.export import export_cloud
from facemix.export_torch import export_edge_torch
from facemix.infer.local import LocalModel
from facemix.models import build
from facemix.models.patches import Patches, PatchMean
from facemix.partition import partition
from facemix.training.mixed_network import MixedNetwork
from tiny_experiment import OPTIONS as TINY
from torch import nn

import facemix_ops as fo

OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "identity", "patches": 2}
SHAPE, GROUP = (1, 32, 32), 8


@pytest.fixture
def network():
    """One whose cloud is linear, without a constant: its mixtures un-mix exactly."""
    model = build("resnet18", OPTIONS).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture
def files(network, tmp_path):
    common = {"name": "middle", "group_size": GROUP, "mean": [0.5], "std": [0.25], "max_coeff": 0.8}
    export_edge_torch(tmp_path / "edge", network, "resnet18", OPTIONS, SHAPE, pre=1, **common)
    export_cloud(tmp_path / "cloud", network, "resnet18", OPTIONS, SHAPE, name="middle")
    return tmp_path


def pixels(faces: Labelled):
    return np.ascontiguousarray(faces.images.transpose(0, 2, 3, 1))


def test_patches_are_parts_of_an_image_one_after_the_other():
    x = torch.arange(2 * 3 * 5 * 4).view(2, 3, 5, 4).float()
    cut = Patches(2)(x)
    assert cut.shape == (8, 3, 3, 2)  # a line of zeros below the fifth
    torch.testing.assert_close(cut[4], x[1, :, :3, :2])
    torch.testing.assert_close(cut[7, :, :2], x[1, :, 3:, 2:])
    assert not cut[7, :, 2].any()
    torch.testing.assert_close(PatchMean(2)(cut)[1], cut[4:].mean(0))


def test_no_more_patches_than_pixels():
    assert Patches(4)(torch.zeros(1, 3, 5, 4)).shape == (16, 3, 2, 1)
    with pytest.raises(ValueError, match="Patches: patches must be no more than pixels, 5 x 4, got 5"):
        Patches(5)(torch.zeros(1, 3, 5, 4))


def test_the_network_is_the_mean_over_its_patches(network):
    x = torch.randn(3, *SHAPE)
    first, cloud, last = partition(network)
    whole = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)(x)
    quarters = [whole[:, :, r : r + 4, c : c + 4] for r in (0, 4) for c in (0, 4)]
    torch.testing.assert_close(network(x), network.fc(torch.stack([cloud(q) for q in quarters]).mean(0)))
    torch.testing.assert_close(network(x), last(cloud(first(x))))


def test_mixed_patches_unmix_to_the_images(network):
    x = torch.randn(4, *SHAPE)
    key = fo.MixKey.sample(16, GROUP, generator=torch.Generator().manual_seed(0))
    mixed = MixedNetwork(network, 1, 1).eval()
    torch.testing.assert_close(mixed(x, key), network(x), rtol=1e-4, atol=1e-4)


def test_the_edge_sends_patches_and_the_cloud_takes_them(files, faces):
    half, images = load_half(files / "edge"), pixels(faces)[:GROUP]
    assert half.rows_per_image == 4
    expected = LocalModel(half, files / "cloud").classify(images).scores
    with cloud_process(files / "cloud") as address, Client(half, address) as client:
        answer = client.classify(images)
    np.testing.assert_allclose(answer.scores, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert answer.cost.rows == 4 * GROUP


def test_patches_can_be_blinded(files, faces):
    half, cloud, images = load_half(files / "edge"), CloudModel(files / "cloud"), pixels(faces)[:GROUP]
    pool = write_blinders(files / "pool", half, cloud, images, 4 * GROUP)
    assert pool.blinding.share == pytest.approx(0.25 / (4 * 8 * 4 * 4) ** 0.5)  # of all that is sent for an image
    with BlindedHalf(half, pool).mix(images) as request:
        scores = request.classify(cloud.run(request.payload)).scores
    expected = LocalModel(half, files / "cloud").classify(images).scores
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    assert pool.left == 0


def test_groups_of_patches_follow_from_the_images(files, faces):
    half, images = load_half(files / "edge"), pixels(faces)[:GROUP]
    groups = []
    for order in (range(GROUP), range(GROUP)[::-1]):
        with half.mix(images[list(order)]) as request:
            assert request.payload.shape == (4 * GROUP, 8, 4, 4)
            groups.append(request._key.rows.reshape(GROUP, 4)[list(order)] // GROUP)
    np.testing.assert_array_equal(*groups)
    assert any(len(set(of)) > 1 for of in groups[0].tolist())  # those of an image are apart


def test_an_audit_sees_patches_and_knows_whose_they_are(files):
    faces = textures(8, 1, 1)
    resized = Labelled(faces.images[:, :, :20, :20].repeat(2, 2).repeat(2, 3)[:, :, :32, :32], faces.identity)
    request = send(load_edge(files / "edge"), resized, torch.arange(8), torch.Generator().manual_seed(0))
    truth = request.truth
    assert truth.image.tolist() == [image for image in range(8) for _ in range(4)]
    expected = torch.einsum("bn,nchw->bchw", truth.weights, truth.sources.double())
    torch.testing.assert_close(request.received.double(), expected, rtol=0, atol=1e-5)
    assert all(len({truth.image[n].item() for n in row.nonzero()}) > 2 for row in truth.weights)


def test_a_collapsed_network_takes_the_patches_of_an_image_together(monkeypatch):
    """Whatever number of rows it takes at once."""
    network = build("resnet18", {**OPTIONS, "patches": 3}).eval()
    images = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(collapsed, "BATCH", 5)
    found = collapsed.collapse(network, images, [(images, network(images).argmax(1))], group_size=4, max_coeff=0.8)
    assert (found.accuracy, found.collapsed_accuracy) == (1, 1)


def test_what_patches_cost_is_counted(network):
    cut = partition_cost(network, SHAPE, group_size=GROUP)
    whole = partition_cost(build("resnet18", {**OPTIONS, "patches": 1}), SHAPE, group_size=GROUP)
    assert cut.edge_first.output_bytes == whole.edge_first.output_bytes
    assert cut.cloud.output_bytes == 4 * whole.cloud.output_bytes
    assert cut.mix_multiply_adds == GROUP * (cut.edge_first.output_bytes + cut.cloud.output_bytes) // 4


def test_cuts_that_have_no_patches_are_refused():
    with pytest.raises(ValueError, match="patches must be 1 where pre is more, got 2 and 3"):
        build("resnet18", {**OPTIONS, "pre": 3})
    with pytest.raises(ValueError, match="options must suit vgg16"):
        build("vgg16", {"patches": 2})


def test_an_experiment_with_patches_runs_to_its_end(tmp_path: Path):
    options = ["--mix.patches=2", "--linear_control=false", "--longer_control=false"]
    options += ["--mixed.epochs=1", "--baseline.epochs=1"]
    assert main(["train", *TINY, *options, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "seed-0" / "results.json").read_text())
    assert found["settings"]["mix"]["patches"] == 2
    assert load_half(tmp_path / "seed-0" / "edge.safetensors").rows_per_image == 4
