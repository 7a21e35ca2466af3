"""Following the feed: each change once and in order, whatever happens to the connections."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed

from databases import Database, in_thread
from pyapi import (
    FeedEntry,
    aio,
    changes_after,
    create_workspace,
    follow_changes,
    get_workspace,
    set_model,
)
from pyapi.errors import ConnectionLost, DatabaseFailure, InvalidArgument, PermissionDenied
from sessions import OPTIONS, SECONDS
from support import Conn, one

KINDS = ["sync", "async", "sync pool", "async pool", "sync listen", "async listen"]


def made(conn: Conn) -> UUID:
    return create_workspace(conn, "w", "claude-code", model="opus").workspace_id


def switch(conn: Conn, ws: UUID) -> int:
    """Change a workspace; its version then."""
    model = get_workspace(conn, ws).model
    return set_model(conn, ws, "opus" if model != "opus" else "sonnet").version


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.002)


@dataclass(slots=True)
class Follower:
    """Somebody who follows the feed in a thread, and what they were given."""

    name: str
    seen: list[FeedEntry] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def follow(self, dsn: str, **options: Any) -> None:
        """Follow with psycopg's connections, or a pool's."""

        def keep(connect: Any) -> None:
            for entry in follow_changes(connect, stop=self.stop, **options):
                self.seen.append(entry)

        if "pool" in self.name:
            with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
                keep(pool.connection)
        else:
            keep(partial(psycopg.connect, dsn))

    async def afollow(self, dsn: str, **options: Any) -> None:
        """The same, with async ones."""
        stop = asyncio.Event()

        async def relay() -> None:
            await asyncio.to_thread(self.stop.wait)
            stop.set()

        async def keep(connect: Any) -> None:
            async for entry in aio.follow_changes(connect, stop=stop, **options):
                self.seen.append(entry)

        relaying = asyncio.create_task(relay())
        if "pool" in self.name:
            async with AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool:
                await keep(pool.connection)
        else:
            await keep(partial(psycopg.AsyncConnection.connect, dsn))
        await relaying


@contextmanager
def following(
    database: Database, kind: str, poll: float = 0.02, **options: Any
) -> Iterator[Follower]:
    """Follow the feed until the block ends; what stopped it before is raised."""
    follower = Follower(kind)
    dsn = make_conninfo(database.dsn, application_name=kind, options=OPTIONS)
    options |= {"poll": poll, "listen": "listen" in kind}

    def run() -> None:
        if "async" in kind:
            asyncio.run(follower.afollow(dsn, **options))
        else:
            follower.follow(dsn, **options)

    done = in_thread(run)
    try:
        yield follower
    finally:
        follower.stop.set()
        done.result(SECONDS)


def backends(observer: Conn, name: str) -> list[int]:
    """The server processes of an application."""
    found = observer.execute("select pid from pg_stat_activity where application_name = %s", [name])
    return [pid for (pid,) in found]


def kill(observer: Conn, name: str) -> None:
    """Terminate an application's connection, once there is one, and wait until it is gone."""
    until(lambda: bool(backends(observer, name)), f"{name} does not connect")
    for pid in backends(observer, name):
        observer.execute("select pg_terminate_backend(%s)", [pid])
        until(lambda: pid not in backends(observer, name), f"{name} does not go")  # noqa: B023


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_what_there_is_and_what_comes_over_lost_connections_too(
    database: Database, kind: str
) -> None:
    conn = database.connect(autocommit=True)
    for _ in range(5):
        made(conn)
    with following(database, kind, batch=2) as follower:
        until(lambda: len(follower.seen) == 5, "what there was does not come")
        for number in range(3):
            ws = made(conn)
            until(lambda: len(follower.seen) == 6 + 2 * number, "what is new does not come")  # noqa: B023
            kill(conn, kind)
            switch(conn, ws)
            until(lambda: len(follower.seen) == 7 + 2 * number, "what is new does not come")  # noqa: B023
    assert follower.seen == changes_after(conn)


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_behind_the_cursor_of_any_change(database: Database, kind: str) -> None:
    conn = database.connect(autocommit=True)
    for _ in range(5):
        made(conn)
    entries = changes_after(conn)
    with following(database, kind, cursor=entries[2].cursor) as follower:
        until(lambda: len(follower.seen) == 2, "the rest does not come")
    assert follower.seen == entries[3:]


@pytest.mark.parametrize("kind", ["sync listen", "async listen"])
def test_a_listener_is_woken_by_writers_that_notify(database: Database, kind: str) -> None:
    conn = database.connect(autocommit=True)
    made(conn)
    with following(database, kind, poll=10 * SECONDS) as follower:
        until(lambda: len(follower.seen) == 1, "what there was does not come")
        until(
            lambda: (
                one(
                    conn,
                    "select count(*) from pg_stat_activity where application_name = %s"
                    " and state = 'idle'",
                    kind,
                )
                == 1
            ),
            "it does not wait",
        )
        conn.execute("set runtime_registry.notify = on")
        made(conn)
        until(lambda: len(follower.seen) == 2, "it is not woken")
        follower.stop.set()
        made(conn)  # so that it sees that it shall stop
    assert len(follower.seen) in (2, 3)


def test_writers_do_not_notify_unless_they_are_asked_to(database: Database) -> None:
    listener = database.connect(autocommit=True)
    listener.execute("listen runtime_registry_changes")
    conn = database.connect(autocommit=True)
    made(conn)
    conn.execute("notify runtime_registry_changes, 'mine'")
    conn.execute("set runtime_registry.notify = on")
    made(conn)
    heard = [notify.payload for notify in listener.notifies(timeout=SECONDS, stop_after=2)]
    assert heard == ["mine", ""]


def test_no_transaction_is_open_while_a_change_is_worked_on(database: Database) -> None:
    conn = database.connect(autocommit=True)
    made(conn)
    own = database.connect()
    for _ in follow_changes(lambda: own):
        assert own.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        break


def test_what_no_new_connection_mends_is_raised(database: Database) -> None:
    conn = database.connect(autocommit=True)
    made(conn)
    nowhere = make_conninfo(database.dsn, dbname="there_is_no_such_database")
    with pytest.raises(ConnectionLost):
        next(follow_changes(partial(psycopg.connect, nowhere)))
    with pytest.raises(PermissionDenied):
        next(follow_changes(lambda: database.connect_as("pg_monitor")))
    with pytest.raises(InvalidArgument):
        next(follow_changes(partial(psycopg.connect, database.dsn), "x"))

    dsn = make_conninfo(database.dsn, application_name="pooled")
    with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
        feed = follow_changes(pool.connection, poll=0.01)
        next(feed)
        pool.close(timeout=0)
        kill(conn, "pooled")
        with pytest.raises(DatabaseFailure) as caught:
            next(feed)
    assert isinstance(caught.value.__cause__, PoolClosed)


# Everything at once.

WRITERS, TRANSACTIONS, KILLS = 8, 25, 20


def write(database: Database, dice: random.Random, workspaces: list[UUID]) -> int:
    """Make transactions that take their time; how many were committed."""
    committed = 0
    with database.connect(options=OPTIONS) as conn:
        for _ in range(TRANSACTIONS):
            if dice.random() < 0.5:
                one(conn, "select pg_current_xact_id()::text")  # an id long before a workspace
                conn.execute("select pg_sleep(%s)", [dice.random() * 0.03])
            # By id, or two writers could deadlock.
            for ws in sorted(dice.sample(workspaces, dice.randint(1, 3))):
                for _ in range(dice.randint(1, 2)):
                    with conn.transaction(force_rollback=dice.random() < 0.2):
                        switch_locked(conn, ws)
            if dice.random() < 0.3:
                made(conn)
            conn.execute("select pg_sleep(%s)", [dice.random() * 0.05])
            if dice.random() < 0.3:
                conn.rollback()
            else:
                conn.commit()
                committed += 1
    return committed


def switch_locked(conn: Conn, ws: UUID) -> None:
    """Change a workspace that others change too."""
    conn.execute("select from workspace.workspaces where id = %s for no key update", [ws])
    switch(conn, ws)


@pytest.mark.timeout(180)
def test_each_committed_change_is_seen_once_and_in_order(database: Database) -> None:
    conn = database.connect(autocommit=True)
    workspaces = [made(conn) for _ in range(6)]
    dice = random.Random(7)
    with (
        following(database, "sync", batch=7) as first,
        following(database, "async listen", batch=5) as second,
    ):
        until(lambda: bool(first.seen and second.seen), "what there was does not come")
        writing: list[Future[int]] = [
            in_thread(write, database, random.Random(seed), workspaces) for seed in range(WRITERS)
        ]
        for number in range(KILLS):
            follower = dice.choice([first, second])
            already = len(follower.seen)
            kill(conn, follower.name)
            if number % 4 == 0 and not all(work.done() for work in writing):
                until(
                    lambda: len(follower.seen) > already or all(work.done() for work in writing),  # noqa: B023
                    "nothing comes after a kill",
                )
        committed = sum(work.result(5 * SECONDS) for work in writing)
        assert committed > WRITERS * TRANSACTIONS / 3
        changes = conn.execute("select workspace_id, version from workspace.changes").fetchall()
        assert len(changes) > committed
        for follower in (first, second):
            until(lambda: len(follower.seen) >= len(changes), "not everything comes")  # noqa: B023

    for follower in (first, second):
        assert len(follower.seen) == len(changes)
        assert {(entry.workspace_id, entry.version) for entry in follower.seen} == set(changes)
        versions = defaultdict[UUID, list[int]](list)
        for entry in follower.seen:
            versions[entry.workspace_id].append(entry.version)
        for of in versions.values():
            assert of == list(range(1, len(of) + 1))
        assert follower.seen == changes_after(conn, batch=10000)
    # What the feed does not go by: the plain ids of the transactions are not in this order.
    ids = conn.execute(
        "select workspace_id, txid::text::bigint from workspace.changes"
        " order by workspace_id, version"
    ).fetchall()
    assert any(one[0] == other[0] and one[1] > other[1] for one, other in pairwise(ids))
