"""SPEED.md's tables, made of what two runs and a large one found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from generated import between, table

from .table import size_text, time_text

DOCUMENT = Path(__file__).parents[2] / "SPEED.md"
VERDICTS = {"pass": "reached", "FAIL": "**missed**", "": ""}


def renewed(text: str, found: Sequence[dict[str, Any]], grown: dict[str, Any]) -> str:
    """The document with what was found in runs, and in a large one of more workspaces, as
    Report.write has it."""
    for name, part in (
        ("machine", _machine(found[-1])),
        ("rows", _rows(found)),
        ("shares", _shares(found[-1])),
        ("contention", _tails(found)),
        ("growth", _growth(growth(found[-1], grown))),
        ("memory", _memory(found[-1])),
    ):
        text = between(text, name, part)
    return text


def _machine(run: dict[str, Any]) -> str:
    lines = (f"{name}: {value}" for name, value in run["header"].items())
    return "```\n" + "".join(f"{line}\n" for line in lines) + "```\n"


def _rows(runs: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in runs[-1]["rows"]:
        same = [
            next(
                r for r in run["rows"] if (r["name"], r["against"]) == (row["name"], row["against"])
            )
            for run in runs
        ]
        goal = row["goal"]
        cells.append(
            [
                row["name"],
                time_text(median(row["ours"])),
                row["against"],
                time_text(median(row["theirs"])),
                *(f"{r['ratio']:.2f}" for r in same),
                f"{'at most ' if goal['at_most'] else ''}{goal['bound']:g}" if goal else "",
                " / ".join(dict.fromkeys(VERDICTS[r["verdict"]] for r in same)),
            ]
        )
    ratios = [f"ratio, run {number}" for number in range(1, len(runs) + 1)]
    return table(["", "a call", "against", "a call", *ratios, "goal", ""], cells)


def _shares(run: dict[str, Any]) -> str:
    cells = [
        [f"`{share['function']}`", f"{share['calls']:.0f}", f"{share['own']:.1f}"]
        for share in run["shares"]
    ]
    return table(["function", "calls", "own time, us"], cells)


def _tails(runs: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            tail["name"],
            tail["side"],
            *(time_text(tail[part]) for part in ("p50", "p99", "p999")),
            str(tail["deadlocks"]),
        ]
        for run in runs
        for tail in run["tails"]
    ]
    return table(["", "", "p50", "p99", "p99.9", "deadlocks"], sorted(cells))


def growth(run: dict[str, Any], large: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of a run, and of a large one those of the sizes that only that has."""
    own = {(point["of"], point["size"]) for point in run["growth"]}
    more = [point for point in large["growth"] if (point["of"], point["size"]) not in own]
    return [*run["growth"], *more]


def _growth(points: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            f"{point['size']:,} {point['of']}",
            point["side"],
            time_text(median(point["times"])),
            f"{median(point['pages_read']):.1f}",
            f"{median(point['wal']) / 1024:.1f}",
        ]
        for point in points
    ]
    return table(["", "", "a call", "pages read", "WAL, kB"], cells)


def _memory(run: dict[str, Any]) -> str:
    cells = [
        [
            taken["name"],
            f"{taken['seconds']:.1f} s",
            size_text(taken["private"]),
            size_text(taken["resident"]),
        ]
        for taken in run["memory"]
    ]
    return table(["", "took", "the backend's own", "with shared buffers"], cells)
