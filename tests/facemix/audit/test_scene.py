import importlib

import numpy as np
import pytest
import torch
from audit_scenes import PixelEdge, scene, textures
from facemix.audit.attacks.end_to_end import EndToEnd
from facemix.audit.attacks.group_matching import GroupMatching
from facemix.audit.attacks.key_recovery import KeyRecovery
from facemix.audit.attacks.look import Look
from facemix.audit.edge import load_edge
from facemix.audit.outcome import Outcome, interval
from facemix.audit.request import Secrets, numbered
from facemix.audit.scene import Scene, send
from facemix.data import Labelled, Splits
from facemix.edge import load_half
from facemix.edge.blinding import Blinding
from facemix.edge.torch_half import TorchHalf
from facemix.export import export_edge
from facemix.export_torch import export_edge_torch
from facemix.models import build

import facemix_ops as fo

OPTIONS = {"num_classes": 5, "in_channels": 1, "width": 0.125}


@pytest.fixture(params=["numpy", "torch"])
def file(request, tmp_path):
    """An edge's file, of both kinds."""
    torch.manual_seed(0)
    network, path = build("resnet18", OPTIONS).eval(), tmp_path / "edge.safetensors"
    common = {"name": "n", "group_size": 4, "mean": [0.5], "std": [0.25], "max_coeff": 0.8}
    if request.param == "numpy":
        export_edge(path, network, (1, 24, 20), **common)
    else:
        export_edge_torch(path, network, "resnet18", OPTIONS, (1, 24, 20), pre=2, **common)
    return path


def test_an_edge_sends_the_mixture_of_its_first_part_that_the_truth_says(file):
    edge, faces = load_edge(file), textures(6, 2, 1)
    request = send(edge, faces, torch.arange(12), torch.Generator().manual_seed(0))
    truth = request.truth
    expected = torch.einsum("bn,nchw->bchw", truth.weights, truth.sources.double())
    torch.testing.assert_close(request.received.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(truth.weights @ truth.weights.T, torch.eye(12, dtype=torch.float64))
    assert truth.weights.abs().max() <= 0.8
    for row in range(12):  # a row holds the four images of its group, and no other
        members = (truth.weights[row] != 0).nonzero().flatten()
        others = (truth.group == truth.group[row]).nonzero().flatten()
        assert len(members) == len(others) == 4
        assert (truth.weights[others][:, members] != 0).all()


def test_who_shares_a_group_is_drawn_for_each_request(file):
    edge, faces, drawn = load_edge(file), textures(6, 2, 1), []
    for seed in (1, 2):
        groups = send(edge, faces, torch.arange(12), torch.Generator().manual_seed(seed)).truth.group_of_source
        drawn.append({tuple((groups == group).nonzero().flatten().tolist()) for group in range(3)})
    assert drawn[0] != drawn[1]


def test_an_edge_sends_what_the_client_sends(file):
    """Under one matrix, which is all that differs: whatever the key, its span is the sources'."""
    half, edge, faces = load_half(file), load_edge(file), textures(4, 1, 1)
    pixels = np.ascontiguousarray(faces.images.transpose(0, 2, 3, 1))
    with half.mix(pixels) as request:
        sent = torch.from_numpy(np.array(request.payload)).flatten(1).double()
    sources = edge.clean(torch.from_numpy(faces.images)).flatten(1).double()
    torch.testing.assert_close(sent.T @ sent, sources.T @ sources, rtol=0, atol=1e-4)


@pytest.fixture
def calibrated(file, tmp_path):
    """A file that says int8, of either kind."""
    torch.manual_seed(0)
    common = {"name": "n", "group_size": 4, "mean": [0.5], "std": [0.25], "wire_dtype": "int8"}
    common["calibration"] = np.ascontiguousarray(textures(8, 1, 9).images.transpose(0, 2, 3, 1))
    network, path = build("resnet18", OPTIONS).eval(), tmp_path / "calibrated.safetensors"
    if isinstance(load_half(file), TorchHalf):
        export_edge_torch(path, network, "resnet18", OPTIONS, (1, 24, 20), pre=2, **common)
    else:
        export_edge(path, network, (1, 24, 20), **common)
    return path


def received(edge):
    return send(edge, textures(6, 2, 1), torch.arange(12), torch.Generator().manual_seed(0)).received


@pytest.mark.parametrize(("wire_dtype", "bits"), [("float16", 10), ("bfloat16", 7)])
def test_what_is_received_was_rounded_on_the_wire(calibrated, wire_dtype, bits):
    whole, rounded = (received(load_edge(calibrated, wire_dtype=name)) for name in ("float32", wire_dtype))
    torch.testing.assert_close(rounded, whole, rtol=2.0 ** -(bits + 1), atol=1e-6)
    assert not torch.equal(rounded, whole)
    assert torch.equal(rounded.to(getattr(torch, wire_dtype)).float(), rounded)


def test_an_edge_sends_what_its_file_says(calibrated):
    scales = torch.tensor(load_half(calibrated).bundle.scales).view(-1, 1, 1)
    whole, rounded = (received(load_edge(calibrated, wire_dtype=name)) / scales for name in ("float32", None))
    torch.testing.assert_close(rounded, rounded.round(), rtol=0, atol=1e-4)
    assert rounded.abs().max() <= 127.001
    inside = whole.abs() < 127
    assert inside.float().mean() > 0.99
    assert (rounded - whole).abs()[inside].max() < 0.501


def test_an_edge_is_not_told_to_send_what_it_cannot(file, calibrated):
    with pytest.raises(ValueError, match="wire_dtype of this edge must be float32 or float16 or bfloat16, got 'int8'"):
        load_edge(file, wire_dtype="int8")
    blinding = Blinding(share=0.1, energy=1.0)
    assert load_edge(calibrated, blinding=blinding)  # whose file says int8
    with pytest.raises(ValueError, match="wire_dtype of this edge must be float32 with blinding, got 'int8'"):
        load_edge(calibrated, blinding=blinding, wire_dtype="int8")


def test_reused_secrets_are_reused():
    edge, faces = PixelEdge(4), textures(8, 1, 1)
    key = fo.MixKey.sample(8, 4, generator=torch.Generator().manual_seed(3))
    requests = [
        send(edge, faces, torch.arange(8), torch.Generator().manual_seed(seed), Secrets(key=key)) for seed in (1, 2)
    ]
    torch.testing.assert_close(requests[0].received, requests[1].received)


def test_a_request_is_the_same_when_asked_again_and_another_is_not():
    one = scene(PixelEdge(4))
    torch.testing.assert_close(one.request(0).received, one.request(0).received)
    assert not torch.equal(one.request(0).received, one.request(1).received)
    assert len(one.rows(0).unique()) == len(one.rows(0)) == 32


def test_no_photograph_is_in_two_sets():
    victims, mine = textures(4, 2, 1), textures(4, 2, 2)
    both = Labelled(np.concatenate((mine.images, victims.images[:1])), torch.zeros(9, dtype=torch.int64))
    with pytest.raises(ValueError, match="must be in one set only, got one in victims and attacker"):
        Scene(PixelEdge(4), victims, both, textures(4, 1, 3))
    with pytest.raises(ValueError, match="must be in one set only, got one in victims and gallery"):
        Scene(PixelEdge(4), victims, mine, textures(4, 2, 1))


def test_there_must_be_a_group_of_victims():
    with pytest.raises(ValueError, match="at least a group of victims, 8, got 4"):
        Scene(PixelEdge(8), textures(2, 2, 1), textures(2, 2, 2), textures(2, 1, 3))


@pytest.mark.parametrize("known", [True, False], ids=["people that the training set knows", "strangers"])
def test_the_sets_come_from_the_splits(known):
    train, test = textures(6, 5, 1), textures(6, 4, 2)
    if not known:
        test = Labelled(test.images, test.identity + 6, test.attributes)
    nobody = train.take(torch.empty(0, dtype=torch.int64))
    # One photograph of the training set is among the tests as well: it may be attacked, and is nobody's any more.
    doubled = Labelled(np.concatenate((train.images, test.images[:1])), torch.cat((train.identity, test.identity[:1])))
    found = Scene.of(PixelEdge(4), Splits(doubled, nobody, test), victims=8)
    assert len(found.victims) == 8
    assert set(found.gallery.identity.tolist()) == set(found.victims.identity.tolist())
    assert len(found.gallery.identity.unique()) == len(found.gallery)
    assert len(found.attacker) + len(found.gallery) <= 31 + (0 if known else 12)


@pytest.mark.parametrize(
    ("floor", "result", "ceiling", "recovered"),
    [(0.2, 0.6, 1.0, 0.5), (0.2, 0.1, 1.0, 0.0), (0.2, 1.1, 1.0, 1.0), (0.5, 0.5, 0.5, None), (0.5, 0.9, 0.4, None)],
)
def test_recovered_is_the_share_between_floor_and_ceiling(floor, result, ceiling, recovered):
    outcome = Outcome("done", measure="m", floor=floor, result=result, ceiling=ceiling, says="s")
    assert outcome.recovered == pytest.approx(recovered)


def test_an_outcome_that_is_not_done_says_why_and_recovers_nothing():
    assert Outcome("skipped", "no time").recovered is None
    assert Outcome("not converged", "out of steps", "m", floor=0.0, result=0.1, ceiling=1.0).recovered is None
    with pytest.raises(ValueError, match="reason must say why"):
        Outcome("not converged")
    with pytest.raises(ValueError, match="ceiling must be finite"):
        Outcome("done", measure="m", floor=0.0, result=1.0, says="s")


def test_the_interval_holds_the_mean():
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = interval(values, 0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 * 1 / 20, rel=0.15)
    assert interval(values, 0) == (low, high)


@pytest.mark.parametrize("clusters", [4, 8, 24])
def test_the_interval_of_values_that_depend_on_each_other_holds_the_truth(clusters):
    random, held, too_narrow = np.random.default_rng(0), 0, 0
    of = np.arange(8 * clusters) % clusters
    for seed in range(300):
        values = random.normal(size=clusters)[of] + random.normal(size=len(of))
        low, high = interval(values, seed, of)
        held += low <= 0 <= high
        low, high = interval(values, seed)
        too_narrow += not low <= 0 <= high
    assert 0.92 <= held / 300 <= 0.985
    assert too_narrow / 300 > 0.25  # as if they were independent


def test_of_one_cluster_no_interval_is_drawn_and_none_leaves_what_the_values_span():
    assert interval([0.1, 0.4], 0, [3, 3]) is None
    assert interval([0.25], 0) == (0.25, 0.25)
    low, high = interval([0.0, 0.0, 1.0, 1.0], 0, [0, 0, 1, 1])
    assert (low, high) == (0, 1)


def test_rows_of_several_requests_are_numbered_by_group():
    groups = [torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1]), torch.tensor([5, 5])]
    assert numbered(groups).tolist() == [0, 1, 0, 3, 2, 3, 4, 4]


@pytest.mark.parametrize("attack", [Look, KeyRecovery, GroupMatching, EndToEnd])
def test_rows_and_sources_of_a_group_are_resampled_together(attack, monkeypatch):
    module, seen = importlib.import_module(attack.__module__), []
    monkeypatch.setattr(module, "interval", lambda values, seed, clusters=None: seen.append((values, clusters)))
    attack().run(scene(PixelEdge(4)), lambda done: None)
    ((values, clusters),) = seen
    assert len(values) == len(clusters)
    assert set(np.bincount(clusters)) == {4}


def test_a_large_training_set_is_drawn_from(monkeypatch):
    monkeypatch.setattr("facemix.audit.scene.ATTACKER", 20)
    train, test = textures(6, 5, 1), textures(6, 4, 2)
    nobody = train.take(torch.empty(0, dtype=torch.int64))
    found = Scene.of(PixelEdge(4), Splits(train, nobody, test), victims=8)
    assert len(found.attacker) + len(found.gallery) == 20


def test_every_request_has_secrets_of_its_own():
    one = scene(PixelEdge(4))
    weights = [one.request(number).truth.weights.flatten().sort().values for number in (0, 1)]  # in whatever order
    assert not torch.allclose(*weights)


def test_photographs_that_are_there_twice_are_used_once():
    train, test = textures(6, 5, 1), textures(6, 4, 2)
    nobody = train.take(torch.empty(0, dtype=torch.int64))
    twice = train.take(torch.arange(30).repeat_interleave(2))
    found = Scene.of(PixelEdge(4), Splits(twice, nobody, test), victims=8)
    assert len(found.attacker) + len(found.gallery) == 30
