import numpy as np
import pytest
import torch
from audit_scenes import SIZE, textures
from facemix.audit.edge import load_edge
from facemix.audit.scene import Scene, send
from facemix.audit.unmixed_edge import UnmixedEdge
from facemix.edge import load_half
from facemix.export_torch import export_edge_torch
from facemix.models import build

NETWORK = {"num_classes": 5, "in_channels": 1, "width": 0.125}
SETTINGS = {
    "plain": {},
    "noise": {"sigma": 20, "std": 0.25},
    "blur": {"size": 4},
    "anonymizer": {"channels": 1, "width": 4, "mean": 0.5, "std": 0.25},
}


def exported(folder, name, options, pre=1):
    network, path = build(name, options).eval(), folder / "edge.safetensors"
    export_edge_torch(
        path, network, name, options, (1, *SIZE), name="n", group_size=1, mean=[0.5], std=[0.25], pre=pre
    )  # fmt: skip
    return path


@pytest.fixture(params=SETTINGS)
def file(request, tmp_path):
    """An edge of each protection."""
    options = {"protection": request.param, "settings": SETTINGS[request.param]}
    return exported(tmp_path, "protected", {**options, "network": "resnet18", "options": NETWORK})


def test_it_sends_each_image_by_itself(file):
    edge, faces = load_edge(file), textures(6, 2, 1)
    assert isinstance(edge, UnmixedEdge)
    assert edge.group_size == 1
    rows = torch.tensor([5, 0, 7])  # no whole groups of anything
    request = send(edge, faces, rows, torch.Generator().manual_seed(0))
    truth, half = request.truth, load_half(file)
    x = (torch.from_numpy(faces.images[rows.numpy()]) / 255 - 0.5) / 0.25
    torch.testing.assert_close(truth.sources, x)
    assert torch.equal(truth.weights, torch.eye(3, dtype=torch.float64))
    assert truth.group.tolist() == truth.image.tolist() == [0, 1, 2]
    if half.bundle.options["protection"] == "noise":
        assert ((request.received - x) * 0.25 * 255).std().item() == pytest.approx(20, rel=0.1)
    else:
        torch.testing.assert_close(request.received, half.first(x), rtol=1e-4, atol=1e-5)


def test_it_sends_what_the_client_sends(file):
    half, edge, faces = load_half(file), load_edge(file), textures(4, 1, 1)
    with half.mix(np.ascontiguousarray(faces.images.transpose(0, 2, 3, 1))) as request:
        sent = torch.from_numpy(np.array(request.payload))
    received = send(edge, faces, torch.arange(4), torch.Generator().manual_seed(0)).received
    if half.bundle.options["protection"] == "noise":  # another each time
        difference = (received - sent) * 0.25 * 255
        assert difference.std().item() == pytest.approx(20 * 2**0.5, rel=0.1)
    else:
        torch.testing.assert_close(received, sent)


def test_a_request_can_be_asked_for_again_and_trained_on(file):
    edge = load_edge(file)
    scene = Scene(edge, textures(6, 2, 1), textures(6, 2, 2), textures(6, 1, 3))
    first = scene.request(0).received
    torch.testing.assert_close(scene.request(0).received, first, rtol=0, atol=0)
    assert not torch.equal(scene.request(1).received, first)
    torch.nn.Conv2d(1, 1, 3)(first).sum().backward()


def test_where_features_are_sent_they_are_the_sources(tmp_path):
    path = exported(tmp_path, "resnet18", NETWORK, pre=2)
    request = send(load_edge(path), textures(4, 1, 1), torch.arange(4), torch.Generator().manual_seed(0))
    assert request.received.shape[1:] == load_half(path).bundle.features_shape
    assert torch.equal(request.received, request.truth.sources)


def test_there_are_no_coefficients_to_bound(file):
    with pytest.raises(ValueError, match="max_coeff must not be given for an edge that mixes nothing"):
        load_edge(file, max_coeff=0.6)
