"""The result of benchmarks/gpu.py: for a terminal, for docs/benchmarks.md, as a chart.

python benchmarks/gpu_table.py FILE [--chart PNG]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from marked_pages import markdown_table
from results import Quartiles, ms, quartiles

COMMITTED = Path(__file__).parent / "results" / "gpu.json"
COLORS = {"native": "tab:blue", "triton": "tab:cyan", "compile": "tab:orange", "eager": "tab:red"}
LABELS = {"native": "facemix, CUDA", "triton": "facemix, Triton", "compile": "torch.compile", "eager": "PyTorch eager"}
Entry = dict[str, Any]


def best(entry: Entry, who: str) -> str:
    """The fastest contestant of this kind; empty where none ran."""
    names = [name for name in entry["seconds"] if name.split("/")[0] == who]
    return min(names, key=lambda name: median(entry["seconds"][name]), default="")


def ratio(entry: Entry, slow: str, fast: str) -> Quartiles:
    """How many times longer ``slow`` takes: quartiles of the ratios within rounds."""
    pairs = zip(entry["seconds"][slow], entry["seconds"][fast], strict=True)
    return quartiles([a / b for a, b in pairs])


def groups(data: Entry) -> Iterator[dict[str, Entry]]:
    """The entries of one job by backend, job after job."""
    jobs: dict[tuple[str, ...], dict[str, Entry]] = {}
    for entry in data["results"]:
        jobs.setdefault((entry["op"], entry["workload"], entry["dtype"]), {})[entry["backend"]] = entry
    yield from jobs.values()


def text(data: Entry) -> str:
    """Every contestant of every job, with the state of the card while it ran."""
    lines = [limits(data), ""]
    for entry in data["results"]:
        lines.append(f"{entry['op']} {entry['workload']}, {entry['dtype']}, {entry['backend']}")
        for name, seconds in entry["seconds"].items():
            time = quartiles(seconds)
            cells = [f"  {name:22}{ms(time.median):>9} ms {f'({ms(time.low)}-{ms(time.high)})':18}"]
            if "facemix" in entry["seconds"]:
                cells.append(f"{ratio(entry, name, 'facemix').median:6.2f}x")
            if "floor" in entry:
                cells.append(f"{entry['floor'] / time.median:5.0%} of the roofline")
            cells += [f"{value:.0f} {what.split(', ')[1]}" for what, value in entry["state"][name].items()]
            lines.append("  ".join(cells))
    for run in data["runs"]:
        lines += [f"left out, {run['backend']}: {name}" for name in run["left_out"]]
        lines += [f"FAILED, {run['backend']}: {name}" for name in run["failed"]]
    return "\n".join(lines)


def limits(data: Entry) -> str:
    """What the card was measured to be capable of."""
    rates = data["runs"][0]["roofline"]["rates"]
    products = ", ".join(f"{rate / 1e12:.0f} TFLOP/s {name}" for name, rate in rates.items() if name != "copy")
    return f"{data['machine']['name']}: a copy moves {rates['copy'] / 1e12:.2f} TB/s, matrix products reach {products}"


def cells(group: dict[str, Entry]) -> dict[str, str]:
    """What docs/benchmarks.md says of one job; the peers' times are those of the run that had most of them."""
    entry = max(group.values(), key=lambda entry: len(entry["seconds"]))
    row = {"workload": f"`{entry['op']}` {entry['workload']}, {entry['dtype']}"}
    for backend, own in group.items():
        time = median(own["seconds"]["facemix"])
        row[f"{backend}, ms"] = ms(time)
        row[f"{backend}, of the roofline"] = f"{own['floor'] / time:.0%}" if "floor" in own else ""
    for who in ("eager", "compile"):
        if name := best(entry, who):
            times = ratio(entry, name, "facemix")
            row[f"{who} takes"] = f"{times.median:.2f}x ({times.low:.2f} to {times.high:.2f})"
    # Two runs, so by what both of them raced against.
    if {"native", "triton"} <= set(group) and all(best(own, "eager") for own in group.values()):
        times = [ratio(group[backend], best(group[backend], "eager"), "facemix").median for backend in group]
        by_backend = dict(zip(group, times, strict=True))
        row["Triton takes"] = f"{by_backend['native'] / by_backend['triton']:.2f}x"
    return row


def section(data: Entry) -> str:
    """Markdown: a row a job."""
    rows = [cells(group) for group in groups(data)]
    wanted = ("workload", "native, ms", "native, of the roofline", "triton, ms", "triton, of the roofline",
              "eager takes", "compile takes", "Triton takes")  # fmt: skip
    titles = [title for title in wanted if any(row.get(title) for row in rows)]
    table = markdown_table(titles, ([row.get(title) or "-" for title in titles] for row in rows))
    versions, rounds = data["versions"], max(run["rounds"] for run in data["runs"])
    left_out = sum(len(run["left_out"]) for run in data["runs"])
    source = (
        f"Medians of {rounds} interleaved rounds, CUDA graphs, channels_last, groups of 8. Calls follow each other: "
        f"what fits the L2 cache is there, and has no roofline. float32 behind a convolution is TF32 for everybody. "
        f"The training step is as users write it, beside that of the network without a mix. {limits(data)}, driver "
        f"{data['machine'].get('driver', 'unknown')}. CUDA {versions['cuda']}, PyTorch {versions['torch']}, Triton "
        f"{versions['triton']}; commit {data['commit'][:7]}, {data['date']}. Left out for want of time: {left_out} "
        f"races."
    )
    return f"{table}\n\n{source}\n"


def draw(data: Entry, path: Path) -> None:
    """A PNG: how near everybody comes to the roofline, a panel a dtype; none where no race has one."""
    from matplotlib.figure import Figure

    jobs = [group for group in groups(data) if "floor" in next(iter(group.values()))]
    if not jobs:
        return
    dtypes = sorted({next(iter(group.values()))["dtype"] for group in jobs})
    figure = Figure(figsize=(9 * len(dtypes), 2 + 0.5 * len(jobs) / len(dtypes)), layout="constrained")
    for axes, dtype in zip(figure.subplots(1, len(dtypes), squeeze=False)[0], dtypes, strict=True):
        here = [group for group in jobs if next(iter(group.values()))["dtype"] == dtype]
        for who, color in COLORS.items():
            points = [(i, part) for i, group in enumerate(here) if (part := _part(group, who))]
            if points:
                rows, parts = zip(*points, strict=True)
                axes.plot(parts, rows, "o", color=color, label=LABELS[who])
        names = [next(iter(group.values())) for group in here]
        axes.set_yticks(range(len(here)), [f"{entry['op']} {entry['workload']}" for entry in names], fontsize=7)
        axes.invert_yaxis()
        axes.set(title=dtype, xlabel="part of the roofline: max(bytes / copy bandwidth, FLOP / matrix rate) / time")
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xlim(left=0)
        axes.grid(True, axis="x", alpha=0.3)
    drawn = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=len(drawn), fontsize=8)
    figure.suptitle(f"{limits(data)}; commit {data['commit'][:7]}", fontsize=9)
    figure.savefig(path, dpi=120)


def _part(group: dict[str, Entry], who: str) -> float:
    """Of the roofline; 0 where it did not run."""
    if who in ("native", "triton"):
        return group[who]["floor"] / median(group[who]["seconds"]["facemix"]) if who in group else 0.0
    entry = max(group.values(), key=lambda entry: len(entry["seconds"]))
    name = best(entry, who)
    return entry["floor"] / median(entry["seconds"][name]) if name else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what gpu.py wrote")
    parser.add_argument("--chart", type=Path, metavar="PNG", help="draw the chart here")
    options = parser.parse_args()
    data = json.loads(options.file.read_text())
    print(text(data))
    if options.chart:
        draw(data, options.chart)


if __name__ == "__main__":
    main()
