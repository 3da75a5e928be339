"""A generator that draws the photographs in a mixed row."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facemix.data import Labelled
from facemix.pictures import COLUMNS, Line

from ..attack import Attack, Progress
from ..balance import by_victim
from ..control import fails_unprotected
from ..display import photographs, rows_as_sent
from ..evaluator import Evaluator
from ..matching import matched
from ..outcome import Outcome, Variant, interval
from ..rehearsal import Rows, attacked, rehearse, suspects
from ..scene import Scene
from ..translation import BATCH, FULL, SMALL, Size, Translator

__all__ = ["Reconstruction"]

MOST = 20_000  # photographs of the attacker
ROWS = 128  # that are attacked


class Reconstruction(Attack):
    """The paper's attack: pix2pix draws all S photographs of a row, in any order; the best matching counts.

    The floor is the average face, which the paper supposes its attacker draws, or what the generator draws of rows with
    other photographs, whichever is more like: S different faces, of which the best matching counts, are like any S.
    """

    name = "reconstruction"
    title = "Can a generator draw the photographs in a row?"
    knows = "the edge's software, and photographs of its own to train with"
    source = "the paper, section 4: recovering face; Isola et al. 2017"

    def needs(self, scene: Scene) -> Outcome | None:
        if scene.effort == "quick":
            return Outcome("skipped", "Its generator takes more time to train than a quick audit has.")
        if len(scene.attacker) < 5 * scene.edge.group_size:
            return Outcome("skipped", f"It needs {5 * scene.edge.group_size} or more photographs to train on.")
        return None

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        rows = Rows(*(value[:ROWS] for value in attacked(scene)))
        order = torch.randperm(len(scene.attacker), generator=scene.generator(self.name, "photographs"))
        known = scene.attacker.take(order[:MOST])
        drawn, truth = self._drawn(scene, known, rows, lambda rows: rows, lambda share: progress(share / 2))
        clear, one = self._drawn(scene, known, rows, Rows.unprotected, lambda share: progress((1 + share) / 2))
        average = _signed(np.asarray(known.images.mean(0))).expand_as(truth)

        values, ceiling, floor = _likeness(drawn, truth), _likeness(clear, one), fmean(_likeness(average, truth))
        other = _others(rows.members, scene.generator(self.name, "other rows"))
        if other is not None:
            floor = max(floor, fmean(_likeness(_matched(drawn[other], truth), truth)))
        clear_by_victim = by_victim(torch.tensor(ceiling, dtype=torch.float64), rows.owner)
        failed = fails_unprotected(clear_by_victim, floor, scene.seed_of(self.name, "ceiling"))
        if failed:
            return failed
        by_group = [fmean([values[row] for row in (rows.group == group).nonzero()]) for group in rows.group.unique()]
        errors = [-fmean(_error(*pair)) for pair in ((drawn, truth), (average, truth), (clear, one))]
        variants = [Variant("mean squared error of pixels 0 to 1, times -1", *errors)]
        if len(scene.gallery) > 1:
            variants.append(_identity(scene, (drawn, rows.members), (clear, rows.unprotected().members)))
        return Outcome(
            "done",
            measure=f"structural similarity (SSIM) of the photographs drawn, by a generator {_told(_size(scene))}",
            floor=floor,
            result=fmean(values),
            ceiling=fmean(ceiling),
            interval=interval(by_group, scene.seed_of(self.name, "interval")),
            says=f"A generator draws the photographs in a row with a structural similarity of {fmean(values):.2f} "
            f"(by chance {floor:.2f}; without protection it draws with {fmean(ceiling):.2f}).",
            variants=tuple(variants),
            pictures=(
                photographs("in the row, among others", scene.victims, rows.members[:COLUMNS, 0]),
                rows_as_sent("sent", rows.received[:COLUMNS]),
                Line("drawn", [_picture(row) for row in drawn[:COLUMNS, 0]]),
            ),
        )

    def _drawn(
        self, scene: Scene, known: Labelled, rows: Rows, view: Callable[[Rows], Rows], progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """What the generator draws of each row, and what there was, in the same order: float32 [b, S, C, H, W] each.

        Args:
            view: of rows, to train on and to draw from: as the edge sends them, or unprotected.
        """
        rows = view(rows)
        truth = _signed(scene.victims.images[rows.members.numpy()])
        translator = Translator(
            rows.received.shape[1:], truth.shape[1:], _size(scene), scene.device,
            scene.seed_of(self.name, "networks"),
        )  # fmt: skip
        own = map(view, rehearse(scene.edge, known, scene.generator(self.name, "train")))
        batches = ((each.received[:BATCH], _signed(known.images[each.members[:BATCH].numpy()])) for each in own)
        translator.fit(batches, progress)
        return _matched(translator(rows.received), truth), truth


def _others(members: Tensor, generator: torch.Generator) -> Tensor | None:
    """Another row for each one of photographs `members` [b, S], which has none of these: int64 [b]; None where there is
    no such row for some.
    """
    strange = (members[:, None, :, None] != members[:, None]).all(-1).all(-1)
    return strange.double().multinomial(1, generator=generator)[:, 0] if strange.any(1).all() else None


def _size(scene: Scene) -> Size:
    return FULL if scene.device.type == "cuda" else SMALL


def _told(size: Size) -> str:
    """How large a generator is, for the report; beside the full size, where it is not that one."""
    known = f"of width {size.width}, {size.blocks} blocks, {size.steps} steps"
    full = f"{FULL.width}, {FULL.blocks}; {FULL.steps} steps on a GPU"
    return f"{known} ({'full size' if size == FULL else f'reduced for a CPU; full size: {full}'})"


def _signed(images: NDArray[np.generic]) -> Tensor:
    """Photographs from 0 to 255 as a generator draws them, from -1 to 1: float32."""
    return torch.from_numpy(images.astype(np.float32)) / 127.5 - 1


def _matched(found: Tensor, truth: Tensor) -> Tensor:
    """What was found of each row in the order in which it is most like the truth: both float32 [b, S, C, H, W]."""
    which = torch.stack([matched(-_errors(true, some))[0] for true, some in zip(truth, found, strict=True)])
    return found[torch.arange(len(found))[:, None], which]


def _errors(true: Tensor, found: Tensor) -> Tensor:
    """Mean squared errors of every pair: [S, S] of [S, C, H, W]."""
    return (true[:, None] - found).square().flatten(2).mean(2)


def _error(found: Tensor, truth: Tensor) -> list[float]:
    """Of each row, in squared units of pixels from 0 to 1."""
    return ((found - truth) / 2).square().flatten(1).mean(1).tolist()


def _likeness(found: Tensor, truth: Tensor) -> list[float]:
    """SSIM (Wang et al. 2004), of each row: of [b, S, C, H, W]."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    values = ssim(found.flatten(0, 1), truth.flatten(0, 1), data_range=2.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.view(found.shape[:2]).mean(1).tolist()


def _identity(scene: Scene, mixed: tuple[Tensor, Tensor], clear: tuple[Tensor, Tensor]) -> Variant:
    """How often a classifier sees the right person: of what was drawn [b, S, C, H, W], and of whom [b, S]."""
    says, people = Evaluator(suspects(scene)), scene.victims.labels("identity")

    def right(found: Tensor, members: Tensor) -> float:
        said = torch.from_numpy(says(found.flatten(0, 1).numpy()))
        return float((said == people[members].flatten()).double().mean())

    return Variant(
        "who is on what was drawn, by a classifier that saw none of it", right(*mixed), 1 / len(scene.gallery),
        right(*clear),
    )  # fmt: skip


def _picture(image: Tensor) -> NDArray[np.generic]:
    shown = ((image + 1) / 2).numpy()
    return shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)
