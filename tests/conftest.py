"""What every test lives in: its own random state, its own threads, and no silent skips."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _isolated_random_state() -> Iterator[None]:
    """Every test draws the same numbers, whatever ran before it, and leaves the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _isolated_threads() -> Iterator[None]:
    """The number of threads that a test sets is its own."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "may_skip(reason): this test may skip; any other skip is a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that skips tests nothing, and nobody looks: it fails unless it is marked ``may_skip``."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("may_skip") is None:
        report.outcome = "failed"
        report.longrepr = f"skipped without being marked may_skip: {call.excinfo and call.excinfo.value}"
    return report
