"""A fuzzer that knows only the OpenAPI document, on the running service."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from databases import Database
from pyapi import create_workspace
from services import running, token_for

HERE = Path(__file__).parent
EXAMPLES = "8"
SEED = "4"


def test_schemathesis_finds_nothing_with_all_checks_and_through_several_steps(
    database: Database, tmp_path: Path
) -> None:
    conn = database.connect(autocommit=True)
    for number in range(3):
        create_workspace(conn, f"w{number}", "claude-code", model="opus")
    token = token_for(conn, "fuzzer", "admin")
    with running(database.dsn) as service:
        done = subprocess.run(
            [
                Path(sys.executable).parent / "schemathesis",
                *(
                    "--config-file",
                    HERE / "schemathesis.toml",
                    "run",
                    f"{service.url}/openapi.json",
                ),
                *("--header", f"Authorization: Bearer {token}", "--checks", "all"),
                *("--phases", "examples,coverage,fuzzing,stateful", "--no-shrink", "--no-color"),
                *("--max-examples", EXAMPLES, "--seed", SEED, "--generation-database", "none"),
                "--continue-on-failure",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout[-20_000:]
        generated = re.search(r"(\d+) generated", done.stdout)
        assert generated
        assert int(generated[1]) > 300
        assert service.ask("GET", "/ready").status == 200
