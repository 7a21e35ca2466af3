"""Moving a fleet and resetting orphans: batches, those that are held, and what they never do."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.types.json import Jsonb

import databases
import pyapi
from databases import Database, in_thread, wait_until_blocked
from pyapi import MoveEntry, aio, keyring, move, move_all, orphans, reset_all_orphans
from pyapi.errors import InvalidArgument, LockTimeout
from sessions import SECONDS, sessions_on, waiting
from support import (
    Conn,
    Json,
    call,
    create,
    load,
    make_unreadable,
    manifest,
    nothing_written,
    one,
    pair,
    provider,
    refused,
    rows,
    runtime,
)

REGISTRY = manifest(
    [provider("p"), provider("q")],
    [
        runtime("old", ("p", ["m", "n", "o", "none"])),
        runtime("new", ("q", ["a", "n", "twin"])),
        runtime("bare"),
        runtime("any", model_policy="any"),
    ],
    equivalents=[["o", "twin"]],
)


def with_runtimes(*runtimes: Json) -> Json:
    """The registry with others in the place of the runtimes of their names; no equivalents."""
    replaced = {each["name"]: each for each in [*REGISTRY["runtimes"], *runtimes]}
    return {**REGISTRY, "runtimes": [*replaced.values()], "equivalents": []}


WITHOUT_M = with_runtimes(runtime("old", ("p", ["n", "o"])))


@pytest.fixture
def loaded(conn: Conn) -> Conn:
    """The transaction, with the registry of this file."""
    load(conn, REGISTRY)
    return conn


@pytest.fixture
def fleet(database: Database) -> Database:
    """A database with the registry of this file and ten workspaces on `old`, with m."""
    with database.connect() as conn:
        load(conn, REGISTRY)
        for _ in range(10):
            create(conn, "old", "m")
    return database


def on(conn: Conn, runtime: str) -> list[UUID]:
    """The workspaces on a runtime, in order."""
    found = conn.execute(
        "select id from workspace.workspaces where runtime = %s order by id", [runtime]
    )
    return [ws for (ws,) in found]


def outcomes(entries: list[Any]) -> dict[UUID, str]:
    return {entry.workspace_id: entry.code or entry.outcome for entry in entries}


# What becomes of a workspace


def test_each_workspace_is_moved_as_a_single_call_would_move_it(loaded: Conn) -> None:
    pasts = {"m": "default", "n": "kept", "o": "equivalent", None: "none"}
    made = {create(loaded, "old", model): source for model, source in pasts.items()}
    entries = rows(loaded, "fleet.move", "old", "new")
    assert {entry.workspace_id: entry.model_source for entry in entries} == made
    assert [entry.workspace_id for entry in entries] == sorted(made)
    for entry in entries:
        assert (entry.outcome, entry.code, entry.version) == ("changed", None, 2)
        assert (entry.previous_runtime, entry.runtime) == ("old", "new")
        assert pair(loaded, entry.workspace_id) == ("new", entry.model, 2)
        last = rows(loaded, "workspace.history", entry.workspace_id)[-1]
        assert (last.action, last.previous_model) == ("change_runtime", entry.previous_model)


def test_a_model_is_not_taken_for_the_lack_of_one(loaded: Conn) -> None:
    names = ["none", "true", "false", "unreadable", "model none", None]
    made = {create(loaded, "any", name): name for name in names}
    unreadable = create(loaded, "any", "x")
    make_unreadable(loaded, unreadable)
    entries = rows(loaded, "fleet.move", "any", "new")
    assert {entry.workspace_id: entry.previous_model for entry in entries} == made | {
        unreadable: None
    }
    given = {entry.workspace_id: entry.model for entry in entries}
    assert given == {ws: name and "a" for ws, name in made.items()} | {unreadable: None}
    assert outcomes(entries)[unreadable] == "SECRET_UNREADABLE"


def test_one_that_is_refused_stops_none_of_the_others(loaded: Conn) -> None:
    orphan, unreadable, fine = (create(loaded, "old", model) for model in ("m", "m", None))
    make_unreadable(loaded, unreadable)
    entries = rows(loaded, "fleet.move", "old", "bare", request_id="r")
    assert outcomes(entries) == {
        orphan: "NO_DEFAULT_MODEL",
        unreadable: "SECRET_UNREADABLE",
        fine: "changed",
    }
    assert pair(loaded, orphan) == ("old", "m", 1)
    # Nothing is recorded of a refusal: the same request may succeed later.
    load(
        loaded, {**REGISTRY, "runtimes": [*REGISTRY["runtimes"][:2], runtime("bare", ("q", ["b"]))]}
    )
    again = rows(loaded, "fleet.move", "old", "bare", request_id="r")
    assert outcomes(again) == {orphan: "changed", unreadable: "SECRET_UNREADABLE"}


def test_each_workspace_is_restored_what_it_had_itself(loaded: Conn) -> None:
    had = {create(loaded, "new", model): model for model in ("a", "twin", "n")}
    assert Counter(outcomes(rows(loaded, "fleet.move", "new", "any")).values()) == {"changed": 3}
    for ws in had:
        call(loaded, "workspace.set_model", ws, "elsewhere")
    entries = rows(loaded, "fleet.move", "any", "new", True)
    assert {entry.workspace_id: entry.model for entry in entries} == had
    assert {entry.model_source for entry in entries} == {"restored"}


def test_a_request_moves_nothing_a_second_time(loaded: Conn) -> None:
    ws = create(loaded, "old", "n")
    (first,) = rows(loaded, "fleet.move", "old", "new", request_id="r")
    call(loaded, "workspace.change_runtime", ws, "old")
    with nothing_written(loaded):
        (again,) = rows(loaded, "fleet.move", "old", "new", request_id="r")
        (other,) = rows(loaded, "fleet.move", "old", "any", request_id="r")
    assert again == first._replace(outcome="recorded")
    assert (other.outcome, other.code) == ("refused", "REQUEST_ID_REUSED")
    assert pair(loaded, ws) == ("old", "n", 3)


# Orphans


def test_orphans_are_listed_with_what_a_reset_gives_them(loaded: Conn) -> None:
    orphan, fine, unreadable = (create(loaded, "old", model) for model in ("m", "n", "n"))
    bare = create(loaded, "any", "x")
    make_unreadable(loaded, unreadable)
    load(loaded, with_runtimes(runtime("old", ("p", ["n"])), runtime("any")), on_orphan="keep")

    assert sorted(map(tuple, rows(loaded, "fleet.orphans"))) == sorted(
        [
            (orphan, "old", "m", "not registered", "n", "default"),
            (bare, "any", "x", "not registered", None, None),
            (unreadable, "old", None, "unreadable", None, None),
        ]
    )
    assert [entry.workspace_id for entry in rows(loaded, "fleet.orphans", "any")] == [bare]
    entries = rows(loaded, "fleet.reset_orphans", request_id="r")
    assert outcomes(entries) == {
        orphan: "changed",
        bare: "NO_DEFAULT_MODEL",
        unreadable: "SECRET_UNREADABLE",
    }
    assert pair(loaded, orphan) == ("old", "n", 2)
    assert {entry.workspace_id for entry in rows(loaded, "fleet.orphans")} == {bare, unreadable}
    assert pair(loaded, fine) == ("old", "n", 1)


def test_a_reset_writes_nothing_to_what_is_no_orphan(loaded: Conn) -> None:
    fine = create(loaded, "old", "n")
    with nothing_written(loaded):
        (entry,) = rows(loaded, "fleet.reset_orphans", among=[fine], request_id="r")
    assert (entry.outcome, entry.version, entry.model_source) == ("unchanged", 1, "kept")


def test_a_load_can_reset_what_it_orphans(loaded: Conn) -> None:
    orphan, fine = create(loaded, "old", "m"), create(loaded, "old", "n")
    with nothing_written(loaded):
        dry = load(loaded, WITHOUT_M, on_orphan="reset", dry_run=True)
    done = load(loaded, WITHOUT_M, on_orphan="reset")
    assert dry.orphans == done.orphans
    assert [(o["workspace_id"], o["reset_model"]) for o in done.orphans] == [(str(orphan), "n")]
    assert pair(loaded, orphan) == ("old", "n", 2)
    assert pair(loaded, fine) == ("old", "n", 1)
    last = rows(loaded, "workspace.history", orphan)[-1]
    assert (last.action, last.model_source, last.changed) == ("change_runtime", "default", True)
    assert rows(loaded, "fleet.orphans") == []


def test_a_load_that_cannot_reset_them_all_loads_nothing(loaded: Conn) -> None:
    create(loaded, "old", "m")
    stuck = create(loaded, "new", "a")
    without = with_runtimes(runtime("old", ("p", ["n"])), runtime("new"))
    with nothing_written(loaded):
        detail = refused(loaded, "fleet.load_registry", Jsonb(without), "reset").detail
    assert detail["orphans"] == [{"workspace_id": str(stuck), "runtime": "new"}]
    assert (detail["code"], detail["orphans_total"]) == ("REGISTRY_ORPHANS", 1)


# Batches


def test_batches_go_through_all_of_them_once(loaded: Conn) -> None:
    made = sorted([create(loaded, "old", "n") for _ in range(7)])
    created = call(loaded, "workspace.create_workspace", "w", "old", None, UUID(int=0))
    seen: list[UUID] = []
    for size in (3, 3, 2):
        page = rows(loaded, "fleet.move", "old", "any", after=seen[-1] if seen else None, batch=3)
        assert len(page) == size
        seen += [entry.workspace_id for entry in page]
    assert seen == [created.workspace_id, *made]
    assert rows(loaded, "fleet.move", "old", "any") == []


def test_each_of_those_asked_for_has_a_row(loaded: Conn) -> None:
    here, deleted, elsewhere = (create(loaded, on, "n") for on in ("old", "old", "new"))
    call(loaded, "workspace.delete_workspace", deleted)
    asked = [here, None, elsewhere, here, deleted, UUID(int=5)]
    expected = {here: "changed", elsewhere: "gone", deleted: "gone", UUID(int=5): "gone"}
    with nothing_written(loaded):
        dry = rows(loaded, "fleet.move", "old", "any", among=asked, dry_run=True)
    assert outcomes(dry) == expected
    first = rows(loaded, "fleet.move", "old", "any", among=asked, batch=3)
    rest = rows(
        loaded, "fleet.move", "old", "any", among=asked, batch=3, after=first[-1].workspace_id
    )
    assert (len(first), len(rest)) == (3, 1)
    assert [entry.workspace_id for entry in [*first, *rest]] == sorted(expected)
    assert outcomes([*first, *rest]) == expected
    assert pair(loaded, elsewhere) == ("new", "n", 1)
    assert rows(loaded, "fleet.move", "new", "any", among=[]) == []


@pytest.mark.parametrize(
    ("named", "argument"),
    [
        ({"batch": None}, "batch"),
        ({"batch": 0}, "batch"),
        ({"batch": 10001}, "batch"),
        ({"dry_run": None}, "dry_run"),
    ],
)
def test_bad_arguments_are_refused(loaded: Conn, named: Json, argument: str) -> None:
    for function, args in (("fleet.move", ("old", "new")), ("fleet.reset_orphans", ())):
        refusal = refused(loaded, function, *args, **named)
        assert (refusal.code, refusal.detail["argument"]) == ("INVALID_ARGUMENT", argument)


def test_a_move_needs_two_runtimes_that_there_are(loaded: Conn) -> None:
    assert refused(loaded, "fleet.move", "old", " old ").detail["argument"] == "to_runtime"
    assert refused(loaded, "fleet.move", "old", "new", None).detail["argument"] == "restore"
    for args in (("nope", "old"), ("old", "nope")):
        assert refused(loaded, "fleet.move", *args).code == "RUNTIME_UNSUPPORTED"
    for function in ("fleet.orphans", "fleet.reset_orphans"):
        assert refused(loaded, function, "nope").code == "RUNTIME_UNSUPPORTED"


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_above_read_committed_it_is_refused(database: Database, level: IsolationLevel) -> None:
    conn = database.connect()
    conn.isolation_level = level
    for function, args in (("fleet.move", ("codex", "hermes")), ("fleet.reset_orphans", ())):
        assert refused(conn, function, *args).code == "ISOLATION_UNSUPPORTED"


# Others at work


def test_one_that_is_held_is_skipped_and_not_waited_for(fleet: Database) -> None:
    with sessions_on(fleet) as sessions:
        ids = on(sessions.observer, "old")
        call(sessions.first, "workspace.change_runtime", ids[3], "any")
        entries = rows(sessions.second, "fleet.move", "old", "new")
        assert outcomes(entries) == dict.fromkeys(ids, "changed") | {ids[3]: "skipped"}
        sessions.second.commit()
        sessions.first.commit()
        (entry,) = rows(sessions.second, "fleet.move", "old", "new", among=[ids[3]])
        assert entry.outcome == "gone"
        assert pair(sessions.second, ids[3]) == ("any", "m", 2)


def test_a_dry_run_waits_for_nobody_and_nobody_for_it(fleet: Database) -> None:
    with sessions_on(fleet) as sessions:
        (held, *others) = on(sessions.observer, "old")
        load(sessions.first, WITHOUT_M, on_orphan="reset")
        dry = rows(sessions.second, "fleet.move", "old", "new", dry_run=True)
        assert outcomes(dry) == dict.fromkeys([held, *others], "changed")
        sessions.first.commit()
        load(sessions.first, REGISTRY)
        call(sessions.first, "workspace.set_model", held, "m")


def test_a_dry_run_sees_no_pair_that_never_was(fleet: Database) -> None:
    with sessions_on(fleet) as sessions:
        (changed, *_) = on(sessions.observer, "old")
        # Between what a dry run reads of the workspaces and what it reads of their secrets.
        sessions.first.execute("lock table workspace.secrets in access exclusive mode")

        def dry(conn: Conn) -> Any:
            return rows(conn, "fleet.move", "old", "new", dry_run=True)

        with waiting(sessions, sessions.second, dry, behind=sessions.first) as outcome:
            call(sessions.first, "workspace.change_runtime", changed, "any", model="x")
            sessions.first.commit()
        told = {entry.workspace_id: entry for entry in outcome.result(SECONDS).answer or ()}
        assert len(told) == 10
        assert told[changed].previous_model in (None, "m")


def test_a_batch_waits_for_a_load_and_goes_by_the_new_registry(fleet: Database) -> None:
    with sessions_on(fleet) as sessions:
        load(sessions.first, with_runtimes(runtime("new", ("q", ["m", "n"]))))

        def moving(conn: Conn) -> Any:
            return move(conn, "old", "new")

        with waiting(sessions, sessions.second, moving, behind=sessions.first) as outcome:
            sessions.first.commit()
        entries = outcome.result(SECONDS).answer
        assert entries is not None
        assert {entry.model_source for entry in entries} == {"kept"}


def test_a_load_waits_for_a_batch_and_resets_what_it_moved(fleet: Database) -> None:
    with sessions_on(fleet) as sessions:
        ids = on(sessions.observer, "old")
        move(sessions.first, "old", "new", batch=4)
        without = with_runtimes(runtime("new", ("q", ["n"])))

        def loading(conn: Conn) -> Any:
            return load(conn, without, on_orphan="reset")

        with waiting(sessions, sessions.second, loading, behind=sessions.first) as outcome:
            sessions.first.commit()
        answer = outcome.result(SECONDS).answer
        assert answer is not None
        assert [o["workspace_id"] for o in answer.orphans] == [str(ws) for ws in ids[:4]]
        assert rows(sessions.observer, "fleet.orphans") == []
        assert [pair(sessions.observer, ws) for ws in ids[:4]] == [("new", "n", 3)] * 4


# The feed


def test_a_batch_is_in_the_feed_behind_what_was_before_it(fleet: Database) -> None:
    with fleet.connect(autocommit=True) as conn:
        before = rows(conn, "fleet.changes_after")
        ids = on(conn, "old")
        move(conn, "old", "new", batch=5)
        move(conn, "old", "new")
        behind = rows(conn, "fleet.changes_after", before[-1].cursor)
        assert [(entry.workspace_id, entry.version) for entry in behind] == [(ws, 2) for ws in ids]
        assert all(entry.needs_restart for entry in behind)


def test_a_batch_stands_behind_a_younger_transaction_that_had_the_workspace_first(
    fleet: Database,
) -> None:
    with sessions_on(fleet) as sessions:
        ws = on(sessions.observer, "old")[0]
        one(sessions.first, "select pg_current_xact_id()")
        call(sessions.second, "workspace.set_model", ws, "o")
        sessions.second.commit()
        move(sessions.first, "old", "new")
        sessions.first.commit()
        found = [e for e in rows(sessions.observer, "fleet.changes_after") if e.workspace_id == ws]
        assert [entry.version for entry in found] == [1, 2, 3]


def test_a_batch_wakes_those_who_listen_if_that_is_asked_for(fleet: Database) -> None:
    with fleet.connect(autocommit=True) as listener, fleet.connect(autocommit=True) as conn:
        listener.execute("listen runtime_registry_changes")
        move(conn, "old", "new", batch=1)
        conn.execute("set runtime_registry.notify = on")
        move(conn, "old", "new", batch=2)
        notices = list(listener.notifies(timeout=SECONDS, stop_after=1))
        assert [notice.pid for notice in notices] == [conn.info.backend_pid]
        assert list(listener.notifies(timeout=0)) == []


# All batches


def settled(batches: Any) -> list[MoveEntry]:
    return [entry for batch in batches for entry in batch]


def test_all_batches_move_all_and_each_is_committed(fleet: Database) -> None:
    with fleet.connect() as conn, fleet.connect(autocommit=True) as observer:
        left = 10
        for batch in move_all(conn, "old", "new", batch=3):
            left -= len(batch)
            assert len(on(observer, "old")) == left
        assert left == 0
        assert list(move_all(conn, "old", "new")) == []


def test_it_comes_back_to_those_that_were_held(fleet: Database) -> None:
    with fleet.connect() as holder, fleet.connect() as conn:
        ids = on(holder, "old")
        moved, deleted = ids[1], ids[2]
        for ws in ids[1:4]:
            call(holder, "workspace.set_model", ws, "n")
        call(holder, "workspace.change_runtime", moved, "any")
        call(holder, "workspace.delete_workspace", deleted)
        seen: list[MoveEntry] = []
        for batch in move_all(conn, "old", "new", batch=4):
            seen += batch
            if len(seen) == 7:
                holder.commit()
    assert len(seen) == 10
    assert outcomes(seen) == dict.fromkeys(ids, "changed") | {moved: "gone", deleted: "gone"}
    assert seen[-1].workspace_id == ids[3]
    assert (seen[-1].previous_model, seen[-1].version) == ("n", 3)


def test_what_is_never_let_go_is_yielded_as_skipped(fleet: Database) -> None:
    with fleet.connect() as holder, fleet.connect() as conn:
        ids = on(holder, "old")
        call(holder, "workspace.set_model", ids[5], "n")
        seen = settled(move_all(conn, "old", "new", batch=4, patience=0.1))
    assert outcomes(seen) == dict.fromkeys(ids, "changed") | {ids[5]: "skipped"}
    assert len(seen) == 10


def test_a_batch_that_failed_for_a_passing_reason_is_done_again(fleet: Database) -> None:
    with (
        fleet.connect() as loader,
        fleet.connect() as conn,
        fleet.connect(autocommit=True) as watch,
    ):
        conn.execute("set lock_timeout = '50ms'")
        conn.commit()
        load(loader, WITHOUT_M, on_orphan="keep")
        moving = in_thread(settled, move_all(conn, "old", "new"))
        begun: set[Any] = set()
        while len(begun) < 2:
            assert wait_until_blocked(watch, conn.info.backend_pid) == [loader.info.backend_pid]
            begun.add(
                one(
                    watch,
                    "select xact_start from pg_stat_activity where pid = %s",
                    conn.info.backend_pid,
                )
            )
        loader.commit()
        assert Counter(outcomes(moving.result(SECONDS)).values()) == {"changed": 10}


def test_a_batch_that_fails_again_and_again_raises_in_the_end(fleet: Database) -> None:
    with fleet.connect() as loader, fleet.connect() as conn:
        load(loader, WITHOUT_M, on_orphan="keep")
        conn.execute("set lock_timeout = '1ms'")
        conn.commit()
        with pytest.raises(LockTimeout):
            settled(move_all(conn, "old", "new", patience=0.1))
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_it_can_be_killed_and_goes_on_where_it_was(fleet: Database) -> None:
    with (
        fleet.connect() as first,
        fleet.connect() as second,
        fleet.connect(autocommit=True) as also,
    ):
        moving = move_all(first, "old", "new", request_id="r", batch=3)
        seen = next(moving) + next(moving)
        back = seen[0].workspace_id
        call(also, "workspace.change_runtime", back, "old")
        one(also, "select pg_terminate_backend(%s, 10000)", first.info.backend_pid)
        with pytest.raises((pyapi.DatabaseFailure, psycopg.OperationalError)):
            next(moving)
        rest = settled(move_all(second, "old", "new", request_id="r", batch=3))
        assert Counter(entry.outcome for entry in [*seen, *rest]) == {"changed": 10, "recorded": 1}
        assert on(also, "old") == [back]


def test_a_dry_run_of_all_has_the_figures_of_the_real_one(fleet: Database) -> None:
    with fleet.connect() as conn:
        dry = settled(move_all(conn, "old", "new", batch=3, dry_run=True))
        assert settled(move_all(conn, "old", "new", batch=3)) == dry


def test_all_orphans_can_be_reset(fleet: Database) -> None:
    with fleet.connect() as conn:
        load(conn, WITHOUT_M, on_orphan="keep")
        conn.commit()
        found = orphans(conn, "old")
        conn.commit()
        seen = settled(reset_all_orphans(conn, "old", batch=3))
        assert {e.workspace_id: (e.model, e.model_source) for e in seen} == {
            orphan.workspace_id: (orphan.reset_model, orphan.reset_source) for orphan in found
        }
        assert len(seen) == 10
        assert orphans(conn) == []


def test_it_needs_a_connection_that_is_in_no_transaction(fleet: Database) -> None:
    with fleet.connect() as conn:
        conn.execute("select")
        for batches in (move_all(conn, "old", "new"), reset_all_orphans(conn)):
            with pytest.raises(InvalidArgument):
                next(batches)


def test_it_can_bring_the_key_along(fleet: Database) -> None:
    kek = keyring.Kek(databases.KEK)
    with databases.without_kek(fleet.server), fleet.connect() as conn:
        if not databases.SEALED:
            with keyring.transaction(conn, kek):
                keyring.init(conn)
        assert len(settled(move_all(conn, "old", "new", batch=4, kek=kek))) == 10
        assert len(settled(reset_all_orphans(conn, kek=kek))) == 0
    with fleet.connect(options=keyring.startup_options(kek)) as conn:
        assert {pair(conn, ws) for ws in on(conn, "new")} == {("new", "a", 2)}


def test_the_async_twins_do_the_same(fleet: Database) -> None:
    async def walk() -> list[MoveEntry]:
        conn = await fleet.aconnect()
        with fleet.connect() as holder:
            ids = on(holder, "old")
            call(holder, "workspace.set_model", ids[0], "n")
            seen: list[MoveEntry] = []
            async for batch in aio.move_all(conn, "old", "new", batch=3, patience=5):
                seen += batch
                holder.commit()
        async for _ in aio.reset_all_orphans(conn):
            raise AssertionError("there are no orphans")
        await conn.close()
        return seen

    seen = asyncio.run(walk())
    assert Counter(entry.outcome for entry in seen) == {"changed": 10}
