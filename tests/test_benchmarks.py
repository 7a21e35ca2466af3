"""How the benchmarks judge what they measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.table import Goal, Report, Row, compare, layout

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
