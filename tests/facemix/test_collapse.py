"""One matrix in the place of the cloud part: exact where that is linear, by the definition where not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from facemix.collapse import Collapse, LowRank, collapse
from facemix.collapse.jacobian import average_jacobian
from facemix.collapse.matrix import fitted, through
from facemix.collapse.trial import Trial
from facemix.cost import partition_cost
from facemix.models import build
from facemix.partition import Parts, partition
from torch import Tensor, nn

import facemix_ops as fo

SHAPE = (1, 32, 32)


def network(name: str = "resnet18", **options: Any) -> nn.Module:
    """Random, float64, with batch statistics that are not the trivial ones."""
    model = build(name, {"num_classes": 5, "in_channels": 1, "width": 0.0625, **options}).double()
    with torch.no_grad():
        model(torch.randn(16, *SHAPE).double())
    return model.eval()


def images(count: int) -> Tensor:
    return torch.randn(count, *SHAPE, dtype=torch.float64)


def own_labels(model: nn.Module, *counts: int) -> list[tuple[Tensor, Tensor]]:
    """Batches that the network is always right about, without the mix."""
    with torch.no_grad():
        return [(batch, model(batch).argmax(1)) for batch in map(images, counts)]


@pytest.mark.parametrize("count", [1, 2, 31, 37])
def test_average_jacobian_by_the_definition(count: int) -> None:
    weight = torch.randn(3, 10, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) ** 2 @ weight.T)

    points = torch.randn(count, 2, 5, dtype=torch.float64)
    expected = torch.zeros(3, 10, dtype=torch.float64)
    for point in points:
        expected += torch.autograd.functional.jacobian(function, point[None]).reshape(3, 10) / count
    torch.testing.assert_close(average_jacobian(function, points), expected)


@pytest.mark.parametrize(
    ("name", "options", "outputs"),
    [
        ("resnet18", {}, 5),
        ("resnet18", {"num_classes": 40}, 32),  # more scores than the cloud has outputs
        ("resnet18", {"head": 7}, 32),
        ("resnet18", {"pre": 2, "post": 2}, 32),
        ("resnet18", {"post": 3}, 16 * 2 * 2),
        ("vgg16", {}, 5),
        ("vgg16", {"pre": 3, "post": 3, "width": 0.03125}, 16 * 7 * 7),
    ],
)
def test_a_linear_cloud_collapses_exactly(name: str, options: dict[str, int], outputs: int) -> None:
    model = network(name, activation="identity", **options)
    cut = {side: options.get(side, 1) for side in ("pre", "post")}
    found = collapse(model, images(3), own_labels(model, 4, 3), **cut)
    x = images(2)
    with torch.no_grad():
        torch.testing.assert_close(found.network(x), model(x))
    assert found.relative_error < 1e-9
    assert (found.accuracy, found.collapsed_accuracy, found.agreement, found.self_agreement) == (1, 1, 1, 1)
    cost = partition_cost(model, SHAPE, group_size=1, **cut)
    assert found.shape == (outputs, torch.Size(cost.edge_first.output_shape).numel())
    last = 0 if outputs == 5 else cost.edge_last.multiply_adds
    assert found.collapsed_multiply_adds == cost.edge_first.multiply_adds + found.shape[0] * found.shape[1] + last


def test_of_a_linear_cloud_the_mix_changes_nothing_but_the_offset() -> None:
    model, x = network(activation="identity"), images(4)
    plain, mixed = (collapse(model, images(8), own_labels(model, 4), group_size=size) for size in (1, 4))
    with torch.no_grad():
        difference = mixed.network(x) - plain.network(x)
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))
    assert mixed.self_agreement <= 1
    assert mixed.cost.group_size == 4


def test_the_matrix_is_the_derivative_of_the_mixed_network() -> None:
    """By an image's own features, mean over the images: what autograd says of mix, cloud part and un-mix at once."""
    parts = Parts(*(part.eval() for part in partition(network())))
    features = parts.edge_first(images(8)).detach()
    key = fo.MixKey.sample(8, 4)
    matrix = fitted(parts, features, key, progress=False)
    last = parts.edge_last.fc
    whole = torch.autograd.functional.jacobian(lambda x: last(through(parts.cloud, x, key)), features)
    expected = sum(whole[n, :, n] for n in range(8)) / 8
    torch.testing.assert_close(matrix.weight, expected.flatten(1))
    with torch.no_grad():
        given = last(through(parts.cloud, features, key)).mean(0)
        torch.testing.assert_close(matrix.outputs(features).mean(0), given)
        torch.testing.assert_close(matrix.mean, given)


def test_of_a_network_that_bends_keys_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh one each time, below the bound."""
    sample, bounds = fo.MixKey.sample, []

    def watched(*sizes: int, max_coeff: float | None = None, **options: Any) -> fo.MixKey:
        bounds.append(max_coeff)
        return sample(*sizes, max_coeff=max_coeff, **options)

    monkeypatch.setattr(fo.MixKey, "sample", watched)
    model = network(num_classes=9)
    found = collapse(model, images(4), own_labels(model, 32), group_size=4, max_coeff=0.7)
    assert found.self_agreement < 1
    assert set(bounds) == {0.7}


def test_a_network_that_bends_is_not_matched() -> None:
    model = network(num_classes=9)
    found = collapse(model, images(16), own_labels(model, 64))
    assert found.accuracy == 1
    assert found.collapsed_accuracy == found.agreement < 0.99
    assert not found.matched
    assert found.verdict.startswith("The cloud part is not matched by one matrix")


def test_low_rank() -> None:
    """Scores that depend on two numbers need no more than rank 2, and these are given again."""
    model = network(activation="identity", num_classes=12)
    with torch.no_grad():
        model.fc.weight.copy_(torch.randn(12, 2).double() @ torch.randn(2, 32).double())
    found = collapse(model, images(32), own_labels(model, 64), seed=1)
    low = found.low_rank
    assert low is not None
    assert low.rank <= 2
    assert low.multiply_adds == low.rank * sum(found.shape)
    assert low.agreement >= 0.99
    x = images(40)
    with torch.no_grad():
        decided = (low.network(x).argmax(1) == model(x).argmax(1)).double().mean()
        assert decided > 0.9
        if low.rank == 2:
            torch.testing.assert_close(low.network(x), model(x))


def test_shares_by_hand() -> None:
    """Two attributes of four images; of the second only one is known, and of a third none."""
    labels = torch.tensor([[1, -1, -1], [0, -1, -1], [1, 0, -1], [1, -1, -1]], dtype=torch.int8)
    yes, no = [0.0, 1.0], [1.0, 0.0]
    scores = torch.tensor([[*yes, *no, *no], [*yes, *no, *no], [*no, *no, *no], [*yes, *yes, *no]])
    others = torch.tensor([[*yes, *yes, *no], [*no, *no, *yes], [*no, *yes, *no], [*no, *yes, *no]])
    trial = Trial([scores], torch.zeros(4, 1), labels)
    assert trial.decisions == 5
    assert trial.accuracy(scores) == (2 / 4 + 1 / 1) / 2
    assert trial.accuracy(others) == (2 / 4 + 0 / 1) / 2
    assert trial.agreement(scores, others) == (2 / 4 + 0 / 1) / 2
    assert trial.chance == (3 / 4 + 1 / 1) / 2


def test_shares_of_classes_by_hand() -> None:
    labels = torch.tensor([2, 0, 2, -1, 1])
    scores = torch.eye(3)[[2, 2, 2, 2, 1]]
    trial = Trial([scores], torch.zeros(5, 1), labels)
    assert (trial.decisions, trial.accuracy(scores), trial.chance) == (4, 3 / 4, 2 / 4)
    assert trial.agreement(scores, torch.eye(3)[[0, 2, 2, 0, 1]]) == 3 / 4
    assert trial.relative_error(2 * scores) == 1
    assert trial.relative_error(scores - torch.eye(3)[[0]]) == pytest.approx(1)


def test_attributes_and_rows_that_only_fill() -> None:
    """Two-way heads; rows of no known label do not count, wherever they are."""
    model, x = network(num_classes=6), images(8)
    with torch.no_grad():
        labels = model(x).reshape(8, 3, 2).argmax(2).to(torch.int8)
    labels[5:] = -1
    results = []
    for noise in (0.0, 9.0):
        batch = x.clone()
        batch[5:] += noise
        results.append(collapse(model, x, [(batch, labels)]).as_json())
    assert results[0]["decisions"] == 15
    assert results[0]["accuracy"] == 1
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def found() -> Collapse:
    torch.manual_seed(0)
    model = network()
    return collapse(model, images(4), own_labels(model, 8), group_size=2, max_coeff=0.9)


def test_json(found: Collapse) -> None:
    values = json.loads(json.dumps(found.as_json()))
    assert values["group_size"] == 2
    assert values["images"] == 4
    assert values["decisions"] == 8
    assert values["shape"] == [5, 4 * 8 * 8]
    assert values["matrix_multiply_adds"] == 5 * 256
    assert values["cloud_multiply_adds"] == found.cost.cloud.multiply_adds
    assert values["edge_multiply_adds"] == found.cost.edge_multiply_adds
    assert values["bytes_saved"] == 4 * (256 + 32)
    assert values["matched"] is found.matched
    assert values["verdict"] == found.verdict
    for name in ("accuracy", "collapsed_accuracy", "agreement", "self_agreement", "chance"):
        assert 0 <= values[name] <= 1


def test_the_same_seed_gives_the_same_figures(found: Collapse) -> None:
    torch.manual_seed(0)
    model = network()
    again = collapse(model, images(4), own_labels(model, 8), group_size=2, max_coeff=0.9)
    assert again.as_json() == found.as_json()


def test_verdicts(found: Collapse) -> None:
    good = replace(found, accuracy=0.951, collapsed_accuracy=0.945, chance=0.5, low_rank=None)
    assert good.matched
    assert good.verdict == (
        "The cloud part is matched by one matrix: 94.5% of the decisions are right with it, 95.1% with the network. "
        "Running it on the edge is cheaper in all, and leaks nothing: the edge would compute "
        f"{good.collapsed_multiply_adds / 1e6:.2f} M multiply-adds an image instead of "
        f"{good.cost.edge_multiply_adds / 1e6:.2f} M, the cloud none instead of "
        f"{good.cost.cloud.multiply_adds / 1e6:.2f} M, and 1152 bytes an image need not be sent."
    )
    low = LowRank(3, 783, 0.94, 0.99, nn.Sequential())
    assert replace(good, low_rank=low).verdict == (
        good.verdict + " At rank 3 the matrix takes 783 multiply-adds instead of 1280, and 94.0% are right."
    )
    wide = replace(good, shape=(500, 256))
    times = wide.collapsed_multiply_adds / wide.cost.edge_multiply_adds
    assert times > 2
    assert f"leaks nothing and needs no cloud, but is {times:.1f} times the work there" in wide.verdict
    with_the_rest = replace(good, shape=(2 * good.cost.edge_multiply_adds - 1, 1))
    times = with_the_rest.collapsed_multiply_adds / good.cost.edge_multiply_adds
    assert f"but is {times:.1f} times the work there" in with_the_rest.verdict
    huge = replace(good, shape=(good.cost.cloud.multiply_adds, 1))
    assert huge.verdict.endswith("that may as well run on the edge itself, and leak nothing.")
    lost = replace(good, collapsed_accuracy=0.851)
    assert not lost.matched
    assert lost.verdict.endswith("so that it loses 10.0 points.")
    blind = replace(good, accuracy=0.505, collapsed_accuracy=0.5)
    assert not blind.matched
    assert blind.verdict.startswith("There is nothing to match: 50.5% of the network's decisions are right, and 50.0%")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": images(0)}, r"collapse: images must be \[N, C, H, W\] with N at least 1, got \[0, 1, 32, 32\]"),
        ({"images": images(1)[0]}, r"got \[1, 32, 32\]"),
        ({"tested": []}, "collapse: tested must have images with labels, got none"),
        ({"tested": [(images(2), torch.tensor([-1, -1]))]}, "collapse: tested must have images with labels, got none"),
        ({"group_size": 4}, "batch must be a multiple of group_size = 4"),
        ({"group_size": 0}, "group_size must be between 2 and 64, got 0"),
        ({"pre": 11}, "pre must be between 1 and 9, got 11"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    model = network()
    arguments: dict[str, Any] = {"images": images(2), "tested": own_labels(model, 2), **change}
    with pytest.raises(ValueError, match=message):
        collapse(model, **arguments)


def test_a_network_that_diverged_is_refused() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("conv1.weight").fill_(float("nan"))
    with pytest.raises(ValueError, match="collapse: features and derivatives must be finite, got others"):
        collapse(model, images(4), own_labels(model, 4))
