"""Large data sets, read from tiny ones in the official format; and what a file can have wrong with it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from face_sets import ATTRIBUTES, celeba, lfwa, picture
from facemix.data import UNKNOWN, DataError, decoded, load_celeba, load_folder, load_lfwa
from facemix.data.cache import decode, kept
from facemix.edge.images import load_image
from PIL import Image

PEOPLE, PARTITION = [2880, 2937, 2880, 8692, 5805, 2937], [0, 0, 0, 1, 2, 0]


@pytest.mark.parametrize("apart", [False, True])
def test_celeba(tmp_path: Path, apart: bool) -> None:
    celeba(tmp_path, PEOPLE, PARTITION, apart)
    parts = load_celeba(tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 4, "valid": 1, "test": 1}
    train = parts["train"]
    assert [path.name for path in train.paths] == ["000001.jpg", "000002.jpg", "000003.jpg", "000006.jpg"]
    assert train.identity is not None
    assert train.identity.tolist() == [0, 1, 0, 1]
    assert list(train.attributes) == ATTRIBUTES
    text = next(tmp_path.rglob("list_attr_celeba.txt")).read_text().splitlines()
    rows = [[int(value == "1") for value in text[line].split()[1:]] for line in (2, 3, 4, 7)]
    assert torch.stack(list(train.attributes.values()), 1).tolist() == rows


def lines(name: str, change: Callable[[list[str]], object]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        text = (root / name).read_text().splitlines()
        change(text)
        (root / name).write_text("\n".join(text) + "\n")

    return edit


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda root: (root / "list_eval_partition.txt").unlink(), "there must be .*list_eval_partition.txt or"),
        (lambda root: (root / "img_align_celeba").rename(root / "x"), "there must be .*img_align_celeba or"),
        (lambda root: (root / "img_align_celeba" / "000002.jpg").unlink(), r"got none at .*000002.jpg of 6"),
        (lambda root: (root / "img_align_celeba" / "000004.jpg").write_bytes(b""), r"got none at .*000004.jpg of 6"),
        (lines("list_attr_celeba.txt", lambda t: t.pop()), "must have 6 photographs, as it says, got 5"),
        (lines("list_attr_celeba.txt", lambda t: t.pop(0)), "must begin with a count"),
        (
            lines("list_attr_celeba.txt", lambda t: t.__setitem__(3, t[3][:-2])),
            "line 4 of .* must have 4 columns, got 3",
        ),
        (lines("list_attr_celeba.txt", lambda t: t.__setitem__(3, "000002.jpg 1 1 0")), "must be 1 or -1"),
        (lines("identity_CelebA.txt", lambda t: t.pop(2)), "got none for 000003.jpg and 0 more"),
        (lines("identity_CelebA.txt", lambda t: t.append("x")), "line 7 of .*identity_CelebA.txt must have 2 columns"),
        (lines("list_eval_partition.txt", lambda t: t.__setitem__(0, "000001.jpg 3")), "must say 0, 1 or 2"),
    ],
)
def test_celeba_damaged(tmp_path: Path, damage: Callable[[Path], object], text: str) -> None:
    celeba(tmp_path, PEOPLE, PARTITION)
    damage(tmp_path)
    with pytest.raises(DataError, match=text) as caught:
        load_celeba(tmp_path)
    assert "download img_align_celeba.zip" in str(caught.value) or "0, 1 or 2" in str(caught.value)


PHOTOS = {"Ann_Bee": 2, "Cid_Dot": 1, "Eve_Fox": 2}


@pytest.mark.parametrize("row", [False, True])
def test_lfwa(tmp_path: Path, row: bool) -> None:
    lfwa(tmp_path, PHOTOS, [1, 4, 2], [5, 3], row)
    parts = load_lfwa(tmp_path)
    assert [path.name for path in parts["train"].paths] == ["Ann_Bee_0001.jpg", "Eve_Fox_0001.jpg", "Ann_Bee_0002.jpg"]
    assert parts["train"].identity is not None
    assert parts["train"].identity.tolist() == [0, 2, 0]
    with h5py.File(tmp_path / "lfw_att_40.mat") as file:
        label = np.array(file["label"]).T
    table = torch.stack(list(parts["test"].attributes.values()), 1).numpy()
    np.testing.assert_array_equal(table, label[[4, 2]])
    assert list(parts["test"].attributes) == ATTRIBUTES


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda root: (root / "lfw_att_40.mat").unlink(), "there must be .*lfw_att_40.mat or"),
        (lambda root: (root / "lfw_att_40.mat").write_bytes(b"MATLAB 5.0" * 99), "must be a MATLAB 7.3 file, got"),
        (lambda root: (root / "lfw_att_40.mat").write_bytes((root / "lfw_att_40.mat").read_bytes()[:2000]), "7.3 file"),
        (lambda root: (root / "lfw" / "Eve_Fox" / "Eve_Fox_0002.jpg").unlink(), "got none at .*Eve_Fox_0002.jpg of 2"),
        (lambda root: lfwa(root, PHOTOS, [1, 1], [2]), "indices_img_train .* must be different numbers from 1 to 5"),
        (lambda root: lfwa(root, PHOTOS, [1], [6]), "indices_img_test .* must be different numbers from 1 to 5"),
        (
            lambda root: h5py.File(root / "indices_train_test.mat", "w").close(),
            "must have indices_img_train, .* got no",
        ),
    ],
)
def test_lfwa_damaged(tmp_path: Path, damage: Callable[[Path], object], text: str) -> None:
    lfwa(tmp_path, PHOTOS, [1, 4, 2], [5, 3])
    damage(tmp_path)
    with pytest.raises(DataError, match=text) as caught:
        load_lfwa(tmp_path)
    assert "download lfw_att_40.mat" in str(caught.value)


def folder_of(root: Path, text: str) -> tuple[Path, Path]:
    for seed, name in enumerate(("a.png", "sub/b.png", "c.png")):
        picture(root / "photos" / name, seed, (24, 12))
    (root / "labels.csv").write_text(text)
    return root / "photos", root / "labels.csv"


def test_a_folder_with_a_csv(tmp_path: Path) -> None:
    photos = load_folder(*folder_of(tmp_path, "image,identity,glasses\na.png,Ann,1\nsub/b.png,Bee,0\nc.png,Ann,\n"))
    assert photos.identity is not None
    assert (photos.identity.tolist(), photos.attributes["glasses"].tolist()) == ([0, 1, 0], [1, 0, UNKNOWN])
    assert photos.names == ("Ann", "Bee")
    without = load_folder(*folder_of(tmp_path, "\ufeffimage,glasses\nsub/b.png, 1\n"))
    assert (without.identity, without.names, len(without)) == (None, None, 1)
    assert load_folder(*folder_of(tmp_path, "image\na.png\n")).attributes == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the header of .* must have 'image'"),
        ("image\n", "must list at least one photograph"),
        ("photo\na.png\n", "the header of .* must have 'image'"),
        ("image,x,x\na.png,1,0\n", "no name twice"),
        ("image,x\na.png,1\nc.png\n", "row 2 of .* must have 2 fields"),
        ("image,x\na.png,1,1\n", "row 1 of .* must have 2 fields"),
        ("image,x\na.png,yes\n", "x in row 1 of .* must be 0, 1 or nothing, got 'yes'"),
        ("image,\na.png,1\n", "the header of .* must have names of 1 to 200 printable characters, got ''"),
        ("image,identity\na.png,Ann\nc.png, \n", "identity in .* must be names of 1 to 200 .*, got ''"),
        ("image,identity\na.png,A\tn\n", "identity in .* must be names .*, got 'A.tn'"),
        ("image\nz.png\n", r"got none at .*z.png of 1"),
        ('image\n"a.png\n', "must be CSV, got"),
        (
            "image\na.png\nc.png\nsub/../a.png\n",
            r"each row of .* must list another photograph, got .*a.png in rows 1 and 3",
        ),
    ],
)
def test_a_folder_with_a_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_folder(*folder_of(tmp_path, text))


def test_a_folder_with_a_csv_in_another_encoding(tmp_path: Path) -> None:
    folder, labels = folder_of(tmp_path, "")
    labels.write_bytes("image,identity\na.png,J\xf6rg\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"load_folder: .* must be text in UTF-8, got other bytes: 'utf-8' codec"):
        load_folder(folder, labels)


def test_of_several_that_need_a_file_one_fills_it(tmp_path: Path) -> None:
    calls: list[int] = []
    both = threading.Barrier(2)

    def fill(array: np.ndarray) -> None:
        calls.append(1)
        time.sleep(0.2)  # the other waits for the lock meanwhile
        array[:] = 7

    def use() -> np.ndarray:
        both.wait()
        return kept(tmp_path / "cache" / "a.npy", (2, 3), fill)

    with ThreadPoolExecutor(2) as pool:
        arrays = [job.result() for job in [pool.submit(use), pool.submit(use)]]
    assert calls == [1]
    assert all((array == 7).all() for array in arrays)


def test_the_disk_has_room_before_anything_is_filled(tmp_path: Path) -> None:
    """Where it is full, what writes to a memory map of a file with holes is killed by a signal."""
    size = 1 << 20

    def fill(array: np.ndarray) -> None:
        (begun,) = tmp_path.iterdir()
        assert 512 * begun.stat().st_blocks >= size

    kept(tmp_path / "a.npy", (size,), fill)


def test_what_a_killed_process_had_begun_is_removed(tmp_path: Path) -> None:
    """Also of another file: its name is a digest, which nobody may ask for again. Files of others stay."""
    script = (
        "import sys, os, signal; from pathlib import Path; from facemix.data.cache import kept\n"
        "kept(Path(sys.argv[1]), (2, 3), lambda array: os.kill(os.getpid(), signal.SIGTERM))"
    )
    path = tmp_path / "a.npy"
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGTERM
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".mine.npy").touch()
    assert (kept(tmp_path / "b.npy", (2, 3), lambda array: array.fill(7)) == 7).all()
    assert {file.name for file in tmp_path.iterdir()} == {"b.npy", ".mine.npy"}


def test_what_another_user_had_begun_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder where everybody may remove their own files only."""

    def refused(path: Path, **options: object) -> None:
        if path == begun:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, **options)

    begun, unlink = tmp_path / ".photos-a.npy.x.npy", Path.unlink
    begun.touch()
    monkeypatch.setattr(Path, "unlink", refused)
    assert kept(tmp_path / "photos-b.npy", (2, 3), lambda array: array.fill(7)).max() == 7


@pytest.mark.parametrize("damage", [b"", b"x" * 99, b"PK\3\4", 50, 130])
def test_a_damaged_file_is_filled_again(tmp_path: Path, damage: bytes | int) -> None:
    path = tmp_path / "a.npy"
    kept(path, (2, 3), lambda array: array.fill(7))
    path.write_bytes(path.read_bytes()[:damage] if isinstance(damage, int) else damage)
    assert (kept(path, (2, 3), lambda array: array.fill(8)) == 8).all()
    assert (kept(path, (2, 4), lambda array: array.fill(9)) == 9).all()  # so is one of another shape
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]


def odd_files(folder: Path) -> list[Path]:
    """Upright by their EXIF data alone, see-through, of 16 bits, wide, large."""
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None], (1, 64))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    clear = np.zeros((64, 64, 4), np.uint8)
    clear[16:48, 16:48] = 200, 200, 200, 255
    pictures: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "turned.jpg": (ramp, {"exif": exif}),
        "clear.png": (clear, {}),
        "deep.png": (ramp.astype(np.uint16) * 257, {}),
        "wide.png": (np.tile(ramp.T, (1, 2)), {}),
        "large.jpg": (np.tile(ramp, (10, 10)), {}),
    }
    for name, (pixels, options) in pictures.items():
        Image.fromarray(pixels).save(folder / name, **options)
    return [folder / name for name in pictures]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_learns_from_the_pixels_that_the_edge_will_send(tmp_path: Path, channels: int) -> None:
    for path in odd_files(tmp_path):
        expected = load_image(path, (32, 32, channels)).transpose(2, 0, 1)
        np.testing.assert_array_equal(decode(path, (32, 32), channels), expected, path.name)


def resized(path: Path, size: tuple[int, int], *, top: int = 0, bottom: int | None = None) -> np.ndarray:
    """The rows from `top` to `bottom`, without anything of ours: [3, H, W]."""
    with Image.open(path) as image:
        box = (0, top, image.width, bottom or image.height)
        return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box=box)).transpose(2, 0, 1)


def test_photographs_of_other_proportions_lose_their_ends_or_are_squeezed(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 0, (40, 24))
    (tmp_path / "cache").mkdir()
    arrays = [decoded([tmp_path / "a.png"], (20, 15), 3, tmp_path / "cache", squeezed=s)[0] for s in (False, True)]
    np.testing.assert_array_equal(arrays[0], resized(tmp_path / "a.png", (20, 15), top=4, bottom=36))
    np.testing.assert_array_equal(arrays[1], resized(tmp_path / "a.png", (20, 15)))


def test_decoded_once(tmp_path: Path) -> None:
    photos = load_folder(*folder_of(tmp_path, "image\na.png\nsub/b.png\nc.png\n"))
    array = decoded(photos.paths, (12, 6), 3, tmp_path / "cache")
    assert (array.shape, array.dtype) == ((3, 3, 12, 6), np.uint8)
    for path, row in zip(photos.paths, array, strict=True):
        np.testing.assert_array_equal(row, resized(path, (12, 6)))
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    assert decoded(photos.paths, (12, 6), 3, tmp_path / "cache").shape == (3, 3, 12, 6)
    assert file.stat().st_mtime_ns == written
    assert decoded(photos.paths, (12, 6), 1, tmp_path / "cache").shape == (3, 1, 12, 6)
    picture(photos.paths[1], 99, (24, 12))  # a photograph that changes is decoded again
    assert not np.array_equal(decoded(photos.paths, (12, 6), 3, tmp_path / "cache")[1], array[1])


def test_decoded_names_what_is_no_image_and_leaves_nothing(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path, "image\na.png\n")
    (folder / "c.png").write_bytes((folder / "c.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"decoded: .*c\.png must be readable, got"):
        decoded([folder / "a.png", folder / "c.png"], (12, 6), 3, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    for paths, size, channels, text in (
        ([], (12, 6), 3, "there must be photographs and pixels, got 0"),
        ([folder / "a.png"], (0, 6), 3, "there must be photographs and pixels, got 1"),
        ([folder / "a.png"], (12, 6), 2, "channels must be 1 or 3, got 2"),
    ):
        with pytest.raises(ValueError, match=re.escape(text)):
            decoded(paths, size, channels, tmp_path / "cache")
