"""Photographs a second that reach a training: from the memory map, and decoded each time.

    python benchmarks/loader.py [--photos N] [--workers N ...]

JPEG files of CelebA's size, of synthetic faces, in batches of 256, shuffled into groups of 8. Medians of interleaved
epochs. The files are in the page cache, as a data set that fits into memory is from the second epoch on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from environment import commit_of
from facemix.data import Labelled, decoded, synthetic_faces
from facemix.data.cache import decode
from facemix.environment import environment
from facemix.training.batches import FaceBatches, loader
from marked_pages import markdown_table
from numpy.typing import NDArray
from PIL import Image
from pytest_benchmark.utils import get_commit_info
from tqdm import tqdm

SIZE, CHANNELS, PHOTOS_OF_A_PERSON = (218, 178), 3, 10
BATCH, GROUP = 256, 8


@dataclass(frozen=True)
class DecodedEachTime:
    """Stands for the memory map: rows are decoded when they are asked for."""

    paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([decode(self.paths[row], SIZE, CHANNELS) for row in rows])


def files(faces: Labelled, folder: Path) -> list[Path]:
    paths = [folder / f"{row}.jpg" for row in range(len(faces))]
    for path, image in zip(paths, faces.images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path, quality=90)
    return paths


def measure(photos: int, workers: list[int], rounds: int) -> None:
    faces = synthetic_faces(photos // PHOTOS_OF_A_PERSON, PHOTOS_OF_A_PERSON, SIZE, CHANNELS)
    with tempfile.TemporaryDirectory() as temporary:
        paths = files(faces, Path(temporary))
        start = time.perf_counter()
        images = decoded(paths, SIZE, CHANNELS, Path(temporary))
        once = len(faces) / (time.perf_counter() - start)
        ways = {"memory map": images, "decoded each time": DecodedEachTime(paths)}
        seconds: dict[tuple[str, int], list[float]] = {(way, number): [] for way in ways for number in workers}
        for epoch in tqdm(range(rounds), unit="round", disable=None):
            for (way, number), taken in seconds.items():
                labelled = Labelled(ways[way], faces.identity, faces.attributes)
                ready = loader(FaceBatches(labelled, "attributes", BATCH, GROUP, seed=0), number)
                ready.sampler.set_epoch(epoch)
                start, loaded = time.perf_counter(), 0
                for batch in ready:
                    loaded += len(batch["images"])
                taken.append((time.perf_counter() - start) / loaded)
    where, commit = environment(), commit_of(get_commit_info())
    print(f"{where['cpu']}, {where['cores']} cores; PyTorch {where['versions']['torch']}; commit {commit}")
    print(f"{len(faces)} photographs, decoded into the memory map at {once:.0f} a second\n")
    header = ["photographs a second", *(f"{number} workers" for number in workers)]
    print(markdown_table(header, ([way, *(f"{1 / median(seconds[way, n]):.0f}" for n in workers)] for way in ways)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Photographs a second that reach a training.")
    parser.add_argument("--photos", type=int, default=2560, help="in the set (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="to compare (default: 0 1 2)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each (default: %(default)s)")
    options = parser.parse_args()
    measure(options.photos, options.workers, options.rounds)


if __name__ == "__main__":
    main()
