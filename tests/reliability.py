"""RELIABILITY.md's tables, written by the run itself.

With a file of figures (see figures.py): the figures of that run, and the list of faults. Without:
the list of faults alone.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generated import between, table
from mutations import FAULTS, ROOT
from servers import chosen

DOCUMENT = ROOT / "RELIABILITY.md"
LAST = ("lost", "torn")  # columns of their own


def shown(key: str, value: float | str) -> str:
    """A figure with its unit."""
    return f"{key} {value}" if isinstance(value, str) else f"{value:,} {key}"


def figures_table(records: list[dict[str, Any]]) -> str:
    """What was tried, what came of it and what was lost; records of one name are added up."""
    added: dict[str, dict[str, Any]] = {}
    for record in records:
        known = added.setdefault(record["name"], {})
        for key, value in record.items():
            if key != "name":
                known[key] = known[key] + value if isinstance(known.get(key), int) else value
    cells = []
    for name, known in added.items():
        said = [shown(key, value) for key, value in known.items() if value and key not in LAST]
        cells.append([name, *(said[:1] or [""]), "; ".join(said[1:])])
        cells[-1] += [f"{known[key]:,}" if key in known else "" for key in LAST]
    total = [f"**{sum(known.get(key, 0) for known in added.values()):,}**" for key in LAST]
    cells.append(["**all**", "", "", *total])
    return table(["what was tried", "how often", "what came of it", *LAST], cells)


def faults_table() -> str:
    """The deliberate faults, and the tests that catch them."""
    cells = []
    for fault in FAULTS:
        file, _, test = fault.test.partition("::")
        cells.append([fault.name, f"`{fault.file}`", f"`tests/{file}`: `{test}`"])
    return table(["fault", "where", "caught by"], cells)


def main() -> None:
    """Renew the document."""
    text = between(DOCUMENT.read_text(), "faults", faults_table())
    if sys.argv[1:]:
        lines = Path(sys.argv[1]).read_text().splitlines()
        tried = figures_table([json.loads(line) for line in lines])
        version = chosen().version.removesuffix(".0")
        when = f"{datetime.now(UTC):%Y-%m-%d}, Postgres {version}.\n\n"
        text = between(text, "figures", when + tried)
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
