"""`facemix audit`: attacks on what an edge sends, and a report of what they recover."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facemix.atomic import check_folder

from .parsing import settings_parser

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from facemix.audit.attack import Attack
    from facemix.audit.record import Audit
    from facemix.audit.target import Target

__all__ = ["add", "run"]

#: Settings of data that the edge decides, or that no attack uses: photographs are attacked as they are.
WITHOUT = {"size", "channels", "augment", "distort", "workers"}
DESCRIPTION = (
    "Attack what an edge sends, and report how far each attack gets, from a floor, without attacking, to a ceiling, "
    "where nothing is hidden. RUN is the folder of one seed of `facemix train`, such as runs/orl/seed-0; without it, "
    "give --edge and the photographs (--data.*), and --cloud to attack the cloud's answers as well. Options win over "
    "RUN. Photographs are attacked as they are, without data.distort. The same command resumes an interrupted audit. "
    "--import MODULE registers a network of your own. See docs/audit.md."
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command. Its options come from the settings of data, too, and are parsed by `run`."""
    parser = commands.add_parser(
        "audit",
        help="attack what an edge sends, and report what the attacks recover",
        add_help=False,
    )
    parser.set_defaults(run=run, forwarded=[])


def run(arguments: argparse.Namespace) -> int:
    """Attack and report. The status says whether too much was recovered, where --fail-above says how much that is."""
    parser, rest = _parser(), arguments.forwarded
    folder = Path(rest[0]) if rest and not rest[0].startswith("-") else None
    given = [] if folder is None else _of_run(folder)
    options = parser.parse_args([*given, *rest[folder is not None :]])
    attacks = _attacks(options)
    if options.list:
        _list(attacks)
        return 0
    out: Path | None = options.out or (None if folder is None else folder / "audit")
    if options.edge is None:
        raise ValueError("audit: RUN or --edge must be given, got neither")
    if folder is None and not any(option.split("=")[0] in ("--data", "--data.source") for option in rest):
        raise ValueError("audit: --data.source must be given with --edge: whose photographs it mixes, got none")
    if out is None:
        raise ValueError("audit: --out must be given where there is no RUN, got none")
    check_folder("audit: --out", out)

    from facemix.audit.report import HTML, add_privacy, write_audit
    from facemix.audit.verdict import exit_status

    target = _target(parser, options)
    audit = _audit(target, attacks, options, out)
    write_audit(audit, out)
    if folder is not None and target == _target(parser, parser.parse_args(given)):
        add_privacy(audit, folder)
    _show(audit)
    print(f"report: {out / HTML}")
    return 0 if options.fail_above is None else exit_status(audit.verdict, options.fail_above)


def _parser() -> ArgumentParser:
    from facemix.training.settings import DataSettings

    parser = settings_parser("facemix audit [RUN]", DESCRIPTION)
    add = parser.add_argument
    add("--out", type=Path | None, help="folder for the report and for finished attacks (default: RUN/audit)")
    add("--quick", action="store_true", help="fewer and weaker attacks: a minute instead of five")
    add("--attacks", type=str, nargs="+", metavar="NAME", help="only these; the others count as unknown")
    add("--attack-file", type=Path | None, metavar="FILE", help="a Python file with attacks of your own")
    add("--list", action="store_true", help="list the attacks, and what each knows")
    add("--victims", type=int, default=120, metavar="N", help="photographs of the test set to attack, at most")
    add("--seed", type=int, default=0, help="seed of all random draws")
    add("--edge", type=Path | None, metavar="FILE", help="the edge's file")
    add("--cloud", type=Path | None, metavar="FILE", help="the cloud's file")
    add("--max-coeff", type=float | None, metavar="C", help="bound on the coefficients, instead of the edge's")
    add(
        "--blinders",
        type=Path | None,
        metavar="FILE",
        help="blind rows with noise like this pool's, of which none is used",
    )
    add("--wire-dtype", type=str | None, metavar="DTYPE", help="dtype on the wire, instead of the edge's")
    add(
        "--fail-above",
        type=float | None,
        metavar="SHARE",
        help="exit with 3 if an attack recovers more than this, 0 to 1; with 4 if none does, but one gave no answer",
    )
    parser.add_class_arguments(DataSettings, "data", skip=WITHOUT)
    return parser


def _of_run(folder: Path) -> list[str]:
    """The options that stand for the folder of a seed."""
    from facemix.report.results import RESULTS, read_result, seed_hint
    from facemix.training.deploy import CLOUD, EDGE

    if not (folder / EDGE).is_file():
        rule = f"RUN must hold {EDGE}, as the folder of a seed does that is split"
        raise ValueError(f"audit: {rule}, got {folder}{seed_hint(folder)}")
    data = read_result(folder / RESULTS)["settings"]["data"]
    data = json.dumps({name: value for name, value in data.items() if name not in WITHOUT})
    return ["--edge", str(folder / EDGE), "--cloud", str(folder / CLOUD), "--data", data]


def _attacks(options: Namespace) -> tuple[type[Attack], ...]:
    """All, checked against the options."""
    from facemix.audit.loading import load_attacks
    from facemix.audit.registry import ATTACKS

    attacks = ATTACKS
    if options.attack_file is not None:
        attacks += load_attacks(options.attack_file, [attack.name for attack in ATTACKS])
    names = [attack.name for attack in attacks]
    if unknown := [name for name in options.attacks or () if name not in names]:
        raise ValueError(f"audit: --attacks must be of {', '.join(names)}, got {unknown[0]!r}")
    if options.victims < 1:
        raise ValueError(f"audit: --victims must be at least 1, got {options.victims}")
    if options.fail_above is not None and not 0 <= options.fail_above <= 1:
        raise ValueError(f"audit: --fail-above must be between 0 and 1, got {options.fail_above}")
    return attacks


def _target(parser: ArgumentParser, options: Namespace) -> Target:
    from facemix.audit.target import Target

    data, others = parser.instantiate(options).data, (options.max_coeff, options.blinders, options.wire_dtype)
    return Target(options.edge, data, options.cloud, *others)


def _audit(target: Target, attacks: tuple[type[Attack], ...], options: Namespace, out: Path) -> Audit:
    from facemix.audit.progress import Terminal
    from facemix.audit.record import Audit, scene_json
    from facemix.audit.report import HTML, JSON
    from facemix.audit.run import run_audit
    from facemix.audit.store import Store
    from facemix.environment import environment

    effort: Any = "quick" if options.quick else "full"
    scene = target.scene(victims=options.victims, seed=options.seed, effort=effort)
    for name in (HTML, JSON):  # of an earlier audit: it must not be taken for this one if this one is interrupted
        (out / name).unlink(missing_ok=True)
    with Terminal() as terminal:
        outcomes = run_audit(
            scene,
            attacks,
            only=options.attacks,
            store=Store(out / "attacks", scene, target.settings()),
            watch=terminal,
        )
    settings = {**scene_json(scene), **target.settings()}
    return Audit(target.bundle.name, attacks, outcomes, settings, environment())


def _list(attacks: tuple[type[Attack], ...]) -> None:
    from rich.table import Table

    from facemix.console import Console

    table = Table("name", "asks", "knows, besides what the cloud receives", "source")
    for attack in attacks:
        table.add_row(attack.name, attack.title, attack.knows, attack.source)
    Console().print(table)


def _show(audit: Audit) -> None:
    from rich.table import Table

    from facemix.audit.progress import told
    from facemix.console import Console

    table = Table("attack")
    for column in ("floor", "result", "ceiling"):
        table.add_column(column, justify="right")
    table.add_column("")
    for name, outcome in audit.outcomes.items():
        figures = (outcome.floor, outcome.result, outcome.ceiling)
        table.add_row(name, *("" if f is None else f"{f:.3f}" for f in figures), told(outcome))
    console = Console()
    console.print(table)
    console.print(audit.verdict.headline, style="bold", markup=False)
    for reason in audit.verdict.reasons:
        console.print(f"- {reason}", markup=False)
