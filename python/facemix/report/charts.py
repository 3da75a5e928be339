"""The pictures of the page: SVG that takes the page's colours, and PNG where there are too many points for it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from .results import Runs
from .spread import Spread

__all__ = ["STAGES", "curves", "data_uri", "matrix", "strip"]

STAGES = {
    "baseline": "baseline",
    "baseline_longer": "baseline, going on without the mix",
    "mixing_aware": "mixing-aware, through the mix",
    "protected": "behind the protection",
    "linear_cloud": "linear cloud",
}
STRIP_WIDTH, STRIP_HEIGHT, STRIP_EDGE = 180, 18, 6
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 210, 46, 8, 8, 36
STEPS = (1, 2, 5, 10)
MATRIX_COLOUR = (42, 111, 187)
MATRIX_PIXELS = 320  # a side is enlarged to this at least
MATRIX_CLASSES = 1500  # beyond that a picture shows nothing


def strip(spread: Spread, chance: float) -> Markup:
    """A line from 0 to 100 %, a dot for each seed, and a tick at chance."""

    def x(share: float) -> float:
        return STRIP_EDGE + share * (STRIP_WIDTH - 2 * STRIP_EDGE)

    middle = STRIP_HEIGHT / 2
    dots = "".join(f'<circle class="dot" cx="{x(v):.1f}" cy="{middle}" r="4"/>' for v in spread.values)
    return Markup(
        f'<svg class="strip" width="{STRIP_WIDTH}" height="{STRIP_HEIGHT}" role="img">'
        f"<title>0 to 100 %: a dot for each seed, the tick is chance</title>"
        f'<line class="axis" x1="{x(0)}" x2="{x(1)}" y1="{middle}" y2="{middle}"/>'
        f'<line class="chance" x1="{x(chance):.1f}" x2="{x(chance):.1f}" y1="2" y2="{STRIP_HEIGHT - 2}"/>{dots}</svg>'
    )


def curves(runs: Runs) -> list[tuple[str, Markup]]:
    """The loss by epoch of each stage, every seed a line; one logarithmic scale for all stages."""
    stages = [stage for stage in STAGES if any(seed["curves"].get(stage) for seed in runs.seeds)]
    lines = {stage: list(_lines(runs, stage)) for stage in stages}
    losses = [loss for several in lines.values() for _, line in several for _, loss in line]
    if not losses:
        return []
    low, high = min(losses), max(losses)
    return [(STAGES[stage], _chart(stage, several, low, high)) for stage, several in lines.items()]


def _lines(runs: Runs, stage: str) -> Iterable[tuple[str, list[tuple[int, float]]]]:
    for seed in runs.seeds:
        for figure in ("loss", "validation_loss"):
            line = [(epoch["epoch"], epoch.get(figure)) for epoch in seed["curves"].get(stage, [])]
            # A logarithm has no place for zero; and a training that failed may hold what is not a number.
            drawn = [(n, loss) for n, loss in line if loss is not None and math.isfinite(loss) and loss > 0]
            if drawn:
                yield figure, drawn


def _chart(stage: str, lines: Sequence[tuple[str, list[tuple[int, float]]]], low: float, high: float) -> Markup:
    last = max((n for _, line in lines for n, _ in line), default=1)
    bottom, top = math.log(low), math.log(high)

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / max(last - 1, 1)

    def y(loss: float) -> float:
        share = (math.log(loss) - bottom) / (top - bottom) if top > bottom else 0.5
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [f'<svg class="curves {stage}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for loss in _marks(low, high):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(loss):.1f}" y2="{y(loss):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
    for epoch in _epochs(last):
        parts.append(f'<text x="{x(epoch):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{epoch}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">epoch</text>')
    for figure, line in lines:
        path = " ".join(f"{x(n):.1f},{y(loss):.1f}" for n, loss in line)
        parts.append(f'<polyline class="{figure}" points="{path}"/>')
    return Markup("".join(parts) + "</svg>")


def _marks(low: float, high: float) -> list[float]:
    """Round numbers from low to high: 1, 2 and 5 times powers of ten, or powers of ten alone where these are many.

    The two limits where there are not two such numbers.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 4 else (1,)
    marks = [mark for power in powers for step in steps if low <= (mark := step * 10.0**power) <= high]
    return marks if len(marks) > 1 else sorted({low, high})


def _epochs(last: int) -> list[int]:
    """1, and round numbers up to `last`: about five."""
    power = 10 ** max(len(str(last // 5)) - 1, 0)
    step = next(s * power for s in STEPS if s * power * 5 >= last)
    return [1, *(n for n in range(step, last + 1, step) if n > 1)]


def matrix(counts: list[list[int]]) -> str | None:
    """Counts [true][predicted] as the URI of a PNG, true down, predicted across; stronger: a larger share of the row.

    None where there are more than 1500 classes.
    """
    if len(counts) > MATRIX_CLASSES:
        return None
    values = np.asarray(counts, dtype=np.float64)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    pixels = np.empty((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = MATRIX_COLOUR
    # The root shows a share of a hundredth, too.
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    larger = -(-MATRIX_PIXELS // len(counts))
    image = Image.fromarray(pixels.repeat(larger, 0).repeat(larger, 1))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return _uri(stream.getvalue())


def data_uri(path: Path) -> str:
    """A PNG file as a URI that holds all of it.

    Raises:
        OSError: it cannot be read.
    """
    return _uri(path.read_bytes())


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
