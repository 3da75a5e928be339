"""What benchmarks/experiments.sh trained, as Markdown: for the README, docs/experiments.md and docs/baselines.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from facemix.report.collapse import collapses, edge_with_matrix
from facemix.report.results import RESULTS, Result, Runs
from facemix.report.spread import Spread, count, percent
from marked_pages import markdown_table

COMMITTED = Path(__file__).parent / "results" / "experiments"
#: What each experiment is called where it is a row, in order; the first column of a table.
TASKS = {
    "orl": "`orl`: 40 people, S = 8",
    "orl-affine/wide": "`orl-affine`: the same, rotated, scaled and translated, S = 4; a linear cloud",
    "orl-affine/resnet-4": "the same with ResNet-18 in the cloud, as in the paper",
}
AFFINE = {
    "wide": "`wide_linear`, 1024 rows (the recipe)",
    "wide-256": "`wide_linear`, 256 rows",
    "resnet-2": "ResNet-18, PReLU(1) in the cloud",
    "resnet-4": "the same",
    "resnet-8": "the same",
    "linear-4": "ResNet-18, no activation in the cloud (control 2)",
    "short-8": "ResNet-18, PReLU(1), 80 + 160 epochs",
}
EASY = ("orl", "synthetic")
PROTECTIONS = ("plain", "noise-4", "noise-8", "blur-16", "blur-8", "anonymizer-8")

Cell = Callable[[Runs], str]


def sections() -> dict[str, str]:
    """All of it, by what the markers on the pages say behind "experiments"."""
    return {
        "training": _table(TASKS, {"task, four seeds": None, "epochs": _epochs, **_main()}),
        "affine": _table(
            {f"orl-affine/{name}": text for name, text in AFFINE.items()},
            {
                "network that mixes": None,
                "S": lambda runs: str(runs.first["settings"]["mix"]["group_size"]),
                "seeds": lambda runs: str(len(runs.seeds)),
                **_main(),
            },
        ),
        "easy": _easy(),
        "figure 4": _figure4(),
        "protections": _protections(),
    }


def _main() -> dict[str, Cell]:
    """The columns of every table of networks that mix."""
    return {
        "baseline": _network("baseline"),
        "baseline, equal total epochs": _network("baseline_longer"),
        "through the mix": lambda runs: f"**{_network('mixing_aware')(runs)}**",
        "edge's share": _share,
        "edge alone: its share, its accuracy": _alone,
    }


def _network(name: str) -> Cell:
    """Its accuracy over the seeds; empty where it was not trained."""
    return lambda runs: runs.accuracy(name).percent() if name in runs.networks else ""


def _share(runs: Runs) -> str:
    return percent(runs.first["cost"]["edge_share"])


def _epochs(runs: Runs) -> str:
    return " + ".join(str(runs.first["settings"][training]["epochs"]) for training in ("baseline", "mixed"))


def _alone(runs: Runs) -> str:
    """An edge that runs one matrix in the place of the cloud, reduced where that is cheaper: its multiply-adds over the
    seeds, as a share of the baseline's, and its accuracy.
    """
    found, whole = collapses(runs), runs.first["cost"]["whole_multiply_adds"]
    shares = Spread.of(edge_with_matrix(values) / whole for values in found)
    ends = list(dict.fromkeys(f"{100 * share:.1f}" for share in (shares.low, shares.high)))
    reduced = (values["low_rank"] or {"accuracy": values["collapsed_accuracy"]} for values in found)
    return f"{' to '.join(ends)} %: {Spread.of(values['accuracy'] for values in reduced).percent()}"


def _easy() -> str:
    """The networks of the tasks that cost nothing, a row each."""
    experiments = [_runs(name) for name in EASY]
    rows = {
        "baseline": "baseline",
        "baseline_longer": "the baseline, equal total epochs (control 4)",
        "baseline_mixed": "the baseline through the mix (control 1)",
        "mixing_aware": "mixing-aware, through the mix",
        "linear_cloud": "with no activation in the cloud part (control 2)",
        "collapsed": "with one matrix in its place (control 3)",
    }
    lines = [["", *(f"`{name}`" for name in EASY)]]
    lines += [[text, *(_network(name)(runs) for runs in experiments)] for name, text in rows.items()]
    lines.append(["chance", *(runs.score("baseline", "chance").percent() for runs in experiments)])
    return _markdown(lines, experiments)


def _figure4() -> str:
    """Accuracy through the mix, by blocks before it and by group size."""
    cells: dict[tuple[int, int], list[Result]] = {}
    for seed in _seeds("figure4"):
        cells.setdefault((seed["settings"]["model"]["pre"], seed["settings"]["mix"]["group_size"]), []).append(seed)
    found = {where: Runs(tuple(seeds)) for where, seeds in sorted(cells.items())}
    blocks, sizes = (sorted(set(each)) for each in zip(*found, strict=True))
    lines = [["blocks before the mix", "edge's share", *(f"S = {size}" for size in sizes)]]
    for pre in blocks:
        row = [found[pre, size] for size in sizes]
        lines.append([str(pre), _share(row[0]), *map(_network("mixing_aware"), row)])
    return _markdown(lines, list(found.values()))


def _protections() -> str:
    """What the cloud gets of each of the paper's baselines, and what that costs accuracy."""
    lines = [
        ["", "accuracy", "classifier", "gallery", "sent once", "sent four times", "edge: parameters; multiply-adds"]
    ]
    experiments = [_runs(f"protections/{name}") for name in PROTECTIONS]
    for name, runs in zip(PROTECTIONS, experiments, strict=True):
        audit = json.loads((COMMITTED.parent / "audit" / f"{name}.json").read_text())
        attacks = {attack["name"]: attack["result"] for attack in audit["attacks"]}
        cost = runs.first["cost"]
        lines.append(
            [
                runs.method + ("; of eyeglasses and facial hair" if runs.first["data"]["task"] == "attributes" else ""),
                _network("protected")(runs),
                *(percent(attacks[attack]) for attack in ("identity", "membership")),
                *(f"{attacks[attack]:.3f}" for attack in ("look", "pooling")),
                f"{count(cost['edge_parameters'])}; {count(cost['edge_multiply_adds'])}",
            ]
        )
    return _markdown(lines, experiments)


def _table(rows: dict[str, str], columns: dict[str, Cell | None]) -> str:
    """A row for each experiment, a column for each figure; the first is what the row is called."""
    experiments = [_runs(name) for name in rows]
    lines = [list(columns)]
    for text, runs in zip(rows.values(), experiments, strict=True):
        lines.append([text, *(cell(runs) for cell in columns.values() if cell)])
    return _markdown(lines, experiments)


def _runs(name: str) -> Runs:
    """An experiment that is committed."""
    return Runs(_seeds(name))


def _seeds(name: str) -> tuple[Result, ...]:
    """What the report wrote into one file."""
    path = COMMITTED / name / RESULTS
    return tuple(Result(path.parent, values) for values in json.loads(path.read_text()))


def _markdown(lines: list[list[str]], experiments: Sequence[Runs]) -> str:
    return f"{markdown_table(lines[0], lines[1:])}\n\n{_source(experiments)}\n"


def _source(experiments: Sequence[Runs]) -> str:
    """The machines, versions and commits of all seeds."""
    where = [seed["environment"] for runs in experiments for seed in runs.seeds]
    says = {
        f"{each['cpu']}, {each['cores']} cores, {each['threads']} thread{'s' * (each['threads'] > 1)}; PyTorch "
        f"{each['versions']['torch']}; commit {(each['commit'] or 'unknown')[:7]}"
        for each in where
    }
    return f"Mean ± standard deviation of seeds. {'; '.join(sorted(says))}."
