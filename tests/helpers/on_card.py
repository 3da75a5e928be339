"""What the GPU suite does beside its tests, as a pytest plugin.

It says at once what failed, for a suite that is cut off has no summary. And a process that has lost its CUDA context
ends, for every further test would fail in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

_lost = False


class AtOnce:
    """Prints a line for every failure when it comes; with several processes, in the one that they report to."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal and report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else report.longreprtext
            terminal.write_line(f"\nfailed: {report.nodeid}: {message.splitlines()[0]}")
            terminal.flush()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(AtOnce(config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """After a failure: whether the device still answers."""
    global _lost
    report = yield
    if report.failed and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            _lost = True
    return report


def pytest_runtest_logfinish(nodeid: str) -> None:
    """All was said of the test that took the context with it; for those behind it pytest-xdist starts a process."""
    if not _lost:
        return
    if "PYTEST_XDIST_WORKER" in os.environ:
        os._exit(1)
    pytest.exit(f"{nodeid} took the CUDA context with it: nothing else can run in this process", 1)
