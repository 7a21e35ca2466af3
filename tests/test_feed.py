"""The feed: every committed change once, a workspace's in order, whenever its transaction ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import IsolationLevel

import keyrings
from databases import Database, create
from pyapi import (
    FeedEntry,
    HistoryEntry,
    change_runtime,
    changes_after,
    clear_model,
    create_workspace,
    current_cursor,
    delete_workspace,
    history,
    set_model,
)
from pyapi.errors import DatabaseFailure, InvalidArgument, SerializationFailure
from servers import installation
from sessions import commit, on, sessions_on, waiting
from support import Conn, make_unreadable, nothing_written, one

KIMI = "moonshot/kimi-k2.6"
NOWHERE = UUID(int=0)


def made(conn: Conn) -> UUID:
    return create_workspace(conn, "w", "claude-code", model=KIMI).workspace_id


def switch(conn: Conn, ws: UUID) -> int:
    """Change a workspace; its version then."""
    model = history(conn, ws)[-1].model
    return set_model(conn, ws, "opus" if model != "opus" else "sonnet").version


def versions(entries: list[FeedEntry]) -> list[tuple[UUID, int]]:
    return [(entry.workspace_id, entry.version) for entry in entries]


def paged(conn: Conn, cursor: str | None = None, batch: int = 1) -> list[FeedEntry]:
    """All of the feed behind a cursor, page by page."""
    entries: list[FeedEntry] = []
    while page := changes_after(conn, cursor, batch=batch):
        assert len(page) <= batch
        entries += page
        cursor = page[-1].cursor
    return entries


def test_an_entry_says_what_the_history_says(database: Database) -> None:
    conn = database.connect(autocommit=True)
    ws = made(conn)
    change_runtime(conn, ws, "google-adk", request_id="r")
    change_runtime(conn, ws, "google-adk", request_id="again")
    make_unreadable(conn, ws)
    clear_model(conn, ws)
    conn.execute("update workspace.changes set sealed = '\\xff' where version = 1")
    delete_workspace(conn, ws)
    said = history(conn, ws)
    entries = changes_after(conn)
    assert len(entries) == len(said) == 5
    names = HistoryEntry.__slots__
    for entry, recorded in zip(entries, said, strict=True):
        assert [getattr(entry, name) for name in names] == [
            getattr(recorded, name) for name in names
        ]
    assert entries[0].model is None
    assert [entry.needs_restart for entry in entries] == [False, True, False, True, False]
    assert paged(conn) == entries
    for number, entry in enumerate(entries, start=1):
        assert changes_after(conn, entry.cursor) == entries[number:]


def test_no_key_is_in_a_query_that_auto_explain_could_show(database: Database) -> None:
    said: list[str] = []
    conn = database.connect(options=keyrings.options(), autocommit=True)
    keyrings.empty(conn)
    keyrings.init(conn)
    key = keyrings.data_key(conn)
    ws = made(conn)
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    conn.execute(
        "load 'auto_explain';"
        " set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;"
        " set auto_explain.log_verbose = on; set client_min_messages = log"
    )
    assert [(entry.workspace_id, entry.model) for entry in changes_after(conn)] == [(ws, KIMI)]
    shown = "\n".join(said)
    assert "workspace.changes" in shown
    assert key not in shown


def test_a_page_reads_no_more_than_it_gives(database: Database) -> None:
    conn = database.connect()
    for _ in range(300):
        made(conn)
    conn.commit()
    conn.execute("analyze workspace.changes")
    middle = changes_after(conn, batch=150)[-1].cursor
    conn.commit()
    fresh = database.connect()  # its statistics begin at nothing
    changes_after(fresh, middle, batch=10)
    read = one(
        fresh,
        "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables"
        " where relid = 'workspace.changes'::regclass",
    )
    assert 10 <= read <= 15


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_transaction_that_commits_late_is_not_skipped(database: Database, ending: str) -> None:
    with sessions_on(database) as sessions:
        early, late = made(sessions.first), made(sessions.second)
        sessions.second.commit()
        # It wrote first and is still open: the feed waits for it.
        assert changes_after(sessions.observer) == []
        beginning = current_cursor(sessions.observer)
        getattr(sessions.first, ending)()
        expected = [(early, 1)] * (ending == "commit") + [(late, 1)]
        assert versions(paged(sessions.observer)) == expected
        assert versions(paged(sessions.observer, beginning)) == expected


def test_an_old_transaction_that_gets_a_workspace_late_does_not_overtake(
    database: Database,
) -> None:
    with sessions_on(database) as sessions:
        ws = made(sessions.observer)
        begun = changes_after(sessions.observer)[-1].cursor
        old = one(sessions.first, "select pg_current_xact_id()::text::bigint")
        assert switch(sessions.second, ws) == 2
        assert one(sessions.second, "select pg_current_xact_id()::text::bigint") > old
        sessions.second.commit()
        assert changes_after(sessions.observer, begun) == []
        # Version 3 is made by the older transaction.
        assert switch(sessions.first, ws) == 3
        other = made(sessions.first)
        sessions.first.commit()
        assert sorted(versions(paged(sessions.observer, begun))) == sorted(
            [(ws, 2), (ws, 3), (other, 1)]
        )
        seen = [version for of, version in versions(paged(sessions.observer, begun)) if of == ws]
        assert seen == [2, 3]


def test_a_younger_transaction_in_flight_hides_what_it_may_stand_before(
    database: Database,
) -> None:
    """A change made by an old transaction can stand at a younger one's position."""
    with sessions_on(database) as sessions:
        ws = made(sessions.observer)
        begun = current_cursor(sessions.observer)
        one(sessions.first, "select pg_current_xact_id()::text")
        switch(sessions.second, ws)
        sessions.second.commit()
        one(sessions.second, "select pg_current_xact_id()::text")
        switch(sessions.first, ws)
        sessions.first.commit()
        # Of the three only the youngest is open: what is before it is given.
        assert versions(changes_after(sessions.observer, begun)) == [(ws, 2), (ws, 3)]
        switch(sessions.second, ws)
        sessions.second.commit()
        assert versions(paged(sessions.observer, begun)) == [(ws, 2), (ws, 3), (ws, 4)]


def test_changes_of_one_transaction_and_its_savepoints_are_in_order(database: Database) -> None:
    with sessions_on(database) as sessions:
        conn = sessions.first
        pair = sorted([made(conn), made(conn)])
        for ws in reversed(pair):
            switch(conn, ws)
            with conn.transaction(force_rollback=True):
                switch(conn, ws)
                made(conn)
            with conn.transaction():
                switch(conn, ws)
        assert changes_after(conn) == []  # not even its own
        conn.commit()
        expected = [(ws, version) for ws in pair for version in (1, 2, 3)]
        assert versions(paged(sessions.observer)) == expected


def test_a_reader_above_read_committed_sees_its_snapshot(database: Database) -> None:
    with sessions_on(database) as sessions:
        sessions.second.isolation_level = IsolationLevel.REPEATABLE_READ
        first = made(sessions.observer)
        assert versions(changes_after(sessions.second)) == [(first, 1)]
        second = made(sessions.observer)
        assert versions(changes_after(sessions.second)) == [(first, 1)]
        cursor = changes_after(sessions.second)[-1].cursor
        sessions.second.commit()
        assert versions(changes_after(sessions.second, cursor)) == [(second, 1)]


def test_behind_the_cursor_of_now_is_what_is_committed_from_now_on(database: Database) -> None:
    with sessions_on(database) as sessions:
        made(sessions.observer)
        now = current_cursor(sessions.observer)
        assert changes_after(sessions.observer, now) == []
        ws = made(sessions.observer)
        assert versions(changes_after(sessions.observer, now)) == [(ws, 1)]


def test_the_cursor_of_now_does_not_skip_what_is_in_flight(database: Database) -> None:
    with sessions_on(database) as sessions:
        ws = made(sessions.first)
        now = current_cursor(sessions.observer)
        sessions.first.commit()
        assert versions(changes_after(sessions.observer, now)) == [(ws, 1)]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "now",
        "1",
        f"1.{NOWHERE}.1",
        f"1.{NOWHERE}.1.0\n",
        f"-1.{NOWHERE}.1.0",
        f"1.{NOWHERE}.1.0.0",
        f"1.{NOWHERE.hex}.1.0",
        f"1{'0' * 18}.{NOWHERE}.1.0",
        "1.zzzzzzzz-0000-0000-0000-000000000000.1.0",
    ],
)
def test_what_is_no_cursor_is_refused(conn: Conn, cursor: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        changes_after(conn, cursor)
    assert caught.value.argument == "cursor"


def test_a_cursor_that_the_database_has_not_come_to_is_refused(conn: Conn) -> None:
    with pytest.raises(InvalidArgument) as caught:
        changes_after(conn, f"{'9' * 18}.{uuid4()}.1.0")
    assert (caught.value.argument, caught.value.problem) == ("cursor", "is ahead of this database")


@pytest.mark.parametrize("batch", [0, -1, 10001, None])
def test_a_batch_has_a_size(conn: Conn, batch: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        changes_after(conn, batch=batch)
    assert caught.value.argument == "batch"


# A dump restored into a cluster whose transaction ids are lower. In the tests: a dump from one that
# had used ten million more.


@contextmanager
def restored(database: Database, directory: Path) -> Iterator[Database]:
    """The database, aged and dumped, and what the dump was restored into."""
    conn = database.connect(autocommit=True)
    conn.execute("update workspace.changes set position = position + 10000000")
    dump = directory / "dump.sql"
    # Of the server's version: a newer one sets what this server may not know.
    program = installation(database.server.version // 10000).programs / "pg_dump"
    subprocess.run([program, "-f", dump, "-d", database.dsn], check=True)
    with create(database.server) as copy:
        copy.psql("-q", "-f", dump)
        yield copy


def test_in_a_restored_dump_the_feed_goes_on_where_its_readers_were(
    database: Database, tmp_path: Path
) -> None:
    source = database.connect(autocommit=True)
    workspaces = [made(source), made(source)]
    for ws in workspaces:
        switch(source, ws)
    with restored(database, tmp_path) as copy:
        conn = copy.connect(autocommit=True)
        position = "select position, workspace_id, version from workspace.changes order by 1, 2, 3"
        places = conn.execute(position).fetchall()
        old = [(ws, version) for _, ws, version in places]
        middle, end = (".".join(map(str, [*places[at], 0])) for at in (1, -1))
        # Somebody was given a change that the dump does not have.
        lost = f"{places[-1][0] + 1000}.{NOWHERE}.1.0"

        # Before anything is written all of it is there, in a read-only transaction too.
        now = current_cursor(conn)
        with conn.transaction():
            conn.execute("set transaction read only")
            assert versions(paged(conn)) == old
            assert versions(paged(conn, middle)) == old[2:]
        switch(conn, workspaces[0])
        new = made(conn)
        switch(conn, workspaces[0])
        later = [(workspaces[0], 3), (new, 1), (workspaces[0], 4)]
        for cursor in (end, lost, now):
            assert versions(paged(conn, cursor)) == later
        assert versions(paged(conn, middle)) == [*old[2:], *later]
        assert versions(paged(conn)) == [*old, *later]
        assert one(conn, "select era from workspace.numbering") == 1


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_the_first_writers_after_a_restore_agree_on_the_era(
    database: Database, tmp_path: Path, ending: str
) -> None:
    ws = made(database.connect(autocommit=True))
    with restored(database, tmp_path) as copy, sessions_on(copy) as sessions:
        old = copy.connect()
        old.isolation_level = IsolationLevel.REPEATABLE_READ
        old.execute("select")
        with sessions.first.transaction(force_rollback=True):
            made(sessions.first)
        first = made(sessions.first)
        assert versions(paged(sessions.observer)) == [(ws, 1)]
        with waiting(sessions, sessions.second, made, behind=sessions.first) as writing:
            getattr(sessions.first, ending)()
        second = writing.result(0).answer
        with pytest.raises(SerializationFailure):
            commit(old, on(ws, switch))
        commit(old, on(ws, switch))
        entries = versions(paged(sessions.observer))
        assert entries == [(ws, 1), *[(first, 1)] * (ending == "commit"), (second, 1), (ws, 2)]
        assert one(sessions.observer, "select era from workspace.numbering") == 1


def test_after_a_recovery_to_an_earlier_time_a_new_era_can_be_begun(database: Database) -> None:
    conn = database.connect(autocommit=True)
    made(conn)
    lost = f"{one(conn, 'select pg_current_xact_id()::text::bigint') + 1000}.{NOWHERE}.1.0"
    with pytest.raises(InvalidArgument):
        changes_after(conn, lost)
    conn.execute("update workspace.numbering set made_in = null")
    assert changes_after(conn, lost) == []
    ws = made(conn)
    assert versions(changes_after(conn, lost)) == [(ws, 1)]


def test_without_the_row_that_positions_begin_with_nothing_is_written(conn: Conn) -> None:
    ws = made(conn)
    conn.execute("delete from workspace.numbering")
    for write in (made, on(ws, switch)):
        refused = pytest.raises(DatabaseFailure)
        with nothing_written(conn), refused as caught, conn.transaction():
            write(conn)
        assert isinstance(caught.value.__cause__, psycopg.errors.ObjectNotInPrerequisiteState)
