"""How the benchmarks judge what they measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.document import DOCUMENT, renewed
from benchmarks.table import Goal, Growth, Memory, Report, Row, Share, Tail, compare, layout

ROW = Row("a call", [200.0, 100.0, 300.0], "the floor", [100.0, 90.0, 180.0], Goal(0.6))


def test_a_ratio_is_the_median_of_the_rounds_not_the_ratio_of_the_medians() -> None:
    assert ROW.ratios == [0.5, 0.9, 0.6]
    assert ROW.ratio == 0.6


def test_a_ratio_says_how_much_faster_ours_is_or_where_less_is_better_how_much_slower() -> None:
    fast = Row("quick", [10.0], "slow", [30.0], Goal(3))
    assert fast.ratio == 3
    assert replace(fast, goal=Goal(1.1, at_most=True)).ratio == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal(0.6), "pass"),
        (Goal(0.61), "FAIL"),
        (Goal(1.67, at_most=True), "pass"),
        (Goal(1.66, at_most=True), "FAIL"),
        (None, ""),
    ],
)
def test_a_goal_that_is_just_reached_is_reached(goal: Goal | None, verdict: str) -> None:
    assert replace(ROW, ours=[100.0], theirs=[60.0], goal=goal).verdict == verdict


def test_the_rounds_of_both_sides_belong_together() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = replace(ROW, theirs=[1.0]).ratios


def test_two_runs_are_compared_by_the_rows_they_share(tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    Report({}, rows=[ROW, replace(ROW, name="gone")]).write(before)
    Report({}, rows=[replace(ROW, ours=[100.0, 50.0, 150.0])]).write(after)
    (line,) = compare(before, after).splitlines()[2:]
    assert " ".join(line.split()) == "a call the floor 200 us 100 us 0.60 1.20 +100.0% pass"


def test_the_text_shows_every_row_with_its_verdict() -> None:
    report = Report({"machine": "any"}, rows=[ROW], notes=["A note."])
    assert "machine: any" in str(report)
    assert "A note." in str(report)
    shown = next(line for line in str(report).splitlines() if line.startswith("a call  "))
    assert shown.split()[-3:] == [">=", "0.6", "pass"]


def test_figures_stand_on_the_right() -> None:
    assert layout(("what", "n"), [("a", 1), ("b", 10)]).splitlines() == [
        "what   n",
        "----  --",
        "a      1",
        "b     10",
    ]


def written(folder: Path, report: Report) -> dict[str, Any]:
    """A report as its file has it."""
    report.write(folder / "run.json")
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def test_the_document_shows_two_runs_side_by_side_and_how_it_grows(tmp_path: Path) -> None:
    first = written(tmp_path, Report({"machine": "one"}, rows=[ROW]))
    second = Report(
        {"machine": "another"},
        rows=[replace(ROW, ours=[400.0, 400.0, 400.0])],
        shares=[Share("workspace.write_change", 1, 88.6)],
        tails=[Tail("64 clients", "ours", 9, 10.0, 20_000.0, 30_000.0, 0)],
        memory=[Memory("a load", 1.5, 2 * 2**20, 3 * 2**20)],
        growth=[Growth("models", 1000, "ours", [50.0], [1.0], [2048.0])],
    )
    text = renewed(
        DOCUMENT.read_text(), [first, written(tmp_path, second)], written(tmp_path, second)
    )
    assert "machine: another" in text
    for line in (
        "| a call | 400 us | the floor | 100 us | 0.60 | 0.25 | 0.6 | reached / **missed** |",
        "| `workspace.write_change` | 1 | 88.6 |",
        "| 64 clients | ours | 10.0 us | 20.0 ms | 30.0 ms | 0 |",
        "| 1,000 models | ours | 50.0 us | 1.0 | 2.0 |",
        "| a load | 1.5 s | 2 MiB | 3 MiB |",
    ):
        assert line in text.splitlines()


def test_the_document_shows_every_goal_of_a_run_there_was() -> None:
    text = DOCUMENT.read_text()
    for name in ("1 client, durable", "8 clients", "Python, local socket", "Python, 1 ms away"):
        assert f"| {name}" in text
    for name in ("100,000 models", "1,000,000 workspaces", "fleet.move of", "pyapi,"):
        assert f"| {name}" in text
