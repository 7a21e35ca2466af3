"""Pruning: what goes, what has to stay, and what the readers of the feed are told."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from databases import Database
from pyapi import (
    Pruning,
    change_runtime,
    changes_after,
    clear_model,
    create_workspace,
    current_cursor,
    delete_workspace,
    history,
    list_runtimes,
    preview_runtime_change,
    prune_changes,
    set_model,
)
from pyapi.errors import InvalidArgument, WorkspaceExists
from sessions import sessions_on, waiting
from support import Conn, nothing_written, one

KIMI, OPUS, GEMINI = "moonshot/kimi-k2.6", "opus", "platform:gemini-2.5-pro"
EVER = datetime(9999, 1, 1, tzinfo=UTC)


@pytest.fixture
def conn(database: Database) -> Conn:
    """A connection that commits: what is not committed is not pruned."""
    return database.connect(autocommit=True)


def made(conn: Conn) -> UUID:
    return create_workspace(conn, "w", "claude-code", model=KIMI).workspace_id


def prune(conn: Conn, before: datetime = EVER, batch: int = 1000) -> int:
    """Prune to the end; how many went."""
    done = prune_changes(conn, before, batch=batch)
    pruned = done.pruned
    while not done.finished:
        done = prune_changes(conn, before, batch=batch, cursor=done.cursor)
        pruned += done.pruned
    return pruned


def kept(conn: Conn, ws: UUID) -> list[int]:
    return [entry.version for entry in history(conn, ws)]


def test_the_first_the_last_and_the_last_model_on_each_runtime_stay(conn: Conn) -> None:
    ws = made(conn)
    set_model(conn, ws, OPUS)
    set_model(conn, ws, KIMI)  # 3: the last on claude-code
    change_runtime(conn, ws, "google-adk")
    set_model(conn, ws, "gemini-2.5-flash")  # 5: the last on google-adk
    clear_model(conn, ws)
    change_runtime(conn, ws, "hermes")
    set_model(conn, ws, "moonshot/kimi-k2.5")  # 8: the last
    assert prune(conn) == 4
    assert kept(conn, ws) == [1, 3, 5, 8]
    assert prune(conn) == 0
    # The versions go on, and restore takes the model it would have taken.
    assert set_model(conn, ws, KIMI).version == 9
    back = change_runtime(conn, ws, "google-adk", restore=True)
    assert (back.version, back.model, back.model_source) == (10, "gemini-2.5-flash", "restored")


def test_of_a_deleted_workspace_the_ends_stay_and_its_id_stays_taken(conn: Conn) -> None:
    ws = made(conn)
    set_model(conn, ws, OPUS)
    change_runtime(conn, ws, "google-adk")
    delete_workspace(conn, ws)
    assert prune(conn) == 2
    assert kept(conn, ws) == [1, 4]
    with pytest.raises(WorkspaceExists):
        create_workspace(conn, "again", "claude-code", id=ws)


def test_only_what_is_older_goes(conn: Conn) -> None:
    ws = made(conn)
    for model in (OPUS, KIMI, OPUS, KIMI):
        set_model(conn, ws, model)
    before = history(conn, ws)[2].changed_at
    assert prune(conn, before) == 1
    assert kept(conn, ws) == [1, 3, 4, 5]


def test_the_answer_to_a_request_id_stays_for_a_week(conn: Conn) -> None:
    ws = made(conn)
    answer = set_model(conn, ws, OPUS, request_id="r")
    set_model(conn, ws, KIMI)
    age = "update workspace.changes set changed_at = changed_at - %s"
    conn.execute(age, [timedelta(days=6, hours=23)])
    assert prune(conn) == 0
    assert set_model(conn, ws, OPUS, request_id="r") == answer
    conn.execute(age, [timedelta(hours=2)])
    assert prune(conn) == 1
    assert set_model(conn, ws, OPUS, request_id="r").version == 4


def test_what_the_feed_has_not_given_out_stays(database: Database) -> None:
    with sessions_on(database) as sessions:
        ws = made(sessions.observer)
        made(sessions.first)  # open: what comes now is not given out
        for model in (OPUS, KIMI):
            set_model(sessions.second, ws, model)
            sessions.second.commit()
        assert prune(sessions.observer) == 0
        sessions.first.rollback()
        assert prune(sessions.observer) == 1
        assert kept(sessions.observer, ws) == [1, 3]


@pytest.mark.parametrize("batch", [1, 7, 10000])
@pytest.mark.parametrize("seed", range(3))
def test_pruning_changes_no_decision_whatever_the_batches(
    conn: Conn, seed: int, batch: int
) -> None:
    dice = random.Random(seed)
    workspaces = [made(conn) for _ in range(4)]
    runtimes = [entry.runtime for entry in list_runtimes(conn) if entry.default_model]
    for _ in range(60):
        ws = dice.choice(workspaces)
        if dice.random() < 0.1:
            clear_model(conn, ws)
        else:
            change_runtime(conn, ws, dice.choice(runtimes), restore=dice.random() < 0.3)
    entries = changes_after(conn)
    before = entries[len(entries) * 2 // 3].changed_at

    def decisions() -> list[object]:
        return [
            preview_runtime_change(conn, ws, runtime, restore=True)
            for ws in workspaces
            for runtime in runtimes
        ]

    decided, last = decisions(), {ws: history(conn, ws)[-1] for ws in workspaces}
    young = [entry.version for entry in entries if entry.changed_at >= before]
    pruned = prune(conn, before, batch)
    assert pruned > 5
    assert decisions() == decided
    assert {ws: history(conn, ws)[-1] for ws in workspaces} == last
    left = changes_after(conn)
    assert len(left) == len(entries) - pruned
    assert [entry.version for entry in left if entry.changed_at >= before] == young


def test_a_reader_is_told_that_it_has_missed_changes(conn: Conn) -> None:
    ws = made(conn)
    for model in (OPUS, KIMI, OPUS, KIMI):
        set_model(conn, ws, model)
    entries = changes_after(conn)
    half_way = entries[2].changed_at
    assert prune(conn, half_way) == 1  # version 2
    with pytest.raises(InvalidArgument) as caught:
        changes_after(conn, entries[0].cursor)
    assert caught.value.argument == "cursor"
    assert "pruned" in caught.value.problem
    # Nothing that was pruned is behind these.
    for number in (1, 2, 3, 4):
        behind = changes_after(conn, entries[number].cursor)
        assert [entry.version for entry in behind] == list(range(number + 2, 6))
    # Whoever begins now is given what is left, from page to page.
    seen = [entry := changes_after(conn, batch=1)[0]]
    while page := changes_after(conn, entry.cursor, batch=1):
        seen.append(entry := page[0])
    assert [entry.version for entry in seen] == [1, 3, 4, 5]
    # Until more is pruned that it has not come to.
    assert prune(conn) == 2
    with pytest.raises(InvalidArgument):
        changes_after(conn, seen[0].cursor)
    assert changes_after(conn, entries[-1].cursor) == []
    assert changes_after(conn, current_cursor(conn)) == []


def test_two_at_once_take_turns_and_writers_go_on(database: Database) -> None:
    with sessions_on(database) as sessions:
        ws = made(sessions.observer)
        for model in (OPUS, KIMI, OPUS):
            set_model(sessions.observer, ws, model)
        assert prune_changes(sessions.first, EVER).pruned == 2

        def again(conn: Conn) -> Pruning:
            return prune_changes(conn, EVER)

        with waiting(sessions, sessions.second, again, behind=sessions.first) as second:
            assert set_model(sessions.observer, ws, KIMI).version == 5
            assert len(changes_after(sessions.observer, batch=10)) == 4
            sessions.first.commit()
        done = second.result(0).answer
        assert done
        assert done.finished
        assert kept(sessions.observer, ws)[-1] == 5


def test_what_a_batch_begins_with_may_be_anything(conn: Conn) -> None:
    ws = made(conn)
    set_model(conn, ws, OPUS)
    set_model(conn, ws, KIMI)
    done = prune_changes(conn, EVER, batch=1)
    assert (done.pruned, done.finished) == (0, False)
    assert prune_changes(conn, EVER, batch=1, cursor=done.cursor).pruned == 1
    end = prune_changes(conn, EVER, cursor=current_cursor(conn))
    assert (end.pruned, end.finished) == (0, True)
    assert one(conn, "select prunings from fleet.retention") == 1


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("before", {"before": None}),
        ("batch", {"before": EVER, "batch": 0}),
        ("batch", {"before": EVER, "batch": None}),
        ("cursor", {"before": EVER, "cursor": "x"}),
    ],
)
def test_what_makes_no_sense_is_refused(
    conn: Conn, argument: str, arguments: dict[str, object]
) -> None:
    with nothing_written(conn), pytest.raises(InvalidArgument) as caught:
        prune_changes(conn, **arguments)  # type: ignore[arg-type]
    assert caught.value.argument == argument
