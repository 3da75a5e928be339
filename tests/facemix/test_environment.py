"""Where figures come from: machine, versions, commit."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import facemix.environment
import pytest
import torch
from facemix.environment import environment


def test_machine_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facemix.environment, "PACKAGES", ("torch", "no-such-package"))
    torch.set_num_threads(1)
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"] == {"torch": version("torch"), "no-such-package": None}
    assert found["threads"] == 1
    assert found["cores"] >= 1
    assert len(found["gpus"]) == torch.cuda.device_count()


def test_names_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
    assert environment()["gpus"] == ["card 0", "card 1"]


def test_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    path = Path(shutil.copy(facemix.environment.__file__, tmp_path / "copied.py"))
    spec = spec_from_file_location("copied", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    git("init", "-q")
    assert module.environment()["commit"] is None
    git("add", "copied.py")
    git("commit", "-q", "-m", "feat: all")
    git("tag", "-a", "v1", "-m", "one")
    head = git("rev-parse", "HEAD").strip()
    assert module.environment()["commit"] == head
    path.write_text(path.read_text() + "# changed\n")
    assert module.environment()["commit"] == f"{head}-dirty"
