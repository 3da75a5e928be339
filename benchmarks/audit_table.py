"""What `facemix audit` recovered of the recipe orl, as Markdown: some attacks for the README, all for docs/audit.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from marked_pages import markdown_table

COMMITTED = Path(__file__).parent / "results" / "audit" / "orl.json"


class Row(NamedTuple):
    """How an attack is described.

    Attributes:
        says: what is asked, and what the figures are.
        knows: the attacker, besides the received rows.
        percent: the figures are shares.
        variant: of the attack, whose figures these are; empty: its own.
    """

    says: str
    knows: str
    percent: bool = True
    variant: str = ""


LABELLED = "the edge's software, labelled photographs"
ATTRIBUTES = "the edge's software, photographs with attributes"
PAPER = "the paper's network"
LAST = "if all other photographs of a request are known: correlation with the features of the one that is not"
FACES = "share of the photographs at a |correlation| above 0.9"
SAME = "the same person told from another, nobody being known: share of cases (who has the cloud's part)"
#: Of each attack. Two of them are the paper's: what its network gets is told apart from what our read-outs do.
ROWS = {
    "end_to_end": (
        Row(
            "Do faces come out of shuffled rows? (`end_to_end`: photographs whose features are found at a correlation "
            "above 0.9)",
            "how many rows a group has",
            variant=FACES,
        ),
        Row("Which of two photographs shows the person of a third? (`end_to_end`)", "the cloud's part", variant=SAME),
    ),
    "key_recovery": (
        Row(
            "Can a group be un-mixed? (`key_recovery`, mean matched correlation)",
            "which rows share a group",
            percent=False,
        ),
    ),
    "group_matching": (
        Row(
            "Can the shuffle be undone? (`group_matching`, groups found whole)",
            "how many rows a group has",
            variant="share of groups recovered whole",
        ),
    ),
    "membership": (Row("Who of 40 people is in a row? (`membership`)", LABELLED),),
    "output_side": (
        Row("The same from the cloud's own outputs (`output_side`)", "the same as `membership`, and the cloud's part"),
    ),
    "pooling": (
        Row("A photograph that is sent eight times (`pooling`, correlation)", "which requests hold it", percent=False),
    ),
    "known_image": (
        Row("Which of two photographs was sent? (`known_image`)", "the edge's software, both photographs"),
        Row(
            "All photographs of a request but one are known: how well does that one come out? (`known_image`, "
            "correlation)",
            "the edge's software, the other photographs",
            percent=False,
            variant=LAST,
        ),
    ),
    "linking": (Row("Which of two requests has a photograph in common with a third? (`linking`)", "nothing else"),),
    "identity": (
        Row("Whose row is it? The paper's attack and network (`identity`)", LABELLED, variant=PAPER),
        Row("The same, by our best read-out (`identity`)", LABELLED, variant="linear read-out"),
    ),
    "attributes": (
        Row("Which attributes has it? The paper's attack and network (`attributes`)", ATTRIBUTES, variant=PAPER),
        Row("The same, by our best read-out (`attributes`)", ATTRIBUTES, variant="by who is in the row"),
    ),
    "reconstruction": (
        Row(
            "A generator that draws the photographs: the paper's attack, with a reduced network (`reconstruction`, "
            "SSIM)",
            "the edge's software, photographs",
            percent=False,
        ),
    ),
    "look": (Row("What the rows show as they are (`look`, correlation)", "nothing else", percent=False),),
}
README = ("end_to_end", "known_image", "linking", "membership", "output_side", "identity")


def section(data: dict[str, Any], names: tuple[str, ...] = tuple(ROWS)) -> str:
    """Rows for each attack of `names`: floor, result, ceiling."""
    attacks = {attack["name"]: attack for attack in data["attacks"]}
    header = ["attack", "the attacker knows, besides the received rows", "floor", "result", "ceiling"]
    table = markdown_table(header, (_cells(row, attacks[name]) for name in names for row in ROWS[name]), numbers=3)
    where = data["environment"]
    source = (
        f"Recipe `{data['title']}`, groups of {data['settings']['group_size']}, effort {data['settings']['effort']}, "
        f"one seed. {where['cpu']}, {where['cores']} cores; PyTorch {where['versions']['torch']}; commit "
        f"{where['commit'][:7]}."
    )
    return f"{table}\n\n{source}\n"


def committed() -> dict[str, Any]:
    """The committed result."""
    return json.loads(COMMITTED.read_text())


def _cells(row: Row, figures: dict[str, Any]) -> list[str]:
    if row.variant:
        (figures,) = (variant for variant in figures["variants"] if variant["name"] == row.variant)
    floor, result, ceiling = (_figure(figures[kind], row.percent) for kind in ("floor", "result", "ceiling"))
    return [row.says, row.knows, floor, f"**{result}**", ceiling]


def _figure(value: float | None, percent: bool) -> str:
    if value is None:
        return ""
    if not percent:
        return f"{value:.3f}"
    return "100 %" if value == 1 else f"{100 * value:.1f} %"
