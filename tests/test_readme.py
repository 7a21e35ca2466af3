"""The README's blocks, run from top to bottom, print what stands below them.

RENEW_GOLDEN=1 writes what they print into the README instead.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

import databases
from pyapi.cli.exits import Exit
from pyapi.errors import RegistryError
from servers import Server

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.M | re.S)


class Reader:
    """Somebody who follows the README on the tests' server, with a database of their own."""

    def __init__(self, server: Server, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = database
        self.monkeypatch = monkeypatch
        self.dsn = make_conninfo(server.dsn, dbname=database)
        known = conninfo_to_dict(server.dsn)
        self.environment = {
            **os.environ,
            **{f"PG{key.upper()}": str(value) for key, value in known.items() if key != "dbname"},
            "PATH": os.pathsep.join(
                map(
                    str,
                    [server.bin("psql").parent, Path(sys.executable).parent, os.environ["PATH"]],
                )
            ),
            "DATABASE_URL": self.dsn,
            "PGOPTIONS": "-c client_min_messages=warning",
        }
        self.names: dict[str, Any] = {}
        self.port = ""
        self.service: subprocess.Popen[bytes] | None = None

    def follow(self, block: re.Match[str]) -> str:
        """Run a block; the block again, with the output that it really has below it."""
        language, code = block[1], block[2]
        if language == "console":
            return f"```console\n{''.join(self.typed(line) for line in commands(code))}```\n"
        output = {"sh": self.sh, "sql": self.psql, "python": self.python, "yaml": self.load}[
            language
        ](code)
        below = f"\n```text\n{output}```\n" if output else ""
        return f"```{language}\n{code}```\n{below}"

    def run(self, *command: str, typed: str = "") -> str:
        done = subprocess.run(
            command,
            input=typed,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=self.environment,
            check=False,
        )
        lines = "\n".join(line.rstrip() for line in done.stdout.splitlines())
        return f"{lines.strip(chr(10))}\n" if lines.strip() else ""

    def sh(self, code: str) -> str:
        if "pip install" in code:
            return ""  # The tests run in what it installs.
        return self.run("bash", "-euc", re.sub(r"\bfleet$", self.database, code, flags=re.M))

    def typed(self, line: str) -> str:
        here = line.replace("8080", self.port)
        if line.endswith(" &"):
            self.start(shlex.split(line.removesuffix(" &")))
            return f"$ {line}\n"
        if exported := re.match(r"export (\w+)=", line):
            value = self.run("bash", "-c", f'{here}; echo "${exported[1]}"').rstrip()
            self.environment[exported[1]] = value
            self.monkeypatch.setenv(exported[1], value)  # for the blocks in Python
            return f"$ {line}\n"
        return f"$ {line}\n{self.run('bash', '-c', here)}"

    def start(self, command: list[str]) -> None:
        """Leave the service running; its port is any that is free instead of the one shown."""
        self.service = subprocess.Popen(
            ["0" if word == "8080" else word for word in command],
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=self.environment,
        )
        assert self.service.stderr
        while b"running on" not in (line := self.service.stderr.readline()):
            assert line, "the service ended"
        self.port = json.loads(line)["message"].split()[3].rpartition(":")[2]

    def stop(self) -> None:
        if self.service:
            self.service.terminate()
            self.service.communicate()

    def psql(self, code: str) -> str:
        return self.run("psql", "-X", "-v", "SHOW_CONTEXT=never", "-d", self.dsn, typed=code)

    def python(self, code: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, README.name, "exec"), self.names)
        return printed.getvalue()

    def load(self, code: str) -> str:
        with psycopg.connect(self.dsn) as conn:
            # The workspaces of the story have runtimes that this manifest does not.
            conn.execute("delete from workspace.secrets")
            conn.execute("delete from workspace.workspaces")
            conn.execute("select fleet.load_registry(%s)", [Jsonb(yaml.safe_load(code))])
            conn.rollback()
        return ""


def commands(code: str) -> list[str]:
    return [line.removeprefix("$ ") for line in code.splitlines() if line.startswith("$ ")]


@pytest.fixture
def reader(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    reader = Reader(server, f"readme_{secrets.token_hex(4)}", monkeypatch)
    monkeypatch.setenv("DATABASE_URL", reader.dsn)
    with databases.without_kek(server):
        yield reader
    reader.stop()
    with server.connect(autocommit=True) as conn:
        drop = sql.SQL("drop database if exists {} with (force)")
        conn.execute(drop.format(sql.Identifier(reader.database)))


def test_every_block_prints_what_the_readme_shows(reader: Reader) -> None:
    shown = README.read_text()
    printed = BLOCK.sub(reader.follow, shown)
    if os.environ.get("RENEW_GOLDEN"):
        README.write_text(printed)
    else:
        assert printed.splitlines() == shown.splitlines()


def test_the_error_table_has_every_code_with_its_sqlstate_and_exit_code() -> None:
    rows = re.findall(r"^\| `PT(\d+)` \| `(\w+)` \| .* \| (\d+) \|$", README.read_text(), re.M)
    assert sorted(code for _, code, _ in rows) == sorted(RegistryError._by_code)
    for status, code, exit_code in rows:
        error = RegistryError._by_code[code](int(status), code, "")
        assert Exit.of(error) == int(exit_code), code
