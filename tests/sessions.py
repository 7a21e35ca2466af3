"""Two sessions on one database: whose turn it is, how a transaction ends, what must hold after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar
from uuid import UUID

import psycopg
from psycopg import IsolationLevel

from databases import Database, in_thread, wait_until_blocked
from pyapi import Change, RegistryError, get_workspace, history
from pyapi.errors import SerializationFailure, WorkspaceNotFound, translate
from support import Conn

T = TypeVar("T")
U = TypeVar("U")

Told = tuple[str | None, str | None, str] | str | None
"""What a caller is told, in short: runtime, model and its source, or the code of the refusal."""

SECONDS = 30
"""How long what nothing hinders may take; then the server cancels it and the test gives up."""
OPTIONS = f"-c statement_timeout={SECONDS}s"
"""For the connections of sessions that must not hang for ever."""
LEVELS = {
    "committed": IsolationLevel.READ_COMMITTED,
    "repeatable": IsolationLevel.REPEATABLE_READ,
    "serializable": IsolationLevel.SERIALIZABLE,
}


@dataclass(frozen=True, slots=True)
class Sessions:
    """Two sessions, and a third that watches them (autocommit)."""

    first: Conn
    second: Conn
    observer: Conn


@contextmanager
def sessions_on(database: Database) -> Iterator[Sessions]:
    """Open sessions."""
    with (
        database.connect(options=OPTIONS) as first,
        database.connect(options=OPTIONS) as second,
        database.connect(options=OPTIONS, autocommit=True) as observer,
    ):
        yield Sessions(first, second, observer)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a transaction ended: with an answer, once committed, or with an error.

    tries: how often it was begun: more than once only after serialization failures.
    """

    answer: T | None
    error: RegistryError | None
    tries: int

    @property
    def code(self) -> str | None:
        """The error's code."""
        return self.error.code if self.error else None


def commit(conn: Conn, action: Callable[[Conn], T]) -> T:
    """Do and commit an action. Raises RegistryError, also for what the commit raises."""
    try:
        answer = action(conn)
        conn.commit()
    except psycopg.Error as error:
        raise translate(error, lost=conn.closed) from error
    finally:
        with suppress(psycopg.OperationalError):  # The connection may be gone.
            conn.rollback()
    return answer


def settle(conn: Conn, action: Callable[[Conn], T]) -> Outcome[T]:
    """Do and commit an action, again after a serialization failure, as callers have to."""
    for tries in range(1, 100):
        try:
            return Outcome(commit(conn, action), None, tries)
        except SerializationFailure:
            continue
        except RegistryError as error:
            return Outcome(None, error, tries)
    raise AssertionError("every try was a serialization failure")


def tell(told: Change | Outcome[Change]) -> Told:
    """What a caller was told, in short."""
    if isinstance(told, Outcome):
        return told.code if told.answer is None else tell(told.answer)
    return told.runtime, told.model, told.model_source


def on(ws: UUID, call: Callable[[Conn, UUID], T]) -> Callable[[Conn], T]:
    """The action of calling something on one workspace."""
    return lambda conn: call(conn, ws)


def without_waiting(action: Callable[[Conn], T]) -> Callable[[Conn], T]:
    """The action, refused with LOCK_TIMEOUT where it would have to wait."""

    def call(conn: Conn) -> T:
        conn.execute("set local lock_timeout = '1ms'")
        return action(conn)

    return call


def in_turn(
    sessions: Sessions, first: Callable[[Conn], T], second: Callable[[Conn], U], ending: str
) -> tuple[T, Outcome[U]]:
    """Do two actions at once; return the first's answer and the second's outcome.

    ending: `commit` or `rollback`: the second has to wait for the first, which then ends like this.
    `before`: the second's transaction begins, with its snapshot, before all of the first.
    """
    if ending == "before":
        sessions.second.execute("select")
        answer = first(sessions.first)
        sessions.first.commit()
        return answer, settle(sessions.second, second)

    answer = first(sessions.first)
    with waiting(sessions, sessions.second, second, behind=sessions.first) as outcome:
        if ending == "commit":
            sessions.first.commit()
    return answer, outcome.result(0)


@contextmanager
def waiting(
    sessions: Sessions, conn: Conn, action: Callable[[Conn], T], behind: Conn
) -> Iterator[Future[Outcome[T]]]:
    """Let a session settle an action, in a thread, that has to wait for the session `behind`.

    The block begins once the server says that it waits for this one and for no other. It ends with
    the first session rolled back, if it is still in a transaction, and the action done.
    """
    pid, outcome = conn.info.backend_pid, in_thread(settle, conn, action)
    try:
        assert wait_until_blocked(sessions.observer, pid) == [behind.info.backend_pid]
        yield outcome
    finally:
        sessions.first.rollback()
        wait([outcome], SECONDS)


def check_history(conn: Conn, ws: UUID, answers: Sequence[Change]) -> None:
    """Check a workspace against its history and against every answer that was acknowledged.

    Each write has one row and each row an answer, each row begins where the one before ended, and
    the workspace is what the last row says, down to the bytes of its secret.
    """
    rows = history(conn, ws)
    assert [row.version for row in rows] == list(range(1, len(rows) + 1))
    assert (rows[0].previous_runtime, rows[0].previous_model) == (None, None)
    for before, row in pairwise(rows):
        assert (row.previous_runtime, row.previous_model) == (before.runtime, before.model)
        assert row.changed == ((row.runtime, row.model) != (before.runtime, before.model))

    said = ("previous_runtime", "previous_model", "model_source", "provider", "billed_to")
    told: dict[int, Change] = {}
    for answer in answers:
        row = rows[answer.version - 1]
        assert (answer.runtime, answer.model) == (row.runtime, row.model)
        if answer.changed:
            assert [getattr(answer, name) for name in said] == [getattr(row, name) for name in said]
            # Only who repeats a request may be told of a write that was told before.
            repeated = told.setdefault(answer.version, answer)
            assert repeated is answer or (repeated == answer and row.request_id is not None)
        elif not row.changed:
            told[answer.version] = answer
    assert sorted(told) == [row.version for row in rows]

    last = rows[-1]
    stored = conn.execute(
        "select sealed, key_id from workspace.secrets where workspace_id = %s", [ws]
    ).fetchall()
    recorded = conn.execute(
        "select sealed, key_id from workspace.changes"
        " where workspace_id = %s and version = %s and sealed is not null",
        [ws, last.version],
    ).fetchall()
    assert stored == recorded
    try:
        now = get_workspace(conn, ws)
    except WorkspaceNotFound:
        conn.rollback()
        assert last.action == "delete_workspace"
    else:
        assert (now.runtime, now.model, now.version) == (last.runtime, last.model, last.version)
        assert now.model_registered is (None if now.model is None else True)
