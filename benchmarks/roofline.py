"""The roofline: what each workload reaches against what the machine could do at most, as measured in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from results import Result

# Who, as in contestants' names: how it is drawn.
SERIES = {
    "facemix": ("tab:blue", "o", "facemix"),
    "facemix+avx2": ("tab:cyan", "v", "facemix, AVX2 only"),
    "onnxruntime": ("tab:orange", "s", "ONNX Runtime"),
    "pytorch": ("tab:red", "^", "best of PyTorch eager and compile"),
}


def draw(data: dict[str, Any], path: Path) -> None:
    """Writes a PNG with a panel for each number of threads."""
    results = [Result(entry) for entry in data["results"]]
    counts = sorted({result.threads for result in results})
    figure = Figure(figsize=(7 * len(counts), 6.5), layout="constrained")
    for axes, threads in zip(figure.subplots(1, len(counts), squeeze=False)[0], counts, strict=True):
        _panel(axes, [result for result in results if result.threads == threads])
        axes.set_title(f"{threads} thread{'s' if threads > 1 else ''}")
    machine = data["machine"]
    figure.suptitle(f"float32, {machine['cpu']}, {machine['capability']}; commit {data['commit'][:7]}")
    figure.savefig(path, dpi=120)


def _panel(axes: Any, results: list[Result]) -> None:
    intensities = [result.flop / (result.bytes_read + result.bytes_written) for result in results]
    x = np.geomspace(min(intensities) / 2, max(intensities) * 2, 200)
    writing = float(np.median([result.bandwidth["write"] for result in results])) / 1e9
    copying = 2 * float(np.median([result.bandwidth["copy"] for result in results])) / 1e9
    peaks = {name: float(np.median([result.peaks[name] for result in results])) / 1e9 for name in results[0].peaks}
    for (capability, peak), style in zip(peaks.items(), ("-", "--"), strict=False):
        label = f"FMA, {capability}: {peak:.0f} GFLOP/s; writing: {writing:.1f} GB/s"
        axes.plot(x, np.minimum(peak, x * writing), style, color="black", linewidth=1, label=label)
    x = x[x * copying < max(peaks.values())]
    axes.plot(x, x * copying, ":", color="black", linewidth=1, label=f"copying: {copying:.1f} GB/s in and out")
    labelled = set()
    names: dict[float, list[str]] = {}  # of intensities that cannot be told apart, together
    for result, intensity in zip(results, intensities, strict=True):
        for who, name in _points(result).items():
            color, marker, label = SERIES[who]
            speed = result.flop / result.time(name).median / 1e9
            axes.plot(intensity, speed, marker, color=color, label=None if who in labelled else label)
            labelled.add(who)
        names.setdefault(float(f"{intensity:.2g}"), []).append(f"{result.op} {result.workload}")
    above = 1.15 * max(peaks.values())
    for intensity, those in names.items():
        axes.axvline(intensity, color="black", alpha=0.15, linewidth=0.7, zorder=0)
        text = {"rotation": 90, "fontsize": 7, "ha": "center", "va": "bottom", "ma": "left"}
        axes.text(intensity, above, "\n".join(those), **text)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte that must be read or written", ylabel="GFLOP/s")
    axes.set_ylim(top=5 * max(peaks.values()))  # room for the names
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)


def _points(result: Result) -> dict[str, str]:
    """The contestant to draw for each series."""
    ours = result.best("facemix")
    points = {"facemix": ours, "onnxruntime": result.best("onnxruntime"), "pytorch": result.best("eager", "compile")}
    points["facemix+avx2"] = f"{ours}+avx2"
    return {who: name for who, name in points.items() if name in result.seconds}
