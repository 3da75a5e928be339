"""Tables of accuracy and cost."""

from __future__ import annotations

from facemix.plural import plural

from .paper import BASELINE, PAPER_SETTINGS, PaperRow, paper_rows
from .results import Runs
from .spread import count, percent
from .table import NETWORKS, Table

__all__ = ["accuracy", "comparison", "cost", "heading", "paper"]

BYTE_UNITS = ((1 << 20, "MiB"), (1 << 10, "KiB"))


def accuracy(runs: Runs) -> Table:
    """Networks by accuracy over the seeds."""
    rows = []
    for name in runs.networks:
        spread = runs.accuracy(name)
        balanced = "" if name == "collapsed" else runs.score(name, "balanced_accuracy").percent()
        rows.append((NETWORKS[name][0], spread.percent(), spread.limits(), balanced))
    chance = runs.score("baseline", "chance").percent()
    rows.append(("chance", chance, "", ""))
    data = runs.first["data"]
    seeds = ", ".join(str(seed["seed"]) for seed in runs.seeds)
    note = (
        f"On {plural(data[data['evaluated_on']], 'photograph')} of the {data['evaluated_on']} set; seeds {seeds}: "
        f"mean ± standard deviation. Through the mix: {plural(runs.first.settings['rounds'], 'round')} for each seed, "
        "with fresh keys and groups."
    )
    if "baseline_longer" in runs.networks:
        note += f" Longer: for {runs.epochs('mixed')} more."
    return Table("Accuracy", ("network", "accuracy", "lowest to highest", "balanced accuracy"), tuple(rows), note)


def heading(experiments: list[Runs]) -> str:
    """The names of experiments; variants of one share theirs."""
    return ", ".join(dict.fromkeys(runs.name for runs in experiments))


def comparison(experiments: list[Runs]) -> Table:
    """Several experiments, a line each."""
    names = [name for name in NETWORKS if any(name in runs.networks for runs in experiments)]
    rows = []
    for runs in experiments:
        mix = runs.first.settings["mix"]
        cells = (runs.accuracy(name).percent() if name in runs.networks else "" for name in names)
        cost = runs.first.values.get("cost")
        share = percent(cost["edge_share"]) if cost else ""
        cut = (
            ("", "", share)
            if runs.protected
            else (str(mix["group_size"]), str(runs.deployed["pre"]) if cost else "", share)
        )
        rows.append((runs.name, *cut, str(len(runs.seeds)), *cells))
    columns = ("experiment", "group size", "N_pre", "edge's share", "seeds", *(NETWORKS[name][1] for name in names))
    return Table("Experiments", columns, tuple(rows))


def paper(runs: Runs) -> Table | None:
    """Our accuracy beside the paper's; None for data that it does not use."""
    lines = paper_rows(runs.first["data"]["source"])
    if not lines:
        return None
    if runs.method not in (line.method for line in lines):
        lines = (*lines, PaperRow(runs.method))
    mix = runs.first.settings["mix"]
    validation = runs.first["data"]["evaluated_on"] == "validation"
    rows = []
    for line in lines:
        network = "baseline" if line.method == BASELINE else "protected" if runs.protected else "mixing_aware"
        ours = network in runs.networks and line.method in (BASELINE, runs.method)
        rows.append(
            (
                line.method,
                runs.accuracy(network).percent() if ours else "",
                _printed(line.validation if validation else line.test),
                runs.score(network, "balanced_accuracy").percent() if ours else "",
                _printed(None if validation else line.balanced),
                _printed(line.person),
                _printed(line.attributes),
            )
        )
    size = 1 if runs.protected else mix["group_size"]
    names = dict.fromkeys((runs.first.settings["model"]["name"], runs.deployed["name"]))  # of the baseline; what mixes
    ours_are = f"{' and '.join(names)}, {len(runs.first['data']['labels'])} labels, groups of {size}"
    note = (
        f"The paper's are of {PAPER_SETTINGS}; these are of {ours_are}, {plural(len(runs.seeds), 'seed')}. Its "
        "attacks are `identity` and `attributes` of facemix audit, which has stronger ones."
    )
    columns = (
        "network", "accuracy here", "the paper's", "balanced accuracy here", "the paper's, balanced",
        "the paper's attack: who", "the paper's attack: attributes",
    )  # fmt: skip
    return Table("Beside the paper", columns, tuple(rows), note)


def _printed(value: float | None) -> str:
    return "" if value is None else f"{value} %"


def cost(runs: Runs) -> Table | None:
    """Of one image, on each side; None where nothing is cut."""
    values = runs.first.values.get("cost")
    if not values:
        return None
    rows = (
        ("multiply-adds on the edge", f"{count(values['edge_multiply_adds'])} ({percent(values['edge_share'])})"),
        ("multiply-adds in the cloud", count(values["cloud_multiply_adds"])),
        ("multiply-adds of the whole baseline", count(values["whole_multiply_adds"])),
        ("parameters on the edge", count(values["edge_parameters"])),
        ("parameters in the cloud", count(values["cloud_parameters"])),
        ("upload, float32", _size(values["bytes_up"])),
        ("download, float32", _size(values["bytes_down"])),
    )
    return Table("Cost of an image", ("", "figure"), rows)


def _size(size: int) -> str:
    for factor, unit in BYTE_UNITS:
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} bytes"
