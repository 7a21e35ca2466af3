"""The command `runtime-registry`. It can be imported without the `cli` extra."""

from __future__ import annotations

import sys
from io import TextIOWrapper


def main() -> None:
    """Run the command line; exits with one of `pyapi.cli.exits.Exit`."""
    try:
        from .app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"typer", "rich", "yaml"}:
            raise
        sys.exit("runtime-registry needs the extra `cli`: pip install 'runtime-registry[cli]'")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal has every character
    app(prog_name="runtime-registry")
