"""`facemix serve --engine kserve` with two models that misbehave: one called "failing", and one called "waiting" that
waits until a file is there. A process of its own, because KServe and tritonclient both register the protocol's messages
and cannot be imported together.

    python kserve_server.py FILE serve --engine kserve ...
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from facemix import cli
from facemix.cloud.model import CloudModel

FILE = Path(sys.argv.pop(1))
run = CloudModel.run


def misbehaving(self: CloudModel, features: np.ndarray) -> np.ndarray:
    if features.any():  # a model is tried with zeros when it is loaded
        if self.name == "failing":
            raise RuntimeError(f"{features.flat[0]}")
        while self.name == "waiting" and not FILE.exists():
            time.sleep(0.01)
    return run(self, features)


CloudModel.run = misbehaving
sys.exit(cli.main())
