"""The demo: its story, that it can be told again and again, and that it does not tell lies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from databases import Database
from pyapi import demo, fleet, get_workspace, history, list_runtimes, schema

SCRIPT = str(Path(sys.executable).parent / "runtime-registry")


def test_the_demo_tells_its_story_twice_and_leaves_the_registry_as_it_was(
    database: Database,
) -> None:
    conn = database.connect(autocommit=True)
    before = conn.execute("select * from registry.revisions").fetchall(), list_runtimes(conn)
    told = []
    for _ in range(2):
        lines: list[str] = []
        ws = demo.run(conn, lines.append)
        story = re.sub(r"[0-9a-f]{48}\.\.\.", "SEALED", "\n".join(lines))
        told.append(story.replace(str(ws), "WS"))
        state = get_workspace(conn, ws)
        assert (state.runtime, state.model, state.version) == ("hermes", "moonshot/kimi-k2.6", 4)
        assert len(history(conn, ws)) == 4
    assert told[0] == told[1]
    assert (
        conn.execute("select * from registry.revisions").fetchall(),
        list_runtimes(conn),
    ) == before


def test_the_story_shows_every_call_and_what_came_of_it(database: Database) -> None:
    lines: list[str] = []
    demo.run(database.connect(autocommit=True), lines.append)
    story = "\n".join(lines)
    assert max(len(line) for line in story.splitlines()) < 80
    places = [
        story.index(text)
        for text in (
            ">>> create_workspace(conn, 'demo', 'claude-code'",
            ">>> set_model(conn, ws, 'platform:gemini-2.5-pro')",
            "MODEL_NOT_REGISTERED",
            "valid models (31): sonnet, opus, ",
            ">>> change_runtime(conn, ws, 'google-adk')",
            "model_was_reset  True",
            "changed          False",
            ">>> change_runtime(conn, ws, 'hermes')",
            ">>> change_runtime(conn, ws, 'byo-router')",
            "NO_DEFAULT_MODEL",
            ">>> history(conn, ws)",
        )
    ]
    assert places == sorted(places)


def test_the_demo_does_nothing_where_the_registry_is_another_one(database: Database) -> None:
    conn = database.connect(autocommit=True)
    manifest = schema.default_manifest()
    manifest["runtimes"].append({"name": "ours"})
    fleet.load_registry(conn, manifest)
    with pytest.raises(demo.OtherRegistry):
        demo.run(conn, lambda _: None)
    assert conn.execute("select count(*) from workspace.changes").fetchone() == (0,)


def test_the_demo_does_nothing_for_a_role_that_may_not_read_secrets(database: Database) -> None:
    admin = database.connect_as("runtime_registry_admin", autocommit=True)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        demo.run(admin, lambda _: None)
    with database.connect() as conn:
        assert conn.execute("select count(*) from workspace.changes").fetchone() == (0,)


def test_the_demo_fails_when_the_database_answers_something_else(database: Database) -> None:
    conn = database.connect(autocommit=True)
    conn.execute(
        "update registry.runtimes set default_model = 'gemini-2.5-flash' where name = 'google-adk'"
    )
    with pytest.raises(demo.Surprise, match=r"reset to platform:gemini-2\.5-pro"):
        demo.run(conn, lambda _: None)
    command = [SCRIPT, "--database", database.dsn, "demo"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: the demo expected that the model was reset" in done.stderr


def test_the_command_runs_on_the_embedded_server_and_its_data_can_be_explored_after() -> None:
    with tempfile.TemporaryDirectory(prefix="tests-", dir="/tmp") as directory:
        home = Path(directory)
        home.chmod(0o711)  # if we are root, the server's user has to get in
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PG") and name != "DATABASE_URL"
        }
        environment["RUNTIME_REGISTRY_HOME"] = directory

        def run(*arguments: str) -> str:
            done = subprocess.run(
                [SCRIPT, *arguments], capture_output=True, text=True, env=environment
            )
            assert done.returncode == 0, done.stderr
            assert not (home / "data" / "postmaster.pid").exists()
            return done.stdout

        story = run("demo")
        found = re.search(r"change_runtime\('([0-9a-f-]+)', 'codex'\);", story)
        assert found
        ws = UUID(found[1])
        assert " psql\n" in story
        explore = story[story.index("select * from registry") :]
        assert "gpt-5.5" in run("psql", "-c", explore)
        assert str(ws) in run("show", str(ws))
        run("demo")
