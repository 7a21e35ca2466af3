"""The fleet from above: how many workspaces of which kind there are, and what changed last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from benchmarks import fill
from databases import Database
from pyapi import (
    change_runtime,
    clear_model,
    create_workspace,
    delete_workspace,
    history,
    overview,
    recent_changes,
    rename_workspace,
    set_model,
    set_secret,
)
from pyapi.errors import InvalidArgument
from support import Conn, acting_as, one

KIMI = "moonshot/kimi-k2.6"


def made(conn: Conn, model: str | None = KIMI) -> UUID:
    return create_workspace(conn, "w", "claude-code", model=model).workspace_id


def counted(conn: Conn) -> dict[tuple[str, str], int]:
    return {(entry.runtime, entry.model_source): entry.workspaces for entry in overview(conn)}


def test_workspaces_are_counted_by_runtime_and_by_where_their_model_came_from(conn: Conn) -> None:
    assert overview(conn) == []
    for _ in range(3):
        made(conn)
    made(conn, model=None)
    change_runtime(conn, made(conn), "google-adk")
    restored = made(conn)
    change_runtime(conn, restored, "google-adk")
    change_runtime(conn, restored, "claude-code", restore=True)
    clear_model(conn, made(conn))
    delete_workspace(conn, made(conn))
    assert counted(conn) == {
        ("claude-code", "none"): 2,
        ("claude-code", "requested"): 3,
        ("claude-code", "restored"): 1,
        ("google-adk", "default"): 1,
    }
    ordered = [(entry.runtime, entry.model_source) for entry in overview(conn)]
    assert ordered == sorted(ordered)


KEEPING: list[Callable[[Conn, UUID], Any]] = [
    lambda conn, ws: change_runtime(conn, ws, "hermes"),
    lambda conn, ws: rename_workspace(conn, ws, "v"),
    lambda conn, ws: set_secret(conn, ws, "A", "1"),
    lambda conn, ws: change_runtime(conn, ws, "claude-code", request_id="r"),
]


@pytest.mark.parametrize("keep", KEEPING)
def test_a_model_that_was_kept_counts_where_it_came_from(
    conn: Conn, keep: Callable[[Conn, UUID], Any]
) -> None:
    ws = made(conn)
    keep(conn, ws)
    last = history(conn, ws)[-1]
    assert (last.version, last.model_source) == (2, "kept")
    assert [(entry.model_source, entry.workspaces) for entry in overview(conn)] == [
        ("requested", 1)
    ]


def test_what_came_before_the_history_was_pruned_is_kept(conn: Conn) -> None:
    ws = made(conn)
    change_runtime(conn, ws, "google-adk")
    conn.execute("update workspace.changes set model_source = 'kept' where version = 1")
    rename_workspace(conn, ws, "v")
    assert counted(conn) == {("google-adk", "default"): 1}
    conn.execute("delete from workspace.changes where version = 2")
    assert counted(conn) == {("google-adk", "kept"): 1}


def test_recent_changes_are_those_of_the_histories_the_latest_first(database: Database) -> None:
    conn = database.connect(autocommit=True)
    first, second = made(conn), made(conn)
    set_secret(conn, first, "A", "1")
    change_runtime(conn, second, "google-adk")
    rename_workspace(conn, first, "v")
    delete_workspace(conn, second)
    found = recent_changes(conn)
    assert [(entry.workspace_id, entry.version) for entry in found] == [
        (second, 3),
        (first, 3),
        (second, 2),
        (first, 2),
        (second, 1),
        (first, 1),
    ]
    for ws in (first, second):
        assert [entry for entry in found if entry.workspace_id == ws] == history(conn, ws)[::-1]
    assert recent_changes(conn, max_entries=2) == found[:2]


def test_a_recent_change_whose_model_cannot_be_read_has_none(conn: Conn) -> None:
    ws = made(conn)
    set_model(conn, ws, "opus")
    conn.execute("update workspace.changes set sealed = '\\xdeadbeef', key_id = 0")
    assert [entry.model for entry in recent_changes(conn)] == [None, None]


@pytest.mark.parametrize("number", [None, 0, -1, 1001])
def test_recent_changes_are_at_most_a_thousand(conn: Conn, number: Any) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        recent_changes(conn, max_entries=number)
    assert refusal.value.argument == "max_entries"


def test_readers_may_look(conn: Conn) -> None:
    made(conn)
    with acting_as(conn, "runtime_registry_reader"):
        assert len(overview(conn)) == len(recent_changes(conn)) == 1


def test_recent_changes_read_no_more_than_they_give(database: Database) -> None:
    fill.fill(database.dsn, fill.CATALOGUE_PAIR, 20_000)
    with database.connect() as conn:
        read = "pg_stat_get_xact_tuples_fetched(%(t)s) + pg_stat_get_xact_tuples_returned(%(t)s)"
        query = f"select {read}".replace("%(t)s", "'workspace.changes'::regclass")
        before = one(conn, query)
        assert len(recent_changes(conn, max_entries=50)) == 50
        assert one(conn, query) - before <= 200
