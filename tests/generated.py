"""Parts of a document in Markdown that are written by a run."""

from __future__ import annotations

from collections.abc import Sequence


def between(text: str, name: str, part: str) -> str:
    """A document with the lines between two of its markers replaced."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"there are no markers for {name}"
    return f"{before}{begin}{part}{end}{after}"


def table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
