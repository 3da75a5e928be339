"""Tiny data sets in the official on-disk formats."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from PIL import Image

ATTRIBUTES = ["5_o_Clock_Shadow", "Eyeglasses", "Young"]


def picture(path: Path, seed: int, size: tuple[int, int] = (218, 178)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def celeba(root: Path, people: list[int], partition: list[int], apart: bool = False) -> None:
    """CelebA with as many photographs as `people` has numbers; `apart`: in Img, Anno and Eval."""
    images, anno, evaluation = (root / place if apart else root for place in ("Img", "Anno", "Eval"))
    for folder in (images, anno, evaluation):
        folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:06d}.jpg" for number in range(1, len(people) + 1)]
    for seed, name in enumerate(names):
        picture(images / "img_align_celeba" / name, seed)
    rows = [f"{name} {' '.join(value)}" for name, value in zip(names, _values(len(names)), strict=True)]
    (anno / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), " ".join(ATTRIBUTES), *rows, ""]))
    (anno / "identity_CelebA.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(names, people, strict=True)))
    (evaluation / "list_eval_partition.txt").write_text(
        "".join(f"{n} {p}\n" for n, p in zip(names, partition, strict=True))
    )


def _values(count: int) -> list[list[str]]:
    """Aligned as in the official file: 1 has a blank before it, -1 none."""
    bits = np.random.default_rng(7).integers(0, 2, (count, len(ATTRIBUTES)))
    return [[" 1" if bit else "-1" for bit in row] for row in bits]


def lfwa(root: Path, photos: dict[str, int], train: list[int], test: list[int], row: bool = False) -> None:
    """LFWA with so many photographs of each person; `train` and `test` count from 1; `row`: of cells, not a column."""
    names = [f"{person}\\{person}_{n:04d}.jpg" for person, count in photos.items() for n in range(1, count + 1)]
    for seed, name in enumerate(names):
        picture(root / "lfw" / Path(*name.split("\\")), seed, (250, 250))
    label = np.random.default_rng(7).integers(0, 2, (len(names), len(ATTRIBUTES))).astype(np.float64)
    with h5py.File(root / "lfw_att_40.mat", "w", userblock_size=512) as file:
        _cells(file, "AttrName", ATTRIBUTES, row)
        _cells(file, "name", names, row)
        _numbers(file, "label", label)
    with h5py.File(root / "indices_train_test.mat", "w", userblock_size=512) as file:
        _numbers(file, "indices_img_train", np.array(train, np.float64).reshape(-1, 1))
        _numbers(file, "indices_img_test", np.array(test, np.float64).reshape(-1, 1))


def _numbers(file: h5py.File, name: str, values: np.ndarray) -> None:
    file.create_dataset(name, data=values.T).attrs["MATLAB_class"] = np.bytes_("double")


def _cells(file: h5py.File, name: str, texts: list[str], row: bool) -> None:
    """Texts, as MATLAB 7.3 writes them: references to arrays of UTF-16 characters; dimensions are reversed."""
    references = np.empty((len(texts), 1) if row else (1, len(texts)), h5py.ref_dtype)
    for n, text in enumerate(texts):
        place = file.create_dataset(
            f"#refs#/{name}{n}", data=np.array([ord(c) for c in text], np.uint16).reshape(-1, 1)
        )
        place.attrs["MATLAB_class"] = np.bytes_("char")
        place.attrs["MATLAB_int_decode"] = np.int32(2)
        references.reshape(-1)[n] = place.ref
    file.create_dataset(name, data=references).attrs["MATLAB_class"] = np.bytes_("cell")
