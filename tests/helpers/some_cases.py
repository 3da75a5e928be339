"""A pytest plugin: ``--cases N`` runs N of every parametrised test's cases, the first, the last, and some between."""

from __future__ import annotations

from collections import defaultdict

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=int, required=True)


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = defaultdict(list)
    for item in items:
        tests[item.nodeid.split("[")[0]].append(item)
    kept = set()
    for cases in tests.values():
        count = min(config.getoption("--cases"), len(cases))
        kept |= {cases[i * (len(cases) - 1) // max(1, count - 1)] for i in range(count)}
    items[:] = [item for item in items if item in kept]
