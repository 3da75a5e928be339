"""Files that are whole or absent."""

from pathlib import Path

import pytest
import torch
from facemix.atomic import atomic_path
from facemix.models import build
from facemix.partition import partition
from facemix.storage import fingerprint, load_tensors, save_tensors
from safetensors.torch import save_file


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.safetensors"
    tensors = {"a.b": torch.randn(3, 4).t(), "n": torch.tensor(7)}
    save_tensors(path, tensors, {"list": [1, 2], "none": None})
    loaded, config = load_tensors(path)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert config == {"list": [1, 2], "none": None}
    assert list(path.parent.iterdir()) == [path]


def write_half(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_refusals_say_what_came(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="load_tensors: path must be a file, got"):
        load_tensors(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(ValueError, match="must be a safetensors file of facemix"):
        load_tensors(tmp_path / "text.safetensors")


@pytest.mark.parametrize(
    ("metadata", "rule"),
    [
        (None, "must be a safetensors file of facemix, got KeyError"),
        ({"facemix": "{"}, "must be a safetensors file of facemix, got JSONDecodeError"),
        ({"facemix": "[" * 100_000}, "must be a safetensors file of facemix, got RecursionError"),
        ({"facemix": f"[{'9' * 5000}]"}, "must be a safetensors file of facemix, got ValueError"),
        ({"facemix": "[1]"}, r"config in .*bad\.safetensors must be a JSON object, got \[1\]"),
        ({"facemix": "null"}, "must be a JSON object, got None"),
    ],
)
def test_configs_that_are_none(tmp_path: Path, metadata: dict[str, str] | None, rule: str) -> None:
    path = tmp_path / "bad.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata)
    with pytest.raises(ValueError, match=rule):
        load_tensors(path)


def test_a_fingerprint_tells_weights_and_cuts() -> None:
    model, other = (build("resnet18", {"num_classes": 3, "width": 0.0625}) for _ in range(2))
    seen = {fingerprint(partition(network, pre)) for network in (model, other) for pre in (1, 2, 3)}
    assert len(seen) == 6
    assert fingerprint(partition(model, "conv1", "fc")) == fingerprint(partition(model, 1, 1))
    with torch.no_grad():
        model.fc.bias[2] += 1
    assert fingerprint(partition(model, 1)) not in seen
