"""Images through the network, in order, a request at a time, and the results to where they belong."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sized
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facemix.atomic import atomic_path, check_place
from facemix.edge import Answer, Cost, Prediction
from facemix.edge.grouping import Remembered
from facemix.edge.images import ImageError, load_images
from facemix.plural import plural
from facemix_ops.edge import Bundle, EdgeModel
from facemix_ops.edge.grouping import digest

from .results import WRITERS, Attribute, Guess, Row

if TYPE_CHECKING:
    from facemix.edge.torch_bundle import TorchBundle
    from facemix.edge.torch_half import TorchHalf

__all__ = ["AnyBundle", "AnyHalf", "Classify", "Tally", "classify_all"]

AnyBundle: TypeAlias = "Bundle | TorchBundle"
AnyHalf: TypeAlias = "EdgeModel | TorchHalf"
Classify: TypeAlias = Callable[[NDArray[np.uint8]], Answer]

KIB = 1024
MAX_DECODERS = 4  # threads, of which each may hold a large image


@dataclass
class Tally:
    """What a run came to.

    Attributes:
        classified, refused: images. One that comes again is classified without a further call.
        reason: why the first of these was.
        cost: the sum of what `facemix.edge.Cost` says of every call, by the names of its fields.
        started: when it began.
    """

    classified: int = 0
    refused: int = 0
    reason: str = ""
    cost: dict[str, float] = field(default_factory=lambda: dict.fromkeys((f.name for f in fields(Cost)), 0))
    started: float = field(default_factory=time.perf_counter)

    def add(self, cost: Cost) -> None:
        """Count what a call cost."""
        for name in self.cost:
            self.cost[name] += getattr(cost, name)

    def as_json(self) -> dict[str, Any]:
        """All of it, for the end of a document."""
        seconds = time.perf_counter() - self.started
        return {"classified": self.classified, "refused": self.refused, "seconds": seconds, **self.cost}

    def __str__(self) -> str:
        """One line for people."""
        seconds, count = time.perf_counter() - self.started, max(1, self.classified)
        cost = {name: value / count for name, value in self.cost.items()}
        if self.cost["requests"]:
            details = (
                f"each {cost['bytes_up'] / KIB:.2f} KiB up, {cost['bytes_down'] / KIB:.2f} KiB down, "
                f"{1e3 * cost['edge_seconds']:.2f} ms edge, {1e3 * cost['cloud_seconds']:.2f} ms cloud, "
                f"{1e3 * cost['network_seconds']:.2f} ms network; "
                f"{plural(int(self.cost['requests']), 'request')}, {plural(int(self.cost['attempts']), 'attempt')}"
            )
        else:
            details = f"each {1e3 * cost['edge_seconds']:.2f} ms; nothing was mixed or sent"
        return (
            f"{plural(self.classified, 'image')} classified, {self.refused} refused, in {seconds:.2f} s "
            f"({self.classified / seconds:.0f}/s); {details}"
        )


def classify_all(
    paths: Iterable[str],
    bundle: AnyBundle,
    classify: Classify,
    *,
    call_images: int,
    decoys: NDArray[np.uint8] | None = None,
    top: int,
    format: str,
    output: Path | None,
    quiet: bool,
) -> Tally:
    """Classify `paths`, write the results, and say on standard error what it took.

    Args:
        paths: read as they are needed; with a length where that is known.
        bundle: of the edge half.
        classify: uint8 [N, H, W, C] to scores.
        call_images: N, but for the last call, which alone is filled with decoys.
        decoys: of the caller's, images [D, H, W, C] that go with those, and cannot be among them: an image that goes
            out twice, in different groups, is given away. Those of the edge's file are public, whatever comes.
        top: how many guesses for an image, where they are of classes.
        format: see `results`.
        output: a file, which is written as a whole; None: standard output.
        quiet: nothing on standard error.

    Raises:
        ValueError: if `output` cannot be written, or an image is a decoy.
        Exception, KeyboardInterrupt: whatever ends the run early, after the rows until then were written. With none,
            nothing is.
    """
    tally = Tally()
    failure: BaseException | None = None
    model: dict[str, Any] = {"name": bundle.name, "version": bundle.version, "network": bundle.network}
    if bundle.attributes is not None:
        model["attributes"] = list(bundle.attributes)
    # On a terminal, bars and lines that are written meanwhile would get into each other's way.
    bar = not quiet and sys.stderr.isatty() and not (output is None and format != "table" and sys.stdout.isatty())
    public = {digest(image) for image in ([] if decoys is None else decoys)}
    total = len(paths) if isinstance(paths, Sized) else None
    with _stream(output) as stream, tqdm(total=total, disable=not bar, unit=" images", leave=False) as progress:
        writer = WRITERS[format](stream, model)
        try:
            for row in _classified(paths, bundle, classify, call_images, public, top, tally):
                writer.add(row)
                progress.update()
        except (Exception, KeyboardInterrupt) as error:
            if not tally.classified and not tally.refused:
                raise
            failure = error
        progress.close()
        writer.finish(tally.as_json(), failure is None)
    if not quiet:
        print(f"facemix infer: {tally}", file=sys.stderr)
    if failure is not None:
        raise failure
    return tally


@contextlib.contextmanager
def _stream(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there as a whole in the end or not at all."""
    if output is None:
        yield sys.stdout
        return
    check_place("infer: --output", output)
    with atomic_path(output) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        yield stream


def _classified(
    paths: Iterable[str],
    bundle: AnyBundle,
    classify: Classify,
    call_images: int,
    decoys: Container[bytes],
    top: int,
    tally: Tally,
) -> Iterator[Row]:
    """A row for each of `paths`, in order; those that cannot be used in their places among the others."""
    taken: deque[str] = deque()

    def remembered() -> Iterator[str]:
        for path in paths:
            taken.append(path)
            yield path

    answered = Remembered[Prediction]()
    batch: list[tuple[str, bytes | ImageError]] = []
    new: dict[bytes, NDArray[np.uint8]] = {}

    def rows() -> Iterator[Row]:
        if new:
            answer = classify(np.stack(list(new.values())))
            tally.add(answer.cost)
            answered.update((name, answer[n]) for n, name in enumerate(new))
        for path, found in batch:
            if isinstance(found, ImageError):
                tally.refused += 1
                tally.reason = tally.reason or f"{path}: {found.problem}"
                yield Row(path, error=found.problem)
            else:
                tally.classified += 1
                yield _row(path, answered[found], bundle.classes, top)
        answered.forget()
        batch.clear()
        new.clear()

    with contextlib.closing(
        load_images(remembered(), bundle.image_shape, threads=min(MAX_DECODERS, os.cpu_count() or 1), ahead=call_images)
    ) as images:
        for image in images:
            path = taken.popleft()
            if isinstance(image, ImageError):
                batch.append((path, image))
                continue
            if (name := digest(image)) in decoys:
                raise ValueError(f"infer: decoys must be other images than those to classify, got {path} as both")
            batch.append((path, name))
            if name not in answered:
                new[name] = image
            if len(new) in (0, call_images):  # whoever comes again need not wait for others
                yield from rows()
        yield from rows()


def _row(path: str, prediction: Prediction, classes: tuple[str, ...] | None, top: int) -> Row:
    if prediction.attributes is not None:
        return Row(path, attributes=[Attribute(name, yes) for name, yes in prediction.attributes.items()])
    scores = prediction.scores
    best = np.argsort(-scores, kind="stable")[:top].tolist()
    names = [None if classes is None else classes[label] for label in best]
    return Row(path, [Guess(label, name, float(scores[label])) for label, name in zip(best, names, strict=True)])
