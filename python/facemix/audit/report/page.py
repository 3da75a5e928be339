"""The report of an audit as one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from facemix.audit.outcome import Outcome
from facemix.audit.record import Audit
from facemix.audit.verdict import level, levels, sentence
from facemix.report.charts import data_uri
from facemix.report.origin import flat
from facemix.report.spread import percent
from facemix.report.table import Table
from facemix.report.template import template

from .charts import gauge, roc

__all__ = ["page"]

TEMPLATE = "audit.html.j2"


def page(audit: Audit, pictures: Mapping[str, Path]) -> str:
    """The HTML.

    Args:
        audit: what to tell.
        pictures: a PNG of some attacks, by name.

    Raises:
        OSError: a picture cannot be read.
    """
    far = levels(audit.outcomes)
    attacks = [
        {
            "attack": attack,
            "outcome": (outcome := audit.outcomes[attack.name]),
            "level": far[attack.name],
            "reason": sentence(outcome.reason) if outcome.reason else "",
            "figures": _figures(outcome),
            "gauge": gauge(outcome),
            "variants": _variants(outcome),
            "curves": [(curve, roc(curve)) for curve in outcome.curves],
            "picture": data_uri(pictures[attack.name]) if attack.name in pictures else None,
        }
        for attack in audit.attacks
    ]
    return template("facemix.audit.report", TEMPLATE).render(
        audit=audit,
        attacks=attacks,
        settings=Table("Settings", ("setting", "value"), tuple(flat(dict(audit.settings)))),
        environment=Table("Machine and versions", ("", ""), tuple(flat(dict(audit.environment)))),
    )


def _figures(outcome: Outcome) -> tuple[str, ...]:
    """Floor, result, interval, ceiling, recovered."""
    interval = "" if outcome.interval is None else " to ".join(map(_figure, outcome.interval))
    recovered = outcome.recovered
    share = "unknown" if level(outcome) == "unknown" else "" if recovered is None else percent(recovered)
    return _figure(outcome.floor), _figure(outcome.result), interval, _figure(outcome.ceiling), share


def _variants(outcome: Outcome) -> Table | None:
    if not outcome.variants:
        return None
    rows = ((v.name, _figure(v.floor), _figure(v.result), _figure(v.ceiling)) for v in outcome.variants)
    return Table("Also", ("", "floor", "result", "ceiling"), tuple(rows))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
