"""Rotating and rewrapping while clients go on calling: none of them fails, and nothing is lost."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from uuid import UUID

import psycopg

from databases import Database, in_thread
from keyrings import (
    KEK,
    NEW_KEK,
    empty,
    init,
    key_ids,
    options,
    reseal,
    retire,
    rewrap,
    rotate,
    status,
)
from pyapi import change_runtime, get_workspace
from sessions import commit, settle
from support import Conn

CLIENTS = 4
TARGETS = ["claude-code", "hermes", "google-adk", "openclaw"]


@dataclass(slots=True)
class Traffic:
    """What the clients did, and how long each thing that was done beside them took."""

    calls: Counter[str] = field(default_factory=Counter)
    slowest: float = 0
    seconds: dict[str, float] = field(default_factory=dict)


def client(database: Database, ids: list[UUID], stop: threading.Event, traffic: Traffic) -> None:
    """Switch and read workspaces until it is over; any error ends it."""
    chance = random.Random()
    with psycopg.connect(database.dsn, options=options(KEK, NEW_KEK)) as conn:
        while not stop.is_set():
            ws, begun = chance.choice(ids), perf_counter()
            change = change_runtime(conn, ws, chance.choice(TARGETS))
            conn.commit()
            traffic.slowest = max(traffic.slowest, perf_counter() - begun)
            assert change.model is not None
            assert get_workspace(conn, ws).model is not None
            conn.commit()
            traffic.calls["changed" if change.changed else "unchanged"] += 1


def rotate_and_rewrap_under_load(database: Database, workspaces: int, batch: int) -> Traffic:
    """Rotate, killing the resealing half-way; rewrap; retire; all beside CLIENTS clients."""
    traffic, stop = Traffic(), threading.Event()

    def timed(name: str, action: Callable[[], object]) -> None:
        begun = perf_counter()
        action()
        traffic.seconds[name] = traffic.seconds.get(name, 0) + perf_counter() - begun

    admin = database.connect(options=options(KEK, NEW_KEK), autocommit=True)
    admin.execute("set statement_timeout = '10min'")  # it does what grows with the workspaces
    empty(admin)
    init(admin)
    admin.execute(
        "select from generate_series(1, %s) as n,"
        " workspace.create_workspace('w' || n, 'claude-code', 'opus')",
        [workspaces],
    )
    ids = [ws for (ws,) in admin.execute("select id from workspace.workspaces order by 1")]
    assert len(ids) == workspaces

    after: UUID | None = None

    def next_batch(conn: Conn) -> tuple[UUID | None, int, int, int]:
        return reseal(conn, after=after, batch=batch)

    def pass_through(conn: Conn, until: UUID | None = None) -> int:
        """Reseal to the end, or past `until`; how many workspaces somebody held."""
        nonlocal after
        held = 0
        while True:
            after, _, unreadable, skipped = commit(conn, next_batch)
            assert unreadable == 0
            held += skipped
            if after is None or (until is not None and after > until):
                return held

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, database, ids, stop, traffic) for _ in range(CLIENTS)]
        try:
            timed("rotate", lambda: rotate(admin))
            doomed = database.connect(options=options())
            timed("reseal", lambda: pass_through(doomed, until=ids[workspaces // 2]))
            half = after
            killed = in_thread(settle, doomed, next_batch)
            admin.execute("select pg_terminate_backend(%s, 10000)", [doomed.info.backend_pid])
            killed.result(60)
            assert after == half
            resumed = database.connect(options=options())
            timed("reseal", lambda: pass_through(resumed))
            while key_ids(admin) != {2}:
                timed("reseal", lambda: pass_through(resumed))
            timed("rewrap", lambda: rewrap(admin))
            timed("retire", lambda: retire(admin, 1))
        finally:
            stop.set()
        for done in clients:
            done.result(60)
    with database.connect(options=options(NEW_KEK), autocommit=True) as conn:
        conn.execute("set statement_timeout = '10min'")
        ((key_id, _, secrets, _, unreadable),) = status(conn, verify=True)
        assert (key_id, secrets, unreadable) == (2, workspaces, 0)
    return traffic


def test_rotating_and_rewrapping_disturb_nobody(database: Database) -> None:
    traffic = rotate_and_rewrap_under_load(database, workspaces=300, batch=20)
    assert traffic.calls["changed"] > 0
