"""The paper's Table 1 and the efficiency columns of its Tables 2 and 3, computed, beside what it prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from facemix.data import MEAN, STD
from facemix.models import build_bare

from .link import PAPER_4G, transfer_seconds
from .parts import PartitionCost, partition_cost

__all__ = ["Cell", "Row", "paper_tables"]

VGG_IMAGE, CELEBA_IMAGE = (3, 224, 224), (3, 218, 178)
CLASSES, SCORES = 1000, 80  # of ImageNet; 40 attributes, two scores each
MIB = 1 << 20
OTHERS = "from that work's own slides; its hardware is not modelled here"
GENERATOR = (
    "the published generator at 218 x 178, counted like every other row; the paper's figure is not of photographs of "
    "this size: square ones would need 248 to 249 pixels a side"
)
#: The paper's baselines: name and settings of `facemix.protections`, and what it prints.
PROTECTIONS: dict[str, tuple[str, dict[str, Any], tuple[str, str]]] = {
    "Baseline (all on Cloud)": ("plain", {}, ("0", "0")),
    "Adding Noise": ("noise", {"sigma": 8, "std": STD}, ("0", "0")),
    "Blurring": ("blur", {"size": 8}, ("0", "0")),
    "Face Anonymizer": ("anonymizer", {"channels": 3, "width": 64, "mean": MEAN, "std": STD}, ("11.38M", "47.13G")),
}


@dataclass(frozen=True)
class Cell:
    """One figure: what we compute, None where it cannot be, and what the paper prints."""

    ours: str | None
    paper: str

    @property
    def equal(self) -> bool:
        """To the printed digit."""
        return self.ours == self.paper


@dataclass(frozen=True)
class Row:
    """One method of a table.

    Attributes:
        method: as the paper calls it.
        cells: by column.
        why: what a cell that differs comes from; empty where none does.
    """

    method: str
    cells: dict[str, Cell]
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        cells = {
            name: {"ours": cell.ours, "paper": cell.paper, "equal": cell.equal} for name, cell in self.cells.items()
        }
        return {"method": self.method, "cells": cells, "why": self.why}


class _Transfer(NamedTuple):
    """Bytes there and back, and how often."""

    up: int
    down: int
    round_trips: int = 1


def paper_tables() -> dict[str, list[Row]]:
    """The tables by name: "Table 1" (VGG-16, 224 x 224, 4G) and "Tables 2 and 3" (ResNet-18, 218 x 178)."""
    return {"Table 1": _table1(), "Tables 2 and 3": _tables2and3()}


def _table1() -> list[Row]:
    vgg = build_bare("vgg16", {"num_classes": CLASSES}).eval()
    first, second, osia = (partition_cost(vgg, VGG_IMAGE, pre=pre) for pre in (1, 2, 11))
    image, scores = 4 * torch.Size(VGG_IMAGE).numel(), 4 * CLASSES
    layers = _linear_layers(vgg)
    slalom = _Transfer(sum(i for i, _ in layers), sum(o for _, o in layers), len(layers))
    split = "112 x 112 x 64 numbers are 3.06 MiB, and the answer comes on top"
    # Osia et al. run all layers up to the cut on the edge, and the cloud gives the scores.
    share = osia.edge_first.multiply_adds / osia.whole_multiply_adds
    return [
        _transfer_row("Baseline (cloud)", "0%", _Transfer(image, scores), ("0%", "0.6 MB", "0.4 sec")),
        _transfer_row(
            "Osia et al.", f"{share:.0%}", _Transfer(osia.edge_first.output_bytes, scores), ("93%", "0.4 MB", "0.3 sec")
        ),
        _transfer_row("Tramer et al.", None, slalom, ("~1%", "86.5 MB", "33.1 sec"), f"computation is {OTHERS}"),
        _transfer_row("Ours, after conv1-1", f"{first.edge_share:.0%}", _ours(first), ("1%", "12.3 MB", "6.6 sec")),
        _transfer_row(
            "Ours, after conv1-2", f"{second.edge_share:.0%}", _ours(second), ("13%", "3.0 MB", "1.7 sec"), split
        ),
    ]


def _ours(cost: PartitionCost) -> _Transfer:
    return _Transfer(cost.edge_first.output_bytes, cost.cloud.output_bytes)


def _transfer_row(
    method: str, computation: str | None, transfer: _Transfer, paper: tuple[str, str, str], why: str = ""
) -> Row:
    seconds = transfer_seconds(PAPER_4G, *transfer)
    cells = {
        "Computation (on edge)": Cell(computation, paper[0]),
        "Transmission size": Cell(f"{(transfer.up + transfer.down) / MIB:.1f} MB", paper[1]),
        "Transmission time": Cell(f"{seconds:.1f} sec", paper[2]),
    }
    return Row(method, cells, "" if all(cell.equal for cell in cells.values()) else why)


def _linear_layers(model: nn.Module) -> list[tuple[int, int]]:
    """Bytes in and out of every convolution and linear layer, for one image of Table 1."""
    sizes: list[tuple[int, int]] = []

    def measure(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        sizes.append((4 * inputs[0].numel(), 4 * output.numel()))

    hooks = [m.register_forward_hook(measure) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        model(torch.zeros(1, *VGG_IMAGE, device="meta"))
    for hook in hooks:
        hook.remove()
    return sizes


def _tables2and3() -> list[Row]:
    resnet = build_bare("resnet18", {"num_classes": SCORES}).eval()
    costs = [partition_cost(resnet, CELEBA_IMAGE, pre=pre) for pre in (1, 2, 3)]
    whole = costs[0]
    parameters = whole.edge_parameters + whole.cloud.parameters
    printed = (("0.05M", "0.09G"), ("0.12M", "0.28G"), ("0.20M", "0.46G"))
    return [
        _edge_row("Baseline (all on Edge)", parameters, whole.whole_multiply_adds, ("11.21M", "1.50G")),
        *(_protection_row(method, *protection) for method, protection in PROTECTIONS.items()),
        *(
            _edge_row(f"FaceMix (N_pre = {pre})", cost.edge_parameters, cost.edge_multiply_adds, digits)
            for pre, (cost, digits) in enumerate(zip(costs, printed, strict=True), 1)
        ),
    ]


def _edge_row(method: str, parameters: int, multiply_adds: int, paper: tuple[str, str]) -> Row:
    cells = {
        "Edge Params": Cell(f"{parameters / 1e6:.2f}M" if parameters else "0", paper[0]),
        "Edge FLOPs": Cell(f"{multiply_adds / 1e9:.2f}G" if multiply_adds else "0", paper[1]),
    }
    return Row(method, cells, "" if all(cell.equal for cell in cells.values()) else GENERATOR)


def _protection_row(method: str, name: str, settings: dict[str, Any], paper: tuple[str, str]) -> Row:
    options = {"protection": name, "settings": settings, "network": "resnet18", "options": {"num_classes": SCORES}}
    network = build_bare("protected", options)
    cost = partition_cost(network, CELEBA_IMAGE, group_size=1)
    return _edge_row(method, cost.edge_parameters, cost.edge_multiply_adds, paper)
