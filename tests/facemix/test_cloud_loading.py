"""Models are loaded while others compute."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from facemix.cloud.model import CloudModel


def test_a_model_computes_rightly_while_others_are_loaded(cloud_file: Path) -> None:
    model, features = CloudModel(cloud_file), np.random.default_rng(0).standard_normal((2, 8, 8, 8), np.float32)
    expected, done = model.run(features), threading.Event()

    def load() -> None:
        for _ in range(3):
            CloudModel(cloud_file)
        done.set()

    loading = threading.Thread(target=load)
    loading.start()
    while not done.is_set():
        np.testing.assert_array_equal(model.run(features), expected)
    loading.join()


def test_a_model_is_loaded_without_pytorchs_compiler(cloud_file: Path) -> None:
    """Which takes longer to import than all that a server needs."""
    code = (
        "import sys; from facemix.cloud.model import CloudModel; CloudModel(sys.argv[1])\n"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code, cloud_file], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
