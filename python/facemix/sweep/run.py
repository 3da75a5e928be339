"""A sweep from beginning to end."""

from __future__ import annotations

from functools import partial

from tqdm import tqdm

from facemix.atomic import atomic_path

from .jobs import locked, run_jobs, slots
from .plan import Job, Plan
from .plots import plot_efficiency, plot_privacy
from .rows import Row, read_rows, table, write_csv

__all__ = ["run_sweep", "write_figures"]

NOT_RUN = "not run: the baseline of its seed failed"


def run_sweep(plan: Plan, jobs: int | None = None) -> dict[Job, str]:
    """Train what is not trained yet, and write `sweep.csv`, `sweep.md`, `figure4a.png` and `figure4b.png`.

    The tables are written anew after each job, the plots at the end, be it an early one. A sweep that was interrupted
    goes on with the same call.

    Args:
        plan: what to train.
        jobs: how many at once; None: one for each CUDA device, or one.

    Returns:
        Jobs that failed, with the reason.

    Raises:
        ValueError: the folder is another sweep's, or in use.
    """
    environments = slots(jobs)
    with locked(plan.out) as lock:
        plan.claim()
        everything = len(plan.baselines) + len(plan.mixed)
        with tqdm(total=everything, desc="sweep", unit="job", disable=None) as bar:
            write = partial(_write_tables, plan)
            try:
                failures = run_jobs(plan, plan.baselines, environments, lock, bar, write)
                lost = {job.seed for job in failures}
                ready = [job for job in plan.mixed if job.seed not in lost]
                failures |= run_jobs(plan, ready, environments, lock, bar, write)
            finally:
                write_figures(plan)
    return failures | {job: NOT_RUN for job in plan.mixed if job.seed in lost and not plan.done(job)}


def write_figures(plan: Plan) -> None:
    """Tables and plots of the rows that have a finished seed; nothing where there is none."""
    rows = _write_tables(plan)
    if rows:
        plot_privacy(plan.out / "figure4a.png", rows)
        plot_efficiency(plan.out / "figure4b.png", rows)


def _write_tables(plan: Plan) -> list[Row]:
    rows = read_rows(plan)
    if rows:
        write_csv(plan.out / "sweep.csv", rows)
        with atomic_path(plan.out / "sweep.md") as temporary:
            temporary.write_text(table(rows).markdown() + "\n", encoding="utf-8")
    return rows
