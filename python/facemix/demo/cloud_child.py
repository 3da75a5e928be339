"""`facemix serve` for a parent that may be killed: it ends when its standard input does, as that of a child does when
its parent is gone, however it went.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from facemix.cli import main

STDIN = 0


def _end_with_stdin() -> None:
    # Not through sys.stdin: its lock, held in this thread, would disturb the end of the interpreter.
    while os.read(STDIN, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    sys.exit(main(["serve", *sys.argv[1:]]))
