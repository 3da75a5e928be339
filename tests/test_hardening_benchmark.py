"""The tables of benchmarks/hardening.py, and the page that has them."""

from __future__ import annotations

from typing import Any

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
