"""python -m benchmarks run | compare | document: what the Makefile's targets call."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pyapi import schema

from . import document, fill, plots, rows, server, table

MODELS = (100, 1_000, 10_000, 100_000, 1_000_000)
WORKSPACES = (1_000, 10_000, 100_000, 1_000_000)
LARGE = 10_000_000
PLOT = Path(__file__).with_name("growth.png")
GROUPS = ("server", "client", "python", "fleet", "growth")


def run(options: argparse.Namespace) -> None:
    """Measure, and write what was found."""
    manifest, started = schema.default_manifest(), time.monotonic()
    with server.start() as running:
        report = table.Report(server.describe(running))
        measured = rows.Run(running, options.rounds, options.seconds, report)
        fill.install(server.create_database(running, rows.INSTALLED, "template1"))
        groups = {
            "server": lambda: rows.server_side(measured, manifest),
            "client": lambda: rows.client_side(measured, manifest),
            "python": lambda: rows.python_layer(measured, manifest),
            "fleet": lambda: rows.fleet(measured, manifest),
            "growth": lambda: rows.growth(measured, manifest, options.models, options.workspaces),
        }
        for name in options.only or groups:
            print(f"{time.monotonic() - started:4.0f} s  {name}", file=sys.stderr, flush=True)
            groups[name]()
    report.header["measured"] = (
        f"{options.rounds} rounds of {options.seconds} s a side by turns, medians;"
        f" {time.monotonic() - started:.0f} s in all"
    )
    print(report)
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".txt").write_text(f"{report}\n")
    report.write(out.with_suffix(".json"))
    if report.growth:
        plots.draw(report.growth, out.with_suffix(".png"))


def write_document(runs: Sequence[Path], large: Path) -> None:
    """Renew SPEED.md and its plot; of the large run only the sizes that the others do not have."""
    found = [json.loads(path.read_text()) for path in runs]
    grown = json.loads(large.read_text())
    text = document.DOCUMENT.read_text()
    document.DOCUMENT.write_text(document.renewed(text, found, grown))
    points = document.growth(found[-1], grown)
    plots.draw([table.Growth(**point) for point in points], PLOT)


def main() -> None:
    """Take the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure")
    running.add_argument("--rounds", type=int, default=9)
    running.add_argument("--seconds", type=int, default=1, help="for each side in each round")
    running.add_argument("--only", nargs="+", choices=GROUPS, help="groups of rows")
    running.add_argument("--models", nargs="+", type=int, default=MODELS)
    running.add_argument("--workspaces", nargs="+", type=int, default=WORKSPACES)
    running.add_argument("--large", action="store_true", help=f"up to {LARGE:,} workspaces")
    running.add_argument("--out", type=Path, default=Path("bench/latest"))
    comparing = commands.add_parser("compare", help="two runs' JSON")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    documenting = commands.add_parser("document", help="write SPEED.md's tables")
    documenting.add_argument("runs", type=Path, nargs=2)
    documenting.add_argument("large", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        print(table.compare(options.before, options.after))
        return
    if options.command == "document":
        write_document(options.runs, options.large)
        return
    if options.large:
        options.workspaces = (*options.workspaces, LARGE)
    run(options)


if __name__ == "__main__":
    main()
