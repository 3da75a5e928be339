"""Counting the parts of a partition, and the paper's tables."""

from __future__ import annotations

import json

import pytest
import torch
from facemix.cli import main
from facemix.cost import partition_cost
from facemix.cost.paper import Cell, Row, paper_tables
from facemix.models import build
from torch import nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, bias=False)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv2(torch.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


def test_counts_by_hand() -> None:
    model = Small()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cost = partition_cost(model, (3, 7, 9), pre="conv1", post="fc", group_size=4)
    first, cloud, last = cost.edge_first, cost.cloud, cost.edge_last
    assert (first.parameters, first.multiply_adds, first.output_shape) == (4 * 27 + 4, 63 * 4 * 27, (4, 7, 9))
    assert (cloud.parameters, cloud.multiply_adds, cloud.output_shape) == (6 * 36, 3 * 4 * 6 * 36, (6,))
    assert (last.parameters, last.multiply_adds, last.output_shape) == (35, 30, (5,))
    assert cost.mix_multiply_adds == 4 * (4 * 63 + 6)
    assert cost.edge_parameters == first.parameters + last.parameters
    assert cost.edge_share == (6804 + 30 + 1032) / (6804 + 2592 + 30)
    assert first.output_bytes == 4 * 252
    for name, tensor in model.state_dict().items():  # the model is left as it was
        assert torch.equal(tensor, weights[name])


@pytest.mark.parametrize("head", [0, 16])
@pytest.mark.parametrize("cut", [(1, 3), (2, 1), (5, 2)])
def test_the_cut_moves_work_and_loses_none(cut: tuple[int, int], head: int) -> None:
    model = build("resnet18", {"width": 0.125, "num_classes": 6, "head": head})
    costs = [partition_cost(model, (3, 64, 48), pre=pre, post=post) for pre, post in ((1, 1), cut)]
    assert costs[0].edge_last.parameters == (64 * head + head + head * 6 + 6 if head else 64 * 6 + 6)
    assert costs[1].edge_first.parameters + costs[1].edge_last.parameters > costs[0].edge_parameters
    assert costs[0].whole_multiply_adds == costs[1].whole_multiply_adds
    parameters = [cost.edge_parameters + cost.cloud.parameters for cost in costs]
    norms = sum(
        p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters(recurse=False)
    )
    assert parameters == [sum(p.numel() for p in model.parameters()) - norms] * 2


def test_refusals() -> None:
    model = build("resnet18", {"width": 0.125})
    with pytest.raises(ValueError, match="pre must be between 1 and 9, got 10"):
        partition_cost(model, (3, 32, 32), pre=10)
    with pytest.raises(ValueError, match=r"the model must take images of image_shape, got \(1, 32, 32\): "):
        partition_cost(model, (1, 32, 32))
    with pytest.raises(ValueError, match=r"group_size at least 1, got .* and 0"):
        partition_cost(model, (3, 32, 32), group_size=0)


@pytest.fixture(scope="module")
def tables() -> dict[str, list[Row]]:
    return paper_tables()


def test_the_papers_tables_to_the_printed_digit(tables: dict[str, list[Row]]) -> None:
    """What differs is known, and says why: two figures of other people's work, and one that the paper rounds
    down."""
    differing = {
        (row.method, name)
        for rows in tables.values()
        for row in rows
        for name, cell in row.cells.items()
        if not cell.equal
    }
    assert differing == {
        ("Tramer et al.", "Computation (on edge)"),
        ("Face Anonymizer", "Edge FLOPs"),
        ("Ours, after conv1-2", "Transmission size"),
    }
    for rows in tables.values():
        for row in rows:
            assert bool(row.why) == any((row.method, name) in differing for name in row.cells)
    (ours,) = (row for row in tables["Table 1"] if row.method == "Ours, after conv1-2")
    assert ours.cells["Transmission size"] == Cell("3.1 MB", "3.0 MB")


def test_baselines_cost_the_edge_nothing_but_for_the_anonymizer(tables: dict[str, list[Row]]) -> None:
    rows = {row.method: {name: cell.ours for name, cell in row.cells.items()} for row in tables["Tables 2 and 3"]}
    for method in ("Baseline (all on Cloud)", "Adding Noise", "Blurring"):
        assert rows[method] == {"Edge Params": "0", "Edge FLOPs": "0"}
    # Nine tenths are 18 convolutions of 3x3 between 256 channels at a quarter of the size.
    blocks, ends = 18 * 9 * 256**2 * 55 * 45, 2 * 49 * 3 * 64 * 218 * 178
    down, up = 9 * 64 * 128 * 109 * 89 + 9 * 128 * 256 * 55 * 45, 9 * 256 * 128 * 55 * 45 + 9 * 128 * 64 * 110 * 90
    total = blocks + ends + down + up
    assert rows["Face Anonymizer"] == {"Edge Params": "11.38M", "Edge FLOPs": f"{total / 1e9:.2f}G"}


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--paper"]) == 0
    text = capsys.readouterr().out
    assert "86.5 MB (86.5 MB)" in text
    assert "Face Anonymizer: the published generator at 218 x 178" in text
    assert main(["cost", "--paper", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"Table 1", "Tables 2 and 3"}

    small = ["cost", "--option", "width=0.125", "--option", "num_classes=6", "--image", "1", "32", "32"]
    small += ["--option", "in_channels=1", "--group-size", "4"]
    assert main(small) == 0
    assert "the edge computes" in capsys.readouterr().out
    sizes = {}
    for dtype in ("float32", "float16", "int8"):
        assert main([*small, "--wire-dtype", dtype, "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        sizes[dtype] = figures["bytes_up"], figures["bytes_down"]
    assert sizes == {"float32": (2048, 256), "float16": (1024, 128), "int8": (512 + 32, 256)}
    assert all(part["seconds"] > 0 for part in figures["parts"].values())
    assert main([*small, "--option", "patches=2", "--wire-dtype", "int8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes_up"] == 4 * (8 * 4 * 4 + 8 * 4)  # patches, each with its scales


def test_too_little_memory_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facemix.commands.cost.MOST", 1e99)
    assert main(["cost", "--image", "3", "99999999", "99999999"]) == 1
    assert "cost: there is not enough memory for this: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "x"], "name must be one of"),
        (["--option", "width"], "--option must be NAME=VALUE, got 'width'"),
        (["--option", "depth=3"], "options must suit resnet18"),
        (
            ["--link", "0", "30", "25"],
            "cost: --link must be two rates from 1e-06 to 1e+09 and a time from 0 to 1e+09, got 0 30 25",
        ),
        (["--link", "15", "inf", "25"], "got 15 inf 25"),
        (["--link", "1e-320", "30", "25"], "got 9.99989e-321 30 25"),
        (["--link", "15", "30", "1e300"], "got 15 30 1e+300"),
        (["--group-size", "65"], "cost: --group-size must be between 1 and 64, got 65"),
        (["--option", "patches=200", "--image", "3", "32", "32"], "must be no more than pixels, 8 x 8, got 200"),
        (["--option", "pre=3"], "cost: --option pre must be what --pre is, 1, got 3"),
        (["--option", "post=2", "--post", "3"], "cost: --option post must be what --post is, 3, got 2"),
        (
            ["--option", "width=0.125", "--image", "3", "30000", "30000"],
            "cost: a group must take at most 2 T multiply-adds, as it is computed here, got ",
        ),
    ],
)
def test_command_refuses(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", *arguments]) == 1
    assert text in capsys.readouterr().err
