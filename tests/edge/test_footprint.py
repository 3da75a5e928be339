"""What the edge needs: NumPy and nothing else, and little memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import images
from processes import output_of
from torch import nn
from torch_edge import Network, exported, trained

STEM = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
POOL = nn.MaxPool2d(3, 2, 1)
CELEBA = (218, 178, 3)
MAX_MB = 54  # beside Python and NumPy: under 80 with those 26 of Python 3.11; Python 3.13 has 31

# A whole inference of 8 images, each image a whole one in memory before it.
INFERENCE = """
import sys
import numpy as np
before = set(sys.modules)
from facemix_ops.edge import EdgeModel
model = EdgeModel.load("edge.safetensors")
images = np.fromfile("images.bin", np.uint8).reshape(8, *model.bundle.image_shape)
for wire_dtype in ("float32", "float16", "bfloat16"):
    with model.mix(images, wire_dtype=wire_dtype) as request:
        sent = request.payload.tobytes()  # what a transport holds
        rows, width = len(request.payload), model.bundle.last_weight.shape[1]
        result = request.classify(np.ones((rows, width), np.float32))
    del sent
assert result.scores.shape == (8, 80)
"""


@pytest.fixture(params=["stem", "stem and pool"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    first = STEM if request.param == "stem" else (*STEM, POOL)
    exported(trained(Network(*first, features=512, classes=80), (32, 32, 3)), tmp_path / "edge.safetensors", CELEBA, 8)
    images(8, CELEBA).tofile(tmp_path / "images.bin")
    return tmp_path


def test_numpy_is_enough(folder: Path) -> None:
    """During a whole inference nothing is imported but NumPy, this package and Python's own library."""
    code = """
found = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert found == {"numpy", "facemix_ops"}, found
assert "torch" not in sys.modules
"""
    output_of(INFERENCE + code, folder)
    output_of("import sys; sys.modules['torch'] = None" + INFERENCE, folder)


def test_import_loads_little(tmp_path: Path) -> None:
    """Neither PyTorch nor what of NumPy and Python takes long to load."""
    code = """
import sys
from facemix_ops.edge import EdgeModel
assert not {"torch", "numpy.random", "importlib.metadata", "pathlib", "argparse", "ctypes.util"} & set(sys.modules)
"""
    output_of(code, tmp_path)


def test_memory(folder: Path) -> None:
    """Peak resident memory of a process that imports, loads and classifies, beside Python's and NumPy's own.

    VmHWM, since the ru_maxrss of a child process counts its parent's memory at the time of the fork.
    """
    peak = """
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")][0])
"""
    whole, bare = (int(output_of(code + peak, folder)) * 1024 / 1e6 for code in (INFERENCE, "import numpy"))
    assert whole - bare < MAX_MB, f"{whole:.1f} MB, {bare:.1f} of them for Python and NumPy"
