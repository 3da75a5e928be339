"""Reports of experiments: one HTML file, and Markdown."""

from __future__ import annotations

from .results import Runs, read_runs
from .spread import Spread
from .write import HTML, MARKDOWN, write_report

__all__ = ["HTML", "MARKDOWN", "Runs", "Spread", "read_runs", "write_report"]
