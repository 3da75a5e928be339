import pytest
import torch
from audit_scenes import HidingEdge, PixelEdge, textures
from facemix.audit.edge import load_edge
from facemix.audit.noiseless import Noiseless, noise
from facemix.audit.scene import send
from facemix.edge.blinding import Blinding
from facemix.export import export_edge
from facemix.export_torch import export_edge_torch
from facemix.models import build

FACES, ROWS = textures(6, 2, 1), torch.arange(8)
NETWORK = {"num_classes": 5, "in_channels": 1, "width": 0.125}


def seeded():
    return torch.Generator().manual_seed(3)


def test_of_a_blinded_edge_it_sends_the_mixture_beneath(tmp_path):
    network, path = build("resnet18", NETWORK).eval(), tmp_path / "edge.safetensors"
    export_edge(path, network, (1, 24, 20), name="n", group_size=4, mean=[0.5], std=[0.25])
    edge = load_edge(path, blinding=Blinding(share=0.2, energy=0.5))
    clear, hidden = send(Noiseless(edge), FACES, ROWS, seeded()), send(edge, FACES, ROWS, seeded())
    assert torch.equal(clear.truth.weights, hidden.truth.weights)
    mixed = torch.einsum("bn,nchw->bchw", clear.truth.weights, clear.truth.sources.double())
    torch.testing.assert_close(clear.received.double(), mixed, rtol=0, atol=1e-5)
    assert noise(edge, FACES, ROWS, seeded()).std() == pytest.approx(edge.blinding.level, rel=0.05)


def test_of_an_edge_that_adds_noise_it_sends_the_image(tmp_path):
    options = {"protection": "noise", "settings": {"sigma": 20, "std": 0.25}, "network": "resnet18", "options": NETWORK}
    network, path = build("protected", options).eval(), tmp_path / "edge.safetensors"
    export_edge_torch(
        path, network, "protected", options, (1, 24, 20), name="n", group_size=1, mean=[0.5], std=[0.25], pre=1
    )  # fmt: skip
    edge = load_edge(path)
    request = send(Noiseless(edge), FACES, ROWS, seeded())
    torch.testing.assert_close(request.received, request.truth.sources)
    assert noise(edge, FACES, ROWS, seeded()).std() == pytest.approx(20 / 255 / 0.25, rel=0.05)


@pytest.mark.parametrize(("edge", "expected"), [(PixelEdge(4), 0), (HidingEdge(4, 0.5), 0.5), (HidingEdge(1, 2), 2)])
def test_noise_is_what_is_added(edge, expected):
    assert noise(edge, FACES, ROWS, seeded()).std() == pytest.approx(expected, rel=0.1)
