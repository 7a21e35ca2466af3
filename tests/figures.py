"""The figures of a run: what was tried, how often, and what was lost.

RELIABILITY_FIGURES names a file that gets one line of JSON for each record, appended; unset: none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def record(name: str, **figures: int | float | str) -> None:
    """Add a test's figures: `name` says what was tried, as in `server kills`."""
    if path := os.environ.get("RELIABILITY_FIGURES"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"name": name, **figures}) + "\n")
