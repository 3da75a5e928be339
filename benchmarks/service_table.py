"""The result of benchmarks/service.py as Markdown: for its own output, and for docs/serving.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marked_pages import markdown_table
from results import digits, quartiles

COMMITTED = Path(__file__).parent / "results" / "service.json"
IMAGES = 32  # of a batch of the split part


def load_table(rows: list[dict[str, Any]]) -> str:
    """A row for each number of clients and server."""
    header = ["clients", "server", "images/s", "p50, ms", "p95, ms", "p99, ms", "rejections", "errors", "server, MiB"]
    lines = [
        [
            str(row["clients"]),
            row["server"],
            *(digits(row[figure]) for figure in ("images_per_second", "p50_ms", "p95_ms", "p99_ms")),
            digits(row["rejections"]),
            str(sum(sum(errors.values()) for errors in row["errors"])),
            digits(row["resident_bytes"] / (1 << 20)),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def soak_table(result: dict[str, Any]) -> str:
    """A row for each side."""
    header = ["resident memory, MiB", "after a quarter of the run", "at the end", "growth a minute", "peak"]
    figures = ("first_mib", "last_mib", "mib_a_minute", "peak_mib")
    lines = [[side, *(digits(result[side][figure]) for figure in figures)] for side in ("cloud", "edge")]
    counts = result["counts"]
    failed = sum(count for name, count in counts.items() if name not in ("answers", "images", "wrong"))
    said = (
        f"{result['clients']} clients for {result['minutes']:g} minutes: {counts.get('answers', 0)} answers for "
        f"{counts.get('images', 0)} images, {counts['wrong']} wrong, {failed} errors."
    )
    return f"{markdown_table(header, lines)}\n\n{said}"


def split_table(result: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """A row for each activation and contestant: times per image, and how many times as long as the fastest in one piece
    it takes.
    """
    header = [
        "ResNet-18",
        "32 images",
        "ms an image",
        "edge",
        "cloud",
        "network",
        "KiB up",
        "messages",
        "relative time",
    ]
    lines = []
    for activation, contestants in result.items():
        wholes = {name: row["seconds"] for name, row in contestants.items() if "cloud_seconds" not in row}
        best = min(wholes, key=lambda name: quartiles(wholes[name]).median)
        for name, row in contestants.items():
            ratio = quartiles([ours / whole for ours, whole in zip(row["seconds"], wholes[best], strict=True)])
            split = [f"{part}_seconds" for part in ("edge", "cloud", "network")] if name not in wholes else []
            lines.append(
                [
                    {"relu": "ReLU", "prelu": "PReLU"}[activation],
                    name,
                    _ms(row["seconds"]),
                    *([_ms(row[part]) for part in split] or ["-"] * 3),
                    digits(row["bytes_up"][0] / IMAGES / 1024) if split else "-",
                    digits(row["messages"][0]) if split else "-",
                    "1x" if name == best else f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})",
                ]
            )
    return markdown_table(header, lines)


def _ms(seconds: list[float]) -> str:
    return digits(1e3 * quartiles(seconds).median / IMAGES)


def load_statistic(rows: list[dict[str, Any]]) -> str:
    """What the figures of the load are."""
    return f"Medians of {len(rows[0]['errors'])} interleaved rounds, errors summed. "


def split_statistic(result: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """What those of the split are."""
    rounds = len(next(iter(next(iter(result.values())).values()))["seconds"])
    return f"Medians of {rounds} interleaved rounds, and in the last column of the ratios within rounds (quartiles). "


TABLES = {"load": load_table, "soak": soak_table, "split": split_table}
STATISTICS = {"load": load_statistic, "soak": lambda _: "", "split": split_statistic}


def text(data: dict[str, Any]) -> str:
    """The tables of the parts that there are, each with where it comes from."""
    return "\n\n".join(
        f"{TABLES[part](data[part]['result'])}\n\n{STATISTICS[part](data[part]['result'])}"
        f"{_source(part, data[part]['environment'])}"
        for part in TABLES
        if part in data
    )


def section(data: dict[str, Any]) -> str:
    """What stands between the markers in docs/serving.md."""
    return f"{text(data)}\n"


def _source(part: str, where: dict[str, Any]) -> str:
    machine, versions = where["machine"], where["versions"]
    kserve = f", KServe {versions['kserve']}" if part == "load" else ""
    return (
        f"Clients and cloud on the same cores. {machine['cpu']} (family and model {machine['family and model']}), "
        f"{machine['cores']} cores; PyTorch {versions['torch']}, gRPC {versions['grpcio']}{kserve}; "
        f"commit {where['commit'][:7]}, {where['date']}."
    )
