"""`facemix cost`: what a partition costs on each side."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facemix.cost import Link, PartitionCost

__all__ = ["add", "run"]

WIRE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
MEBI = 1 << 20
LINK = 1e-6, 1e9  # what --link takes: figures stay some that can be read
MOST = 2 * 10**12  # multiply-adds of a group, which is computed a few times: minutes on a few cores

#: What is asked about, by default; --paper asks about the paper's own.
ASKED: dict[str, Any] = {
    "model": "resnet18",
    "option": [],
    "image": (3, 218, 178),
    "pre": 1,
    "post": 1,
    "group_size": 8,
    "wire_dtype": "float32",
    "link": (15.0, 30.0, 25.0),
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "cost",
        help="parameters, multiply-adds, bytes and seconds of a partition, on each side",
        description="Count what each side of a split network costs for one image: parameters, multiply-adds, bytes; "
        "seconds on the link by the model of the paper's Table 1; and seconds of computing, measured on this machine "
        "(PyTorch, random weights, one group at a time).",
    )
    parser.add_argument("--model", help="name of a model (default: %(default)s)")
    parser.add_argument(
        "--option",
        action="append",
        metavar="NAME=VALUE",
        help="an option of the model, such as num_classes=80 or width=0.25; may be repeated",
    )
    parser.add_argument(
        "--image", type=int, nargs=3, metavar=("C", "H", "W"), help="shape of an image (default: 3 218 178)"
    )
    parser.add_argument("--pre", type=int, help="blocks of the edge's first part (default: 1)")
    parser.add_argument("--post", type=int, help="layers of the edge's last part (default: 1)")
    parser.add_argument("--group-size", type=int, metavar="S", help="images in a group (default: 8)")
    parser.add_argument("--wire-dtype", choices=WIRE_BYTES, help="dtype of what is sent (default: %(default)s)")
    parser.add_argument(
        "--link",
        type=float,
        nargs=3,
        metavar=("UP", "DOWN", "MS"),
        help="Mibit/s up and down, milliseconds one way (default: 15 30 25, the paper's 4G)",
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="print the paper's Table 1 and the edge's cost in Tables 2 and 3, beside ours",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, **ASKED)


def run(arguments: argparse.Namespace) -> None:
    """Count, measure and print."""
    if arguments.paper:
        if given := [name for name, default in ASKED.items() if getattr(arguments, name) != default]:
            raise ValueError(f"cost: --{given[0].replace('_', '-')} must not be given with --paper, got both")
        _paper(arguments.json)
        return
    from facemix.cost import MIBIT, Link, partition_cost
    from facemix.cost.parts import part_seconds
    from facemix.models import build
    from facemix.partition import partition
    from facemix_ops.rules import MAX_GROUP

    if not 1 <= arguments.group_size <= MAX_GROUP:
        raise ValueError(f"cost: --group-size must be between 1 and {MAX_GROUP}, got {arguments.group_size}")

    up, down, milliseconds = arguments.link
    low, high = LINK
    if not (low <= up <= high and low <= down <= high and 0 <= milliseconds <= high):
        raise ValueError(
            f"cost: --link must be two rates from {low:g} to {high:g} and a time from 0 to {high:g}, "
            f"got {up:g} {down:g} {milliseconds:g}"
        )
    options = dict(map(_option, arguments.option))
    for name, cut in (("pre", arguments.pre), ("post", arguments.post)):
        if options.get(name, cut) != cut:
            raise ValueError(f"cost: --option {name} must be what --{name} is, {cut}, got {options[name]!r}")
    model = build(arguments.model, options).eval()
    image_shape, size = tuple(arguments.image), arguments.group_size
    cost = partition_cost(model, image_shape, pre=arguments.pre, post=arguments.post, group_size=size)
    if (work := size * cost.whole_multiply_adds) > MOST:
        raise ValueError(
            f"cost: a group must take at most {MOST / 1e12:g} T multiply-adds, as it is computed here, got "
            f"{work / 1e12:.1f} T: give a smaller --image, --group-size or network; facemix.cost.partition_cost counts "
            "any, and computes none"
        )
    link = Link(up * MIBIT, down * MIBIT, milliseconds / 1e3)
    seconds = part_seconds(partition(model, arguments.pre, arguments.post), image_shape, size)
    figures = _figures(cost, link, seconds, arguments.wire_dtype)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        _show(figures, arguments.model)


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ValueError(f"cost: --option must be NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _figures(cost: PartitionCost, link: Link, seconds: tuple[float, float, float], wire_dtype: str) -> dict[str, Any]:
    """All figures of one image, as JSON values."""
    from facemix.cost import transfer_seconds

    # int8 comes with a scale for each channel of a row, a float32.
    scales = 4 * cost.edge_first.output_channels if wire_dtype == "int8" else 0
    up = cost.edge_first.output_bytes // 4 * WIRE_BYTES[wire_dtype] + scales
    answer_bytes = 4 if wire_dtype == "int8" else WIRE_BYTES[wire_dtype]
    down = cost.cloud.output_bytes // 4 * answer_bytes
    parts = {"edge, first": cost.edge_first, "cloud": cost.cloud, "edge, last": cost.edge_last}
    return {
        "image_shape": list(cost.image_shape),
        "group_size": cost.group_size,
        "wire_dtype": wire_dtype,
        "parts": {
            name: {
                "parameters": part.parameters,
                "multiply_adds": part.multiply_adds,
                "output_shape": list(part.output_shape),
                "seconds": time,
            }
            for (name, part), time in zip(parts.items(), seconds, strict=True)
        },
        "mix_multiply_adds": cost.mix_multiply_adds,
        "edge_share": cost.edge_share,
        "bytes_up": up,
        "bytes_down": down,
        "link": {"up_bit_s": link.up, "down_bit_s": link.down, "latency_s": link.latency},
        "link_seconds": transfer_seconds(link, up, down),
        "link_seconds_group": transfer_seconds(link, cost.group_size * up, cost.group_size * down),
    }


def _show(figures: dict[str, Any], model: str) -> None:
    from rich.table import Table

    from facemix.console import Console

    size = figures["group_size"]
    table = Table(title=f"{model} at {' x '.join(map(str, figures['image_shape']))}, one image")
    for column in ("", "parameters", "multiply-adds", "leaves it", "ms here"):
        table.add_column(column, justify="left" if not column else "right")
    for name, part in figures["parts"].items():
        shape = " x ".join(map(str, part["output_shape"]))
        numbers = (f"{part['parameters'] / 1e6:.2f} M", f"{part['multiply_adds'] / 1e9:.3f} G")
        table.add_row(name, *numbers, shape, f"{1e3 * part['seconds']:.2f}")
    table.add_row(f"mixing, groups of {size}", "", f"{figures['mix_multiply_adds'] / 1e9:.3f} G", "", "")
    console = Console()
    console.print(table)
    link = figures["link"]
    console.print(
        f"the edge computes {figures['edge_share']:.1%} of the network's multiply-adds\n"
        f"{figures['bytes_up'] / MEBI:.3f} MiB up and {figures['bytes_down'] / MEBI:.4f} MiB down an image "
        f"in {figures['wire_dtype']}: {figures['link_seconds']:.2f} s alone, {figures['link_seconds_group']:.2f} s a "
        f"group of {size}, at {link['up_bit_s'] / MEBI:g} and {link['down_bit_s'] / MEBI:g} Mibit/s, "
        f"{1e3 * link['latency_s']:g} ms one way"
    )


def _paper(as_json: bool) -> None:
    from facemix.cost.paper import paper_tables

    tables = paper_tables()
    if as_json:
        print(json.dumps({name: [row.as_json() for row in rows] for name, rows in tables.items()}, indent=2))
        return
    from rich.table import Table

    from facemix.console import Console

    console = Console()
    for name, rows in tables.items():
        table = Table(title=f"{name}: ours (the paper's)")
        table.add_column("")
        for column in rows[0].cells:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(row.method, *(f"{cell.ours or '-'} ({cell.paper})" for cell in row.cells.values()))
        console.print(table)
        for row in rows:
            if row.why:
                console.print(f"{row.method}: {row.why}")
