"""Names and values, printed for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

PIPE = 141  # as a shell says it of a command that SIGPIPE ended


def print_table(rows: Mapping[str, str]) -> int:
    """Print a line for each name, and return the exit status: 0, or 141 where whoever read has seen enough."""
    width = max(map(len, rows))
    try:
        for name, value in rows.items():
            print(f"{name:<{width}}  {value}")
        sys.stdout.flush()  # what is left must not meet a closed pipe when Python ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE
    return 0
