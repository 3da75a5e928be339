import numpy as np
import pytest
import torch
from audit_scenes import textures
from facemix.audit.edge import load_edge
from facemix.audit.request import Secrets
from facemix.audit.scene import send
from facemix.edge import load_half
from facemix.edge.blinding import Blinding
from facemix.export import export_edge
from facemix.models import build

import facemix_ops as fo

FACES = textures(6, 2, 1)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    network = build("resnet18", {"num_classes": 5, "in_channels": 1, "width": 0.125}).eval()
    export_edge(tmp_path / "edge", network, (1, 24, 20), name="n", group_size=4, mean=[0.5], std=[0.25], max_coeff=0.8)
    return tmp_path / "edge"


def blinding(file, share=None):
    public = np.ascontiguousarray(textures(8, 1, 9).images.transpose(0, 2, 3, 1))
    return Blinding.of(load_half(file), public, share)


def sent(edge, seed, reuse=None):
    return send(edge, FACES, torch.arange(12), torch.Generator().manual_seed(seed), reuse)


def hidden_behind(request):
    """What is left when the truth is taken off."""
    return request.received.double() - torch.einsum(
        "bn,nchw->bchw", request.truth.weights, request.truth.sources.double()
    )


def test_what_is_sent_is_the_mixture_that_the_truth_says_beneath_fresh_noise(file):
    edge = load_edge(file, blinding=blinding(file, 0.1))
    noise = [hidden_behind(sent(edge, seed)) for seed in (1, 2)]
    for each in noise:
        assert each.std().item() == pytest.approx(edge.blinding.level, rel=0.05)
        assert each.mean().item() == pytest.approx(0, abs=0.05 * edge.blinding.level)
    assert not sent(edge, 1).received.remainder(edge.blinding.step).any()
    together = torch.cat([each.flatten(1) for each in noise])
    assert torch.corrcoef(together).fill_diagonal_(0).abs().max() < 0.3
    weights = sent(edge, 1).truth.weights
    torch.testing.assert_close(weights @ weights.T, 0.01 * torch.eye(12, dtype=torch.float64))
    assert weights.abs().max() <= 0.1 * 0.8


def test_blinders_that_are_used_twice_fall_out_of_a_difference(file):
    edge = load_edge(file, blinding=blinding(file))
    blinders = edge.blinders(3, torch.Generator().manual_seed(5))
    key = fo.MixKey.sample(12, 4, generator=torch.Generator().manual_seed(3))
    first, second = (sent(edge, seed, Secrets(key=key, blinders=blinders)) for seed in (1, 2))
    bare = load_edge(file)
    mixed = [sent(bare, seed, Secrets(key=key)).received for seed in (1, 2)]
    share = edge.blinding.share
    torch.testing.assert_close(first.received - second.received, share * (mixed[0] - mixed[1]), rtol=0, atol=1e-5)


def test_a_photograph_that_is_known_with_its_key_is_hardly_told_from_none(file):
    """The bound that the default share is chosen by: 0.25 standard deviations for a photograph of average energy."""
    edge = load_edge(file, blinding=blinding(file))
    request = sent(edge, 1)
    truth = request.truth
    shift = (truth.weights**2).sum(0) * truth.sources.double().flatten(1).square().sum(1)
    distances = shift.sqrt() / edge.blinding.level
    assert distances.square().mean().sqrt().item() == pytest.approx(0.25, rel=0.2)
