"""The README's few figures of speed and cost, of the results whose whole tables are in docs/."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import crypten_table
import edge_table
import link_table
import service_table
from marked_pages import markdown_table
from results import Result, quartiles, says_of_memory

KERNEL = ("conv_mix", "resnet-stem-pool")
DEVICE = "resnet-stem, pool"
LINK = "ORL demo"


def section(data: dict[str, Any]) -> str:
    """Markdown: a row for each figure, with what stands beside it and where both come from.

    Args:
        data: what `make bench` wrote; the others are the committed results.
    """
    rows = [
        _kernel(data),
        _device(_committed(edge_table)),
        _service(_committed(service_table)["split"]),
        _link(_committed(link_table)),
        _crypten(_committed(crypten_table)),
    ]
    table = markdown_table(["what", "facemix", "for comparison", "measured on"], filter(None, rows))
    return f"{table}\n\n{_range(data)}\n"


def _kernel(data: dict[str, Any]) -> list[str]:
    """The first half of an edge, in our fastest layout; empty where it did not run."""
    results = [Result(entry) for entry in data["results"]]
    found = [result for result in results if (result.op, result.workload) == KERNEL]
    if not found:
        return []
    result = max(found, key=lambda result: result.threads)
    ours = result.best("facemix")
    peers = {"the best of PyTorch": ("eager", "compile"), "ONNX Runtime": ("onnxruntime",)}
    takes = [f"{who} {_ratio(result, names, ours):.2f}x as long" for who, names in peers.items() if result.best(*names)]
    what = "ResNet's first convolution, ReLU, pool, mix and shuffle in one pass, 32 images of 218 x 178"
    return [what, f"{1e3 * result.time(ours).median:.3g} ms", ", ".join(takes), _where(data)]


def _device(data: dict[str, Any]) -> list[str]:
    """What an edge half takes with us, and with PyTorch and ONNX Runtime."""
    rows = data["results"][DEVICE]

    def says(who: str) -> str:
        return f"{rows[who]['install_mb']:.0f} MB, {rows[who]['peak_mb']:.0f} MB"

    beside = f"with PyTorch {says('torch')}; with ONNX Runtime {says('onnxruntime')}"
    return [
        "the edge's half on a device: size installed, peak memory",
        says("facemix"),
        beside,
        _where(data["environment"]),
    ]


def _service(data: dict[str, Any]) -> list[str]:
    """A split network, beside the fastest way to run it in one piece."""
    contestants = data["result"]["relu"]
    whole = min(_ms(row) for name, row in contestants.items() if name.startswith("in one piece"))
    split = f"{_ms(contestants['split, float32']):.3g} ms an image, {_ms(contestants['split, int8']):.3g} with int8"
    what = "ResNet-18 through `facemix serve`, edge and cloud on the same cores"
    return [what, split, f"in one piece in PyTorch {whole:.3g} ms", _where(data["environment"])]


def _link(data: dict[str, Any]) -> list[str]:
    """A request over a slow link."""
    entries = {entry["wire"]: entry for entry in data["requests"] if entry["workload"] == LINK}

    def says(wire: str) -> str:
        return f"{median(entries[wire]['seconds']['measured']):.3g} s"

    images = entries["float32"]["cost"]["images"]
    what = f"a request of the demo, {images} photographs, over a simulated 4G link"
    loopback = median(entries["float32"]["seconds"]["loopback"])
    return [what, f"{says('float32')}, {says('int8')} with int8", f"on loopback {loopback:.3g} s", _where(data)]


def _crypten(data: dict[str, Any]) -> list[str]:
    """What it costs to show the cloud nothing."""
    split, public = data["split"], data["crypten"][0]
    images = split["images"]
    megabytes = (split["cost"]["bytes_up"] + split["cost"]["bytes_down"]) / images / 1e6
    return [
        "ResNet-18 beside secure two-party computation, which, unlike the mix, shows the cloud nothing",
        f"{median(split['seconds']) / images:.3g} s and {megabytes:.1f} MB an image",
        f"CrypTen {median(public['seconds']):.3g} s and {public['bytes'] / 1e6:.0f} MB",
        _where(data),
    ]


def _range(data: dict[str, Any]) -> str:
    """How the peers of all kernels fare, on one thread and on more, where we lose included."""
    results = [Result(entry) for entry in data["results"]]
    parts = []
    for who, names in (("the best of PyTorch takes", ("eager", "compile")), ("ONNX Runtime", ("onnxruntime",))):
        ratios = [_ratio(result, names, ours) for result in results if result.best(*names) for ours in result.ours]
        if ratios:
            parts.append(f"{who} {min(ratios):.2f} to {max(ratios):.2f} times as long as ours")
    return f"Over all kernels, shapes, layouts and numbers of threads, {', '.join(parts)}. {says_of_memory(data)}"


def _ratio(result: Result, who: tuple[str, ...], ours: str) -> float:
    return result.ratio(result.best(*who), ours).median


def _ms(row: dict[str, list[float]]) -> float:
    """Milliseconds an image."""
    return 1e3 * quartiles(row["seconds"]).median / service_table.IMAGES


def _where(data: dict[str, Any]) -> str:
    return f"{data['machine']['cpu']}, {data['machine']['cores']} cores; {data['commit'][:7]}"


def _committed(module: Any) -> dict[str, Any]:
    path: Path = module.COMMITTED
    return json.loads(path.read_text())
