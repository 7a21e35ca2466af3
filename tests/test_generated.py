"""Documents of which a run writes parts."""

from __future__ import annotations

import pytest

from generated import between, table


def test_what_stands_between_two_markers_is_replaced() -> None:
    text = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    assert between(text, "x", "new\n") == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
    with pytest.raises(AssertionError):
        between(text, "y", "new\n")


def test_a_table_has_a_line_below_its_header() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
