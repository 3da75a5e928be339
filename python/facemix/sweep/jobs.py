"""Runs jobs as processes, several at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tqdm import tqdm

from .plan import Job, Plan

__all__ = ["devices", "locked", "run_jobs", "slots"]

POLL = 0.1  # seconds
PATIENCE = 30.0  # seconds for a process to end after it was asked to


def devices() -> list[str]:
    """The CUDA devices that this process may use, as in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def slots(jobs: int | None) -> list[dict[str, str]]:
    """The environment of each of the jobs that run at once: devices in turn, the processor's cores shared out.

    Args:
        jobs: how many; None: one for each device, or one where there is none.

    Raises:
        ValueError: `jobs` is not positive.
    """
    found = devices()
    number = max(len(found), 1) if jobs is None else jobs
    if number < 1:
        raise ValueError(f"sweep: --jobs must be at least 1, got {jobs}")
    environment = dict(os.environ)
    if number > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        environment.setdefault("OMP_NUM_THREADS", str(max(cores // number, 1)))
    if not found:
        return [environment] * number
    return [{**environment, "CUDA_VISIBLE_DEVICES": found[slot % len(found)]} for slot in range(number)]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[IO[str]]:
    """Hold the folder's lock. Jobs inherit it: one that outlives a killed sweep keeps the next sweep from its files.

    Raises:
        ValueError: it is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"sweep: --out must not be in use by another sweep or its jobs, got {folder}") from None
        yield lock


def run_jobs(
    plan: Plan,
    jobs: Sequence[Job],
    slots: Sequence[dict[str, str]],
    lock: IO[str],
    bar: tqdm,
    done: Callable[[], object],
) -> dict[Job, str]:
    """Run those of `jobs` that have no results yet.

    Args:
        plan: theirs.
        jobs: in this order.
        slots: the environment of each of those that run at once.
        lock: a file that they inherit.
        bar: a step for each job.
        done: called after each job that succeeded.

    Returns:
        Those that failed, with the last line of their output.
    """
    waiting = [job for job in jobs if not plan.done(job)]
    bar.update(len(jobs) - len(waiting))
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    failures: dict[Job, str] = {}
    try:
        while waiting or running:
            for slot in set(range(len(slots))) - running.keys():
                if waiting:
                    job = waiting.pop(0)
                    running[slot] = job, _start(plan, job, slots[slot], lock)
            bar.set_postfix_str("; ".join(job.name for job, _ in running.values()))
            time.sleep(POLL)
            for slot, (job, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[slot]
                bar.update()
                if process.returncode == 0 and plan.done(job):
                    done()
                else:
                    failures[job] = f"exit status {process.returncode}: {_last_line(plan.log(job))}"
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
    return failures


def _start(plan: Plan, job: Job, environment: dict[str, str], lock: IO[str]) -> subprocess.Popen[bytes]:
    log = plan.log(job)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            plan.command(job),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock.fileno(),),
        )


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no output'} ({log})"
