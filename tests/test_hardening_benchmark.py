"""The figures of benchmarks/hardening.py where they are known beforehand, and its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact import GROUP, exact_network, export, pictures, truth
from facemix.cloud.model import CloudModel
from facemix.data import Labelled
from facemix.edge import load_half
from hardening import GROUPS, accuracy, requests
from hardening_choice import _mixed_in, _noise, _one
from hardening_table import tables

DONE = {"status": "done", "floor": 0.1, "result": 0.91, "ceiling": 1.0, "recovered": 0.9, "level": "recovered",
        "variants": {"if a key came twice": 0.5, "another figure": 0.7}}  # fmt: skip
CHANCE = {"status": "done", "floor": 0.5, "result": 0.55, "ceiling": 1.0, "recovered": 0.1, "level": "withstood",
          "variants": {}}  # fmt: skip
UNKNOWN = {"status": "not converged", "floor": 0.1, "result": 0.11, "ceiling": 1.0, "recovered": None, "variants": {}}
MODE: dict[str, Any] = {"accuracy": 0.975, "edge_ms": 0.051, "bytes_up": 100, "bytes_down": 20}
DATA = {
    "environment": {
        "cpu": "made up", "cores": 2, "threads": 1, "versions": {"torch": "1.2"}, "commit": "0123456789",
        "date": "2026-01-02",
    },
    "images": 8, "rounds": 3, "effort": "quick",
    "choice": [{"share": 0.1, "one": 1.0, "mixed_in": 0.25}],
    "modes": [
        {**MODE, "name": "plain", "attacks": {"look": DONE, "link": CHANCE, "other": {**UNKNOWN, "status": "skipped"}}},
        {**MODE, "name": "blinded", "share": 0.00482, "offline_ms": 0.3, "pool_bytes": 603.4,
         "attacks": {"look": UNKNOWN, "link": CHANCE, "other": {**UNKNOWN, "status": "skipped"}}},
    ],
}  # fmt: skip


def test_a_mode_has_its_cost_and_what_attacks_get_of_it() -> None:
    found = tables(DATA)
    assert "| plain | - | 97.5% | 0.05 | - | - | 100 | 20 |" in found["cost"]
    assert "| blinded | 0.0048 | 97.5% | 0.05 | 0.30 | 603 | 100 | 20 |" in found["cost"]
    assert "| look | 0.910 (0.100 to 1.000): 90% | not converged |" in found["attacks"]
    assert "| link | 0.550 (0.500 to 1.000): 10%, not significant |" in found["attacks"]
    assert "| look, if a key came twice | 0.500 | - |" in found["attacks"]
    assert "another figure" not in found["attacks"]
    assert "other |" not in found["attacks"]  # nobody ran it
    assert "| 32 secret rows, mixed in | 25.0% |" in found["choice"]
    assert "effort quick" in found["source"]


def test_accuracy_and_bytes_of_a_network_that_is_always_right(tmp_path: Path) -> None:
    """Though some photographs come twice."""
    network, images = exact_network(1), pictures(70)
    cloud, edge = export(tmp_path, network, "exact")
    half, middle = load_half(edge), CloudModel(cloud)
    faces = Labelled(images.transpose(0, 3, 1, 2), torch.from_numpy(truth(network, images).argmax(1)), {})
    sent = list(requests(faces, GROUP, 0))
    assert [len(rows) for rows in sent] == [32, 32, 8]
    assert len(sent[0]) == GROUPS * GROUP
    assert torch.cat(sent).unique().tolist() == list(range(70))
    found = accuracy(half, middle, faces, rounds=2)
    assert found["accuracy"] == 1
    assert found["bytes_up"] == 4 * np.prod(middle.input_shape)
    assert found["bytes_down"] == 4 * np.prod(middle.output_shape)


@pytest.mark.parametrize("blinded", [_one, _mixed_in])
def test_what_un_blinding_leaves_of_a_linear_cloud(blinded: Any) -> None:
    """What the cloud makes of the mixed rows, but for its constant, which the edge's un-blinding takes off too."""

    class Cloud:
        def run(self, rows: Any) -> Any:
            return rows.reshape(len(rows), -1) @ matrix + 3

    draw = np.random.default_rng(0)
    mixed, matrix = draw.standard_normal((8, 2, 5, 5)), draw.standard_normal((50, 4))
    found = blinded(Cloud(), mixed, 0.25, 4, draw)
    np.testing.assert_allclose(found, mixed.reshape(8, -1) @ matrix, rtol=0, atol=1e-4)


def test_blinded_rows_have_the_energy_of_rows() -> None:
    draw = np.random.default_rng(0)
    mixed = 3 * draw.standard_normal((40, 500))
    sent = 0.25 * mixed + _noise(mixed.shape, mixed, 0.25, draw)
    assert np.square(sent).mean() == pytest.approx(np.square(mixed).mean(), rel=0.03)
