"""Prints a result file, draws its roofline, and writes the tables of the README and of docs/."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import audit_table
import crypten_table
import demo_table
import edge_table
import experiments_table
import gpu_table
import hardening_table
import headline_table
import link_table
import service_table
import wire_table
from marked_pages import PAGES, markdown_table, rewrite
from result_file import compact, write
from results import Result, ms, says_of_memory

COMMITTED = Path(__file__).parent / "results" / "cpu.json"
TABLES = {
    "demo": demo_table,
    "edge benchmark": edge_table,
    "wire benchmark": wire_table,
    "service benchmark": service_table,
    "link benchmark": link_table,
    "crypten benchmark": crypten_table,
    "gpu benchmark": gpu_table,
}


def text_table(entries: list[dict[str, Any]]) -> str:
    """Every contestant of every workload, for a terminal; ratios to our fastest layout."""
    lines = []
    for result in map(Result, entries):
        ours = result.best("facemix")
        lines += [
            f"{result.op} {result.workload}, {_threads(result.threads)}: {_rounds([result])}",
            f"  FMA peak {_peaks([result])}; {_traffic([result])}",
            f"  {'':32}{'ms':>9}{'(quartiles)':>20}{'ratio':>8}{'(quartiles)':>15}{'of FMA':>8}{'of writing':>12}",
        ]
        for name in result.seconds:
            time, ratio = result.time(name), result.ratio(name, ours)
            lines.append(
                f"  {name:32}{ms(time.median):>9}{f'({ms(time.low)}-{ms(time.high)})':>20}{ratio.median:8.2f}"
                f"{f'({ratio.low:.2f}-{ratio.high:.2f})':>15}{result.of_fma_peak(name):8.0%}"
                f"{result.of_write_peak(name):12.0%}"
            )
        lines.append("")
    return "\n".join(lines)


def sections(data: dict[str, Any]) -> dict[str, str]:
    """What stands between each pair of markers on the pages. All but the kernels have result files of their own, those
    for which nothing has run yet excepted.
    """
    found = {"headlines": headline_table.section(data), "benchmarks": kernels(data)}
    for name, module in TABLES.items():
        if module.COMMITTED.exists():
            found[name] = module.section(json.loads(module.COMMITTED.read_text()))
    hardening = hardening_table.tables(json.loads(hardening_table.COMMITTED.read_text()))
    found |= {f"hardening {name}": table for name, table in hardening.items()}
    found |= {f"experiments {name}": table for name, table in experiments_table.sections().items()}
    found["attack headlines"] = audit_table.section(audit_table.committed(), audit_table.README)
    found["attacks on orl"] = audit_table.section(audit_table.committed())
    return found


def kernels(data: dict[str, Any]) -> str:
    """Markdown of the results on most threads."""
    results = [Result(entry) for entry in data["results"]]
    threads = max(result.threads for result in results)
    results = [result for result in results if result.threads == threads]
    machine, versions = data["machine"], data["versions"]
    tables = [
        _markdown([result for result in results if result.op == "conv_mix"]),
        _markdown([result for result in results if result.op != "conv_mix"]),
    ]
    source = (
        f"{_threads(threads)}, float32, groups of 8; medians of {_rounds(results)}. Measured beside: "
        f"{_peaks(results)}; {_traffic(results)}. {says_of_memory(data)} {machine['cpu']} (family and model "
        f"{machine['family and model']}), {machine['cores']} cores, {machine['capability']}; PyTorch "
        f"{versions['torch']}, ONNX Runtime {versions['onnxruntime']}; commit {data['commit'][:7]}, {data['date']}."
    )
    return "\n\n".join([*filter(None, tables), source]) + "\n"


def _markdown(results: list[Result]) -> str:
    """A row for each of our layouts; columns that nobody fills are left out."""
    rows = [
        {title: cell(result, name) for title, cell in COLUMNS.items()} for result in results for name in result.ours
    ]
    titles = [title for title in COLUMNS if any(row[title] for row in rows)]
    return markdown_table(titles, ([row[title] or "-" for title in titles] for row in rows)) if rows else ""


def _workload(result: Result, ours: str) -> str:
    layout = ours.partition("/")[2]
    return f"`{result.op}` {result.workload}" + (f", {layout}" if layout else "")


def _variant(suffix: str) -> Callable[[Result, str], str]:
    """Milliseconds of a variant of ours."""
    return lambda result, ours: ms(result.time(ours + suffix).median) if ours + suffix in result.seconds else ""


def _of_peak(suffix: str) -> Callable[[Result, str], str]:
    return lambda result, ours: f"{result.of_fma_peak(ours + suffix):.0%}" if ours + suffix in result.seconds else ""


def _takes(slow: Callable[[Result, str], str]) -> Callable[[Result, str], str]:
    """How many times longer somebody takes."""

    def cell(result: Result, ours: str) -> str:
        name = slow(result, ours)
        return f"{result.ratio(name, ours).median:.2f}x" if name in result.seconds else ""

    return cell


def _peer(*who: str) -> Callable[[Result, str], str]:
    """How many times longer the fastest of these takes, with quartiles, and which it is where there are several."""

    def cell(result: Result, ours: str) -> str:
        if not (name := result.best(*who)):
            return ""
        ratio = result.ratio(name, ours)
        text = f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"
        return f"{text} {name.split('/')[0]}" if len(who) > 1 else text

    return cell


# What a row says of one workload in one of our layouts; ratios are times ours.
COLUMNS: dict[str, Callable[[Result, str], str]] = {
    "workload": _workload,
    "ms": _variant(""),
    "of FMA peak": _of_peak(""),
    "AVX2 kernels, of AVX2's peak": _of_peak("+avx2"),
    "bfloat16 out, ms": _variant("+bf16-out"),
    "bfloat16 in and out, ms": _variant("+bf16"),
    "on 1 thread": _takes(lambda _, ours: f"{ours}+1-thread"),
    "without `out=`": _takes(lambda _, ours: ours.replace("facemix", "fresh")),
    "plain copy": _takes(lambda *_: "copy"),
    "its convolution alone": _takes(lambda _, ours: ours.replace("facemix", "convolution")),
    "best of PyTorch": _peer("eager", "compile"),
    "ONNX Runtime": _peer("onnxruntime"),
}


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _rounds(results: list[Result]) -> str:
    rounds = {result.rounds for result in results}
    count = str(*rounds) if len(rounds) == 1 else f"{min(rounds)} to {max(rounds)}"
    dropped = sum(result.repeated for result in results)
    kept = sum(result.rounds - result.steady for result in results)
    slow = "in which the threads together were slower than their number promises"
    return f"{count} interleaved rounds ({dropped} more were dropped, and {kept} of these kept, {slow})"


def _peaks(results: list[Result]) -> str:
    peaks = {name: median(result.peaks[name] for result in results) for name in results[0].peaks}
    return ", ".join(f"{peak / 1e9:.0f} GFLOP/s {name}" for name, peak in peaks.items())


def _traffic(results: list[Result]) -> str:
    write, copy = (median(result.bandwidth[kind] for result in results) / 1e9 for kind in ("write", "copy"))
    return f"{write:.1f} GB/s writing, {copy:.1f} GB/s copying"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=COMMITTED, help="what `make bench` wrote (%(default)s)")
    parser.add_argument("--save", type=Path, metavar="JSON", help="write the file in compact form here, to commit it")
    parser.add_argument("--chart", type=Path, metavar="PNG", help="draw the roofline here")
    parser.add_argument("--docs", action="store_true", help="rewrite the tables of the README and of docs/")
    options = parser.parse_args()
    data = json.loads(options.file.read_text())
    if options.save:
        write(options.save, compact(data))
    if options.chart:
        from roofline import draw

        draw(data, options.chart)
    if options.docs:
        rewrite(PAGES, sections(data))
    print(text_table(data["results"]))


if __name__ == "__main__":
    main()
