"""Moving and loading while others change the same workspaces, and one is killed now and then.

RUNTIME_REGISTRY_STRESS_SECONDS says for how long (5 if unset), RUNTIME_REGISTRY_STRESS_WORKSPACES
how many workspaces are moved (300 if unset).
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter
from concurrent.futures import Future
from threading import Event
from typing import get_args
from uuid import UUID

import psycopg
import pytest

import pyapi
from databases import Database, in_thread
from pyapi import MoveEntry, move_all
from pyapi.errors import ConnectionLost, RegistryOrphans
from pyapi.fleet import OnOrphan
from sessions import OPTIONS, SECONDS
from support import Conn, Json, load, manifest, one, provider, rows, runtime, unrecorded

DURATION = float(os.environ.get("RUNTIME_REGISTRY_STRESS_SECONDS", "5"))
WORKSPACES = int(os.environ.get("RUNTIME_REGISTRY_STRESS_WORKSPACES", "300"))
RUNTIMES = ["r", "s", "t"]
Written = set[tuple[UUID, int]]


def registry(*models: str) -> Json:
    """RUNTIMES with these models, each of them with one more that only it has."""
    return manifest(
        [provider("p")], [runtime(name, ("p", [*models, f"{name}-own"])) for name in RUNTIMES]
    )


def change(database: Database, number: int, workspaces: list[UUID], stop: Event) -> Written:
    """Switch any of them to any runtime until told to stop; what was written. All errors raise."""
    dice, written = random.Random(number), Written()
    with database.connect(options=OPTIONS, autocommit=True) as conn:
        while not stop.is_set():
            target, ws = dice.choice(RUNTIMES), dice.choice(workspaces)
            answer = pyapi.change_runtime(conn, ws, target, restore=dice.random() < 0.5)
            if answer.changed:
                written.add((ws, answer.version))
    return written


def fill(conn: Conn, count: int) -> list[UUID]:
    """So many workspaces on r, with its own model."""
    query = "select (workspace.create_workspace('w', 'r', 'r-own')).workspace_id"
    made = conn.execute(f"{query} from generate_series(1, %s)", [count])
    return [ws for (ws,) in made]


def moved(
    database: Database, source: str, target: str, request_id: str, started: Future[int] | None
) -> tuple[list[MoveEntry], bool]:
    """What a move yields, and whether it came to its end; `started` gets its process."""
    entries: list[MoveEntry] = []
    with database.connect(options=OPTIONS) as conn:
        if started:
            started.set_result(conn.info.backend_pid)
        try:
            for batch in move_all(conn, source, target, request_id=request_id, batch=100):
                entries += batch
        except (ConnectionLost, psycopg.OperationalError):
            return entries, False
    return entries, True


@pytest.mark.timeout(DURATION * 10 + 300)
def test_a_move_among_callers_loses_no_update_and_disturbs_nobody(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.connect(autocommit=True) as conn:
        load(conn, registry("m"))
        workspaces = fill(conn, WORKSPACES)
        stop, outcomes, told = Event(), Counter[str](), dict[tuple[UUID, int], MoveEntry]()
        callers = [in_thread(change, database, n, workspaces, stop) for n in range(4)]
        until, killed, rounds = time.monotonic() + DURATION, 0, 0
        try:
            for source, target in itertools.cycle(itertools.permutations(RUNTIMES, 2)):
                rounds += 1
                started = Future[int]()
                moving = in_thread(moved, database, source, target, f"move-{rounds}", started)
                pid = started.result(SECONDS)
                while (
                    not moving.done()
                    and one(
                        conn,
                        "select count(*) from workspace.changes where request_id = %s",
                        f"move-{rounds}",
                    )
                    < WORKSPACES / 10
                ):
                    Event().wait(0.001)
                killed += one(conn, "select pg_terminate_backend(%s)::int", pid)
                entries, ended = moving.result(DURATION + SECONDS)
                while not ended:
                    rest, ended = moved(database, source, target, f"move-{rounds}", None)
                    entries += rest
                outcomes.update(entry.outcome for entry in entries)
                told |= {
                    (entry.workspace_id, entry.version or 0): entry
                    for entry in entries
                    if entry.outcome in {"changed", "recorded"}
                }
                if time.monotonic() > until:
                    break
        finally:
            stop.set()
        written = set[tuple[UUID, int]]().union(*(each.result(SECONDS) for each in callers))

        with capsys.disabled():
            print(f"\n{rounds} moves, {killed} killed, {len(written)} calls, {dict(outcomes)}")
        assert outcomes["changed"] > 0 < len(written)
        assert outcomes["refused"] == 0
        # Everybody was told the truth.
        by_request = conn.execute(
            "select workspace_id, version, request_id is not null from workspace.changes"
            " where action = 'change_runtime' and version > 1"
        ).fetchall()
        assert {(ws, version) for ws, version, moved in by_request if not moved} == written
        recorded = {(ws, version) for ws, version, moved in by_request if moved}
        assert set(told) <= recorded
        # A batch whose commit was not acknowledged is all that nobody was told of.
        assert len(recorded) - len(told) <= 100 * killed
        assert unrecorded(conn) == []
        assert rows(conn, "fleet.orphans") == []
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        assert one(conn, deadlocks) == 0


@pytest.mark.timeout(DURATION * 3 + 120)
@pytest.mark.parametrize("on_orphan", get_args(OnOrphan))
def test_loads_among_callers_disturb_nobody(
    database: Database, on_orphan: OnOrphan, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.connect(autocommit=True) as conn:
        load(conn, registry("m", "n"))
        workspaces = fill(conn, 20)
        stop, until = Event(), time.monotonic() + DURATION / 2
        callers = [in_thread(change, database, n, workspaces, stop) for n in range(8)]
        counts, orphaned = Counter[str](), set[str]()
        try:
            for models in itertools.cycle((["m"], ["n", "m"], ["n"], ["m", "n"])):
                wanted = registry(*models)
                if models == ["n"]:
                    wanted["runtimes"][1] = runtime("s", ("p", ["n"]))
                try:
                    answer = pyapi.load_registry(conn, wanted, on_orphan=on_orphan)
                except RegistryOrphans:
                    counts["refused"] += 1
                else:
                    counts["loaded"] += answer.loaded
                    orphaned |= {orphan["workspace_id"] for orphan in answer.orphans}
                if time.monotonic() > until:
                    break
        finally:
            stop.set()
        written = sum(len(each.result(SECONDS)) for each in callers)
        with capsys.disabled():
            print(f"\n{on_orphan}: {written} calls, {dict(counts)}")
        assert written > 0 < counts["loaded"]
        assert unrecorded(conn) == []
        left = {str(orphan.workspace_id) for orphan in rows(conn, "fleet.orphans")}
        assert left <= (orphaned if on_orphan == "keep" else set())
        assert (counts["refused"] > 0, orphaned != set()) == (
            on_orphan == "refuse",
            on_orphan != "refuse",
        )
