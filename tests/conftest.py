"""What every test lives in: its own random state, its own threads, and no silent skips."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Iterator

import pytest
import torch


def pytest_sessionstart() -> None:
    """A shell that runs this in the background has it ignore Ctrl-C, and all that it starts: tests send that signal."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine runs in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.function(**arguments))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that skips, or is expected to fail, tests nothing, and nobody looks: it fails."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped: {call.excinfo and call.excinfo.value}"
    return report
