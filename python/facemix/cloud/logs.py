"""Logs as lines of JSON on standard error. They hold no tensor values, no tokens and no keys."""

from __future__ import annotations

import json
import logging
import sys
import time

__all__ = ["LEVELS", "Seldom", "log_to_stderr"]

LEVELS = ("debug", "info", "warning", "error")
SECONDS = 10.0  # see Seldom

# What every record has; the rest came as `extra`.
PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in PLAIN})
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__  # its text and its trace may quote anything
        return json.dumps(line, default=str)


def log_to_stderr(level: str) -> None:
    """Send what this process logs from `level` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Seldom:
    """Logs an event that strangers can cause as often as they like, once in SECONDS for each reason."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._seen: dict[str, tuple[float, int]] = {}  # when it was logged, how often since

    def warning(self, event: str, reason: str, **fields: object) -> None:
        """Log it, with how many of the same reason were left out since the last one."""
        now = time.monotonic()
        then, left_out = self._seen.get(reason, (now - SECONDS, 0))
        if now - then < SECONDS:
            self._seen[reason] = (then, left_out + 1)
            return
        self._seen[reason] = (now, 0)
        self._log.warning(event, extra={"reason": reason, "left_out": left_out, **fields})
