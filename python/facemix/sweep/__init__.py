"""Sweeps over group size and partition: the paper's Figure 4."""

from __future__ import annotations

from .plan import Job, Plan
from .run import run_sweep

__all__ = ["Job", "Plan", "run_sweep"]
