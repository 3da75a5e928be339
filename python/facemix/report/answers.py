"""Tables of what was answered right and wrong: attribute by attribute, or person by person."""

from __future__ import annotations

from .results import Runs
from .spread import Spread, percent
from .table import NETWORKS, Table

__all__ = ["attributes", "confused", "confusion"]

PAIRS = 10


def attributes(runs: Runs) -> Table | None:
    """Each attribute's accuracies; None where identity is asked."""
    each = runs.first["scores"]["baseline"]["attributes"]
    if not each:
        return None
    networks = [name for name in ("baseline", "mixing_aware", "linear_cloud") if name in runs.networks]
    main = networks[min(1, len(networks) - 1)]

    def spread(network: str, attribute: str, figure: str) -> Spread:
        return runs.spread(lambda seed: seed["scores"][network]["attributes"][attribute][figure])

    rows = []
    for name in each:
        positive = spread("baseline", name, "positive_share").mean
        no, yes = _recalls(runs, main, name)
        rows.append(
            (
                name.replace("_", " "),
                percent(positive),
                percent(max(positive, 1 - positive)),
                *(spread(network, name, "accuracy").percent() for network in networks),
                *(spread(network, name, "balanced_accuracy").percent() for network in networks),
                yes,
                no,
            )
        )
    short = [NETWORKS[name][1] for name in networks]
    columns = ("attribute", "have it", "chance", *short, *(f"{name}, balanced" for name in short), "found", "ruled out")
    note = (
        f"Found: of those who have it, the share that the {NETWORKS[main][1]} network says so of; ruled out: the same "
        "of those who have it not. Balanced accuracy is the mean of the two."
    )
    return Table("Attributes", columns, tuple(rows), note)


def _recalls(runs: Runs, network: str, attribute: str) -> tuple[str, str]:
    counts = [seed["scores"][network]["attributes"][attribute]["confusion"] for seed in runs.seeds]
    rows = [[sum(c[true][said] for c in counts) for said in (0, 1)] for true in (0, 1)]
    no, yes = (percent(row[true] / sum(row)) if sum(row) else "" for true, row in enumerate(rows))
    return no, yes


def confused(runs: Runs) -> Table | None:
    """The people who are most often taken for another; None where attributes are asked, or nobody is."""
    network = "mixing_aware" if "mixing_aware" in runs.networks else "baseline"
    matrix = confusion(runs, network)
    if matrix is None:
        return None
    labels = runs.first["data"]["labels"]
    pairs = [(n, t, p) for t, row in enumerate(matrix) for p, n in enumerate(row) if n and t != p]
    pairs.sort(key=lambda pair: (-pair[0], *pair[1:]))
    rows = tuple(
        (f"{labels[t]} taken for {labels[p]}", str(n), percent(n / sum(matrix[t]))) for n, t, p in pairs[:PAIRS]
    )
    note = f"{len(pairs)} such pairs in all, over all seeds and rounds."
    title = f"Most confused by the {NETWORKS[network][1]} network"
    return Table(title, ("people", "times", "of that person's"), rows, note) if rows else None


def confusion(runs: Runs, network: str) -> list[list[int]] | None:
    """The counts [true][predicted] of a network, summed over the seeds; None where attributes are asked."""
    matrices = [seed["scores"][network]["confusion"] for seed in runs.seeds]
    if not matrices[0]:
        return None
    return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]
