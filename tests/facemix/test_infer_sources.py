"""What `facemix infer` reads: the images to classify, and decoys."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from facemix.infer.sources import MAX_DECOYS, decoys_for, find
from PIL import Image

BUNDLE: Any = SimpleNamespace(decoys=None, image_shape=(32, 32, 1), group_size=8)


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "a.jpeg", "b/notes.txt", ".hidden/x.png", "b/.y.png", "c/d/e.pgm", "z.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "round").symlink_to(tmp_path)
    expected = ["a.jpeg", "b/10.JPG", "b/2.png", "c/d/e.pgm", "z.tiff"]
    assert list(find([str(tmp_path)])) == [str(tmp_path / name) for name in expected]
    assert list(find(["no.txt", str(tmp_path / "c"), "no.txt"])) == ["no.txt", str(tmp_path / "c/d/e.pgm"), "no.txt"]


def test_paths_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"a.png\n\n b c.png\r\nbyte\xff.png\nlast.png")
    with listed.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        found = list(find(["first.png", "-"]))
    assert found == ["first.png", "a.png", " b c.png", "byte\udcff.png", "last.png"]


def test_paths_come_through_a_pipe_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as stream, os.fdopen(writer, "wb", buffering=0) as source:
        monkeypatch.setattr(sys, "stdin", stream)
        paths = find(["-"])
        source.write(b"a.png\nb")
        assert next(paths) == "a.png"
        source.write(b".png\nc.png")
        assert next(paths) == "b.png"
        source.close()
        assert list(paths) == ["c.png"]


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(place: str) -> None:
        raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError):
        list(find([str(tmp_path)]))


def test_decoys_come_from_a_folder(tmp_path: Path) -> None:
    for n in range(10):
        Image.new("L", (32, 32), 100 + n).save(tmp_path / f"{n}.png")
    decoys = decoys_for(BUNDLE, tmp_path)
    assert decoys is not None
    assert decoys.shape == (10, 32, 32, 1)
    with pytest.raises(FileNotFoundError):
        decoys_for(BUNDLE, tmp_path / "nowhere")


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="infer: - must be given with a standard input, got a closed one"):
        list(find(["-"]))


def test_too_few_decoys(tmp_path: Path) -> None:
    for n in range(6):
        Image.new("L", (32, 32), n).save(tmp_path / f"{n}.png")
        Image.new("L", (32, 32), n).save(tmp_path / f"{n}-copy.png")  # is left out of a group
    (tmp_path / "broken.png").touch()
    with pytest.raises(ValueError, match=r"takes 7 different decoys, got 6 in .*: pass --decoys DIR, a folder of pub"):
        decoys_for(BUNDLE, tmp_path)
    with pytest.raises(ValueError, match="takes 7 different decoys, got 0 in the edge half: pass --decoys DIR"):
        decoys_for(BUNDLE, None)
    images = np.zeros((7, 32, 32, 1), np.uint8)
    with pytest.raises(ValueError, match="takes 7 different decoys, got 1 in the edge half"):
        decoys_for(SimpleNamespace(**vars(BUNDLE) | {"decoys": images}), None)
    images[:, 0, 0, 0] = range(7)
    assert decoys_for(SimpleNamespace(**vars(BUNDLE) | {"decoys": images}), None) is None  # the client takes these


def test_a_large_folder_gives_as_many_as_are_needed(tmp_path: Path) -> None:
    for n in range(MAX_DECOYS + 44):
        (tmp_path / f"{n:03}.pgm").write_bytes(b"P5 16 16 255\n" + bytes([n % 256] * 256))
    bundle: Any = SimpleNamespace(decoys=None, image_shape=(16, 16, 1), group_size=8)
    decoys = decoys_for(bundle, tmp_path)
    assert decoys is not None
    assert len(decoys) == MAX_DECOYS
    assert decoys[0].max() == 0
    assert decoys[-1].max() == (MAX_DECOYS + 44) * 255 // 256 % 256
