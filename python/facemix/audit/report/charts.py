"""The drawings of the page: SVG that takes the page's colours."""

from __future__ import annotations

from markupsafe import Markup

from facemix.audit.outcome import Outcome, Roc

__all__ = ["gauge", "roc"]

WIDTH, HEIGHT, EDGE = 160, 18, 6
SIDE, LEFT, BOTTOM, MARGIN = 220, 40, 36, 8


def gauge(outcome: Outcome) -> Markup:
    """A line from floor to ceiling, with the result on it, and its interval; nothing where no result counts."""
    floor, result, ceiling = outcome.floor, outcome.result, outcome.ceiling
    if outcome.recovered is None or floor is None or result is None or ceiling is None:
        return Markup("")
    middle = HEIGHT / 2

    def x(value: float) -> float:
        share = (value - floor) / (ceiling - floor)
        return EDGE + min(max(share, 0.0), 1.0) * (WIDTH - 2 * EDGE)

    low, high = map(x, outcome.interval or (result, result))
    return Markup(
        f'<svg class="strip" width="{WIDTH}" height="{HEIGHT}" role="img"><title>from floor to ceiling</title>'
        f'<line class="axis" x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{middle}" y2="{middle}"/>'
        f'<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="result" cx="{x(result):.1f}" cy="{middle}" r="4"/></svg>'
    )


def roc(curve: Roc) -> Markup:
    """A curve, and the diagonal that chance has."""
    side = SIDE - LEFT - MARGIN

    def point(x: float, y: float) -> str:
        return f"{LEFT + side * x:.1f},{MARGIN + side * (1 - y):.1f}"

    line = " ".join(map(point, curve.false_positive, curve.true_positive))
    bottom, middle = MARGIN + side, LEFT + side / 2
    return Markup(
        f'<svg class="roc" viewBox="0 0 {SIDE} {bottom + BOTTOM}" role="img">'
        f'<rect class="axis" x="{LEFT}" y="{MARGIN}" width="{side}" height="{side}" fill="none"/>'
        f'<polyline class="by_chance" points="{point(0, 0)} {point(1, 1)}"/><polyline points="{line}"/>'
        f'<text x="{LEFT - 6}" y="{MARGIN + 8}" text-anchor="end">1</text>'
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{LEFT + side}" y="{bottom + 14}" text-anchor="end">1</text>'
        f'<text x="{middle}" y="{bottom + 28}" text-anchor="middle">taken by mistake</text>'
        f'<text x="12" y="{MARGIN + side / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {MARGIN + side / 2})">found</text></svg>'
    )
