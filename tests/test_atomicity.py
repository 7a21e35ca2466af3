"""A call that fails anywhere leaves everything as it was, and nobody is told that it did something.

Failures are injected by triggers, timeouts, cancellation and the death of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

import databases
import pyapi
from databases import Database
from pyapi import Change, DatabaseFailure
from pyapi.errors import ModelNotRegistered
from sessions import (
    LEVELS,
    SECONDS,
    Sessions,
    Told,
    check_history,
    commit,
    on,
    sessions_on,
    settle,
    tell,
    waiting,
)
from support import MANIFEST, Conn, nothing_written, one

KIMI = "moonshot/kimi-k2.6"
ADK_DEFAULT = "platform:gemini-2.5-pro"
INJECTED = "ZZ001"


@dataclass(frozen=True, slots=True)
class Case:
    """A call on a workspace that has claude-code and KIMI, and the tables it writes, in order.

    A tuple for each statement: triggers after a write run at the end of its statement.
    """

    call: Callable[[Conn, UUID], Change]
    told: Told
    statements: tuple[tuple[str, ...], ...] = (("workspaces", "changes", "secrets"),)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(chain(*self.statements))

    def written(self, table: str, moment: str) -> tuple[str, ...]:
        """What is written at a moment of the write to a table."""
        if moment == "deferred":
            return self.writes
        if moment == "before":
            return self.writes[: self.writes.index(table)]
        place = next(n for n, tables in enumerate(self.statements) if table in tables)
        return tuple(chain(*self.statements[: place + 1]))


def create(conn: Conn, ws: UUID) -> Change:
    return pyapi.create_workspace(conn, "another", "hermes", model=KIMI)


CASES = {
    "reset": Case(
        lambda conn, ws: pyapi.change_runtime(conn, ws, "google-adk"),
        ("google-adk", ADK_DEFAULT, "default"),
    ),
    "kept": Case(
        lambda conn, ws: pyapi.change_runtime(conn, ws, "hermes"),
        ("hermes", KIMI, "kept"),
        (("workspaces", "changes"),),
    ),
    "recorded": Case(
        lambda conn, ws: pyapi.change_runtime(conn, ws, "claude-code", request_id="r"),
        ("claude-code", KIMI, "kept"),
        (("workspaces", "changes"),),
    ),
    "set_model": Case(
        lambda conn, ws: pyapi.set_model(conn, ws, "opus"), ("claude-code", "opus", "requested")
    ),
    "clear_model": Case(
        pyapi.clear_model, ("claude-code", None, "none"), (("secrets",), ("workspaces", "changes"))
    ),
    "create": Case(
        create, ("hermes", KIMI, "requested"), (("workspaces",), ("changes", "secrets"))
    ),
    "delete": Case(
        pyapi.delete_workspace, (None, None, "none"), (("secrets",), ("workspaces",), ("changes",))
    ),
}
WRITES = [(name, table) for name, case in CASES.items() for table in case.writes]
MOMENTS = ["before", "after", "deferred"]


@pytest.fixture(scope="module")
def owned(template: Database) -> Iterator[Database]:
    """One database for all failures; each has a workspace of its own."""
    with databases.create(template.server, template) as database:
        yield database


@pytest.fixture(scope="module")
def opened(owned: Database) -> Iterator[Sessions]:
    """The same sessions for all tests."""
    with sessions_on(owned) as sessions:
        yield sessions


@pytest.fixture
def sessions(opened: Sessions) -> Iterator[Sessions]:
    """Sessions as they are by default."""
    yield opened
    opened.first.rollback()
    opened.first.autocommit, opened.first.isolation_level = False, None


@pytest.fixture
def created(sessions: Sessions) -> Change:
    """A new workspace."""
    return pyapi.create_workspace(sessions.observer, "w", "claude-code", model=KIMI)


def secrets(conn: Conn) -> str:
    """All secrets."""
    return str(
        one(conn, "select string_agg(s::text, ' ' order by s::text) from workspace.secrets s")
    )


@contextmanager
def failing(owner: Conn, table: str, moment: str) -> Iterator[None]:
    """Make every write to a table fail, before or after it is done or when it is committed.

    The error's DETAIL is what the transaction sees as the secrets then.
    """
    kind, time, when = {
        "before": ("", "before", ""),
        "after": ("", "after", ""),
        "deferred": ("constraint", "after", "deferrable initially deferred"),
    }[moment]
    owner.execute(
        f"""
        create function public.fail() returns trigger language plpgsql as $$
        begin
            raise exception using errcode = '{INJECTED}', message = 'injected', detail =
                (select string_agg(s::text, ' ' order by s::text) from workspace.secrets s);
        end $$;
        create {kind} trigger fail {time} insert or update or delete on {table} {when}
            for each row execute function public.fail()
        """
    )
    try:
        yield
    finally:
        owner.execute("drop function public.fail() cascade")


def check(sessions: Sessions, created: Change, case: Case) -> None:
    """Check that a workspace is as it was made, and that the call that failed succeeds now."""
    answer = commit(sessions.first, on(created.workspace_id, case.call))
    assert tell(answer) == case.told
    assert answer.version == (1 if case.call is create else 2)
    answers = [answer] if case.call is create else [created, answer]
    check_history(sessions.observer, answer.workspace_id, answers)


@pytest.mark.parametrize("autocommit", [True, False], ids=["alone", "in-a-block"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("name", "table"), WRITES)
def test_a_write_that_fails_takes_all_others_with_it(
    sessions: Sessions, created: Change, name: str, table: str, moment: str, autocommit: bool
) -> None:
    case, before = CASES[name], secrets(sessions.observer)
    sessions.first.autocommit = autocommit
    with failing(sessions.observer, f"workspace.{table}", moment):
        with nothing_written(sessions.observer), pytest.raises(DatabaseFailure) as caught:
            commit(sessions.first, on(created.workspace_id, case.call))
        error = caught.value.__cause__
        assert isinstance(error, psycopg.Error)
        assert error.sqlstate == INJECTED
        # The failure came when it should: what is written earlier was, what is written later not.
        if table != "secrets" or moment == "before":
            written = "secrets" in case.written(table, moment)
            assert (error.diag.message_detail != before) == written
    check(sessions, created, case)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["kept", "recorded"])
def test_a_model_that_stays_is_not_written(
    sessions: Sessions, created: Change, name: str, moment: str
) -> None:
    before = secrets(sessions.observer)
    with failing(sessions.observer, "workspace.secrets", moment):
        check(sessions, created, CASES[name])
    assert secrets(sessions.observer) == before


HOLDS = {
    "registry": "lock table registry.state in exclusive mode",
    "row": "select from workspace.workspaces for update",
    **{
        table: f"lock table workspace.{table} in share mode"
        for table in ("secrets", "workspaces", "changes")
    },
}
"""How another session stops a call: at its beginning, or at one of its writes."""
STOPS = [
    (name, hold)
    for name, case in CASES.items()
    for hold in HOLDS
    if hold == "registry" or hold in case.writes or (hold == "row" and name != "create")
]


@pytest.mark.parametrize(
    ("interruption", "code"),
    [
        ("select pg_terminate_backend(%s)", "CONNECTION_LOST"),
        ("select pg_cancel_backend(%s)", "STATEMENT_TIMEOUT"),
        ("set statement_timeout = '20ms'", "STATEMENT_TIMEOUT"),
        ("set lock_timeout = '1ms'", "LOCK_TIMEOUT"),
    ],
    ids=["killed", "cancelled", "statement_timeout", "lock_timeout"],
)
@pytest.mark.parametrize(("name", "hold"), STOPS)
def test_a_call_interrupted_while_it_waits_did_nothing(
    owned: Database,
    sessions: Sessions,
    created: Change,
    name: str,
    hold: str,
    interruption: str,
    code: str,
) -> None:
    call = on(created.workspace_id, CASES[name].call)
    sessions.first.execute(HOLDS[hold])
    with owned.connect() as conn, nothing_written(sessions.observer):
        if interruption.startswith("set"):
            commit(conn, lambda conn: conn.execute(interruption))
            outcome = settle(conn, call)
        else:
            with waiting(sessions, conn, call, behind=sessions.first) as interrupted:
                sessions.observer.execute(interruption, [conn.info.backend_pid])
                outcome = interrupted.result(SECONDS)
        assert (outcome.code, outcome.answer) == (code, None)
    sessions.first.rollback()
    check(sessions, created, CASES[name])


def kill(sessions: Sessions, conn: Conn) -> None:
    """End a session from another one."""
    query = "select pg_terminate_backend(%s, %s)"
    assert one(sessions.observer, query, conn.info.backend_pid, SECONDS * 1000)
    with pytest.raises(psycopg.OperationalError):
        conn.commit()


@pytest.mark.parametrize(
    "end",
    [kill, lambda sessions, conn: conn.close(), lambda sessions, conn: conn.rollback()],
    ids=["killed", "closed", "rolled-back"],
)
@pytest.mark.parametrize("name", CASES)
def test_a_call_that_was_not_committed_did_nothing(
    owned: Database,
    sessions: Sessions,
    created: Change,
    name: str,
    end: Callable[[Sessions, Conn], None],
) -> None:
    case = CASES[name]
    with owned.connect() as conn, nothing_written(sessions.observer):
        assert tell(case.call(conn, created.workspace_id)) == case.told
        end(sessions, conn)
    check(sessions, created, case)


CAUGHT_IN_SQL = """
    do $$
    begin
        perform workspace.change_runtime({}, 'google-adk');
        raise 'undo';
    exception when raise_exception then
    end $$
    """


@pytest.mark.parametrize("level", LEVELS)
def test_calls_are_part_of_their_caller_s_transaction(
    sessions: Sessions, created: Change, level: str
) -> None:
    conn, ws = sessions.first, created.workspace_id
    conn.isolation_level = LEVELS[level]

    def undone() -> None:
        with conn.transaction(force_rollback=True):
            for name in ("reset", "clear_model", "create", "delete"):
                CASES[name].call(conn, ws)

    def refused() -> None:
        with conn.transaction():
            CASES["reset"].call(conn, ws)
            CASES["set_model"].call(conn, ws)

    with nothing_written(sessions.observer):
        undone()
    with conn.transaction():
        kept = CASES["kept"].call(conn, ws)
        with nothing_written(conn):
            undone()
            with pytest.raises(ModelNotRegistered):
                refused()
            conn.execute(sql.SQL(CAUGHT_IN_SQL).format(str(ws)))
        with conn.transaction():
            chosen = pyapi.set_model(conn, ws, "moonshot/kimi-k2.5")
    check_history(sessions.observer, ws, [created, kept, chosen])


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "table",
    ["state", "revisions", "providers", "runtimes", "arms", "models", "claims", "equivalents"],
)
def test_a_load_that_fails_leaves_the_registry_as_it_was(
    sessions: Sessions, table: str, moment: str
) -> None:
    revision = one(sessions.observer, "select s.revision from registry.state as s")
    # Every table gets a row that it does not have.
    new = f"{table}-{moment}"
    providers = [*MANIFEST["providers"], {"name": new, "model_prefixes": [f"{new}:"]}]
    runtimes = [
        *MANIFEST["runtimes"],
        {"name": "another", "arms": [{"provider": new, "models": [new]}]},
    ]
    manifest = MANIFEST | {
        "providers": providers, "runtimes": runtimes, "equivalents": [["opus", new]],
    }  # fmt: skip
    with failing(sessions.observer, f"registry.{table}", moment):
        with nothing_written(sessions.observer), pytest.raises(DatabaseFailure) as caught:
            commit(sessions.first, lambda conn: pyapi.load_registry(conn, manifest))
        assert caught.value.sqlstate == INJECTED
    load = commit(sessions.first, lambda conn: pyapi.load_registry(conn, manifest))
    assert (load.loaded, load.revision) == (True, revision + 1)
