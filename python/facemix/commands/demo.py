"""`facemix demo`: the whole pipeline on real faces."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from facemix.atomic import atomic_path, check_folder, check_place

__all__ = ["add", "run"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="recognise test faces through a cloud process that only receives mixtures",
        description="Train a small ResNet-18 on the ORL faces (280 photographs of 40 people), without and "
        "with mixing in the loop; start the cloud half as a process of its own; send the 120 test faces "
        "through it with fresh keys; print accuracy, bytes and times; attack what the cloud received (a quick "
        "audit), and draw it. "
        "Takes a few minutes the first time, seconds once all is in the cache. The same command resumes an "
        "interrupted demo.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("facemix-demo"),
        metavar="DIR",
        help="folder for the picture, the report of the audit, and the files for `facemix serve` and `facemix infer` "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=None,
        metavar="DIR",
        help="folder for trained networks and finished attacks (default: ~/.cache/facemix)",
    )
    parser.add_argument(
        "--group-size", type=int, default=8, metavar="S", help="images in a group, 2 to 64 (default: 8)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of initial weights and training (default: 0)")
    result = parser.add_mutually_exclusive_group()
    result.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all figures to FILE")
    result.add_argument(
        "--web",
        action="store_true",
        help="measure nothing, but serve a page on this machine, where you pick faces and see what the cloud receives",
    )
    parser.add_argument(
        "--web-port", type=int, default=0, metavar="PORT", help="port of the page; 0 takes a free one (default: 0)"
    )
    parser.add_argument("--fresh", action="store_true", help="train again, whatever the cache holds")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the demo and print its figures."""
    from facemix.demo.settings import PICTURE, DemoSettings

    if not 0 <= arguments.web_port <= 65535:
        raise ValueError(f"demo: --web-port must be between 0 and 65535, got {arguments.web_port}")
    if arguments.web_port and not arguments.web:
        raise ValueError(f"demo: --web-port must be given with --web, got {arguments.web_port} without")
    settings = DemoSettings(group_size=arguments.group_size, seed=arguments.seed)
    check_place("demo: files in --out", arguments.out / PICTURE)
    if arguments.json is not None:
        check_place("demo: --json", arguments.json)
    cache = arguments.cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facemix"
    check_folder("demo: --cache", cache)

    # Imported here, so that `facemix serve` loads nothing of the edge, and mistakes are told before this takes seconds.
    from facemix.data import load_orl
    from facemix.demo.report import show
    from facemix.demo.run import run_demo

    train, test = load_orl(settings.size)
    print(
        f"facemix demo: {len(train)} faces to train on, {len(test)} to test, networks cached in {cache}",
        flush=True,
    )
    if arguments.web:
        from facemix.demo.web.run import run_web

        run_web(settings, (train, test), load_orl(), arguments.out, cache, arguments.fresh, arguments.web_port)
        return
    result = run_demo(settings, train, test, arguments.out, cache, arguments.fresh)
    show(result)
    print(f"picture: {result['picture']}\nreport of the audit: {result['report']}")
    seconds = result["seconds"]
    parts = f"training {seconds['training']:.0f} s, audit {seconds['audit']:.0f} s"
    print(f"time: {seconds['total']:.0f} s, of which {parts}")
    if arguments.json is not None:
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
        print(f"figures: {arguments.json}")
