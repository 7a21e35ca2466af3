"""Two sessions on one workspace, at every isolation level, every interleaving forced by locks.

A client that reads the model, decides and then writes loses each of these races. Here the second
session waits for the first, as pg_blocking_pids says, and then decides on what it left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from uuid import UUID, uuid4

import pytest

import databases
from databases import Database, in_thread
from pyapi import (
    Change,
    change_runtime,
    clear_model,
    create_workspace,
    delete_workspace,
    get_workspace,
    history,
    preview_runtime_change,
    set_model,
)
from sessions import (
    LEVELS,
    OPTIONS,
    SECONDS,
    Outcome,
    Sessions,
    Told,
    check_history,
    in_turn,
    on,
    sessions_on,
    settle,
    tell,
    waiting,
    without_waiting,
)
from support import Conn

Action = Callable[[Conn, UUID], Change]
KIMI = "moonshot/kimi-k2.6"
START = ("claude-code", KIMI)
HERMES_DEFAULT = "kimi-coding/kimi-k2"
ADK_DEFAULT = "platform:gemini-2.5-pro"


def keep(conn: Conn, ws: UUID) -> Change:
    return change_runtime(conn, ws, "hermes")  # has KIMI, but not opus


def reset(conn: Conn, ws: UUID) -> Change:
    return change_runtime(conn, ws, "google-adk")  # has neither


def choose(conn: Conn, ws: UUID) -> Change:
    return set_model(conn, ws, "opus")  # registered for claude-code only


def choose_other(conn: Conn, ws: UUID) -> Change:
    return set_model(conn, ws, "haiku")


def clear(conn: Conn, ws: UUID) -> Change:
    return clear_model(conn, ws)


def create(conn: Conn, ws: UUID) -> Change:
    return create_workspace(conn, "again", "hermes", model=KIMI, id=ws)


def delete(conn: Conn, ws: UUID) -> Change:
    return delete_workspace(conn, ws)


def keep_version_1(conn: Conn, ws: UUID) -> Change:
    return change_runtime(conn, ws, "hermes", expected_version=1)


def choose_version_1(conn: Conn, ws: UUID) -> Change:
    return set_model(conn, ws, "opus", expected_version=1)


def delete_version_1(conn: Conn, ws: UUID) -> Change:
    return delete_workspace(conn, ws, expected_version=1)


def keep_request(conn: Conn, ws: UUID) -> Change:
    return change_runtime(conn, ws, "hermes", expected_version=1, request_id="r")


def reset_request(conn: Conn, ws: UUID) -> Change:
    return change_runtime(conn, ws, "google-adk", request_id="r")


def choose_request(conn: Conn, ws: UUID) -> Change:
    return set_model(conn, ws, "opus", request_id="r")


@dataclass(frozen=True, slots=True)
class Race:
    """Two actions at once, and what the second is told."""

    first: Action
    second: Action
    after: Told
    """if the first is committed"""
    alone: Told
    """if the first is rolled back"""
    start: tuple[str, str] | None = START
    """The workspace's pair before; None: there is no workspace."""
    by_key: bool = False
    """A unique key can tell the second of the first's commit, however old its snapshot is."""


KEPT = ("hermes", KIMI, "kept")
RESET = ("google-adk", ADK_DEFAULT, "default")
CHOSEN = ("claude-code", "opus", "requested")
CREATED = ("hermes", KIMI, "requested")
GONE = (None, None, "none")

RACES = {
    # A change keeps the model while a set_model valid for the old runtime lands.
    "kept-then-set": Race(keep, choose, "MODEL_NOT_REGISTERED", CHOSEN),
    "set-then-kept": Race(choose, keep, ("hermes", HERMES_DEFAULT, "default"), KEPT),
    # A change resets the model while a set_model lands.
    "reset-then-set": Race(reset, choose, "MODEL_NOT_REGISTERED", CHOSEN),
    "set-then-reset": Race(choose, reset, RESET, RESET),
    # Two changes at once.
    "kept-then-reset": Race(keep, reset, RESET, RESET),
    "reset-then-kept": Race(reset, keep, ("hermes", HERMES_DEFAULT, "default"), KEPT),
    "kept-twice": Race(keep, keep, KEPT, KEPT),
    "reset-twice": Race(reset, reset, ("google-adk", ADK_DEFAULT, "kept"), RESET),
    # The model alone.
    "set-then-set": Race(
        choose,
        choose_other,
        ("claude-code", "haiku", "requested"),
        ("claude-code", "haiku", "requested"),
    ),
    "set-twice": Race(choose, choose, CHOSEN, CHOSEN),
    "clear-then-reset": Race(clear, reset, ("google-adk", None, "none"), RESET),
    "reset-then-clear": Race(
        reset, clear, ("google-adk", None, "none"), ("claude-code", None, "none")
    ),
    "clear-then-set": Race(clear, choose, CHOSEN, CHOSEN),
    # The workspace comes or goes.
    "delete-then-change": Race(delete, reset, "WORKSPACE_NOT_FOUND", RESET),
    "delete-then-set": Race(delete, choose, "WORKSPACE_NOT_FOUND", CHOSEN),
    "change-then-delete": Race(reset, delete, GONE, GONE),
    "delete-twice": Race(delete, delete, "WORKSPACE_NOT_FOUND", GONE),
    "create-twice": Race(create, create, "WORKSPACE_EXISTS", CREATED, None, by_key=True),
    "delete-then-create": Race(delete, create, "WORKSPACE_EXISTS", "WORKSPACE_EXISTS", by_key=True),
    # A version that both expect is had by one.
    "version-change-set": Race(keep_version_1, choose_version_1, "VERSION_CONFLICT", CHOSEN),
    "version-set-change": Race(choose_version_1, keep_version_1, "VERSION_CONFLICT", KEPT),
    "version-change-delete": Race(keep_version_1, delete_version_1, "VERSION_CONFLICT", GONE),
    # One request from two sessions is done once; both get the same answer.
    "request-twice": Race(keep_request, keep_request, KEPT, KEPT),
    "request-set-twice": Race(choose_request, choose_request, CHOSEN, CHOSEN),
    "request-reused": Race(keep_request, reset_request, "REQUEST_ID_REUSED", RESET),
    "request-other-function": Race(choose_request, keep_request, "REQUEST_ID_REUSED", KEPT),
}


@pytest.fixture(scope="module")
def raced(template: Database) -> Iterator[Database]:
    """One database for all races; each race has a workspace of its own."""
    with databases.create(template.server, template) as database:
        yield database


@pytest.fixture(scope="module")
def opened(raced: Database) -> Iterator[Sessions]:
    """The same sessions for all races."""
    with sessions_on(raced) as sessions:
        yield sessions


@pytest.fixture
def sessions(opened: Sessions) -> Iterator[Sessions]:
    """Sessions as they are by default."""
    yield opened
    for conn in (opened.first, opened.second):
        conn.rollback()
        conn.isolation_level = None


@pytest.mark.parametrize("ending", ["commit", "rollback", "before"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", RACES)
def test_the_second_decides_on_what_the_first_left(
    sessions: Sessions, name: str, level: str, ending: str
) -> None:
    race, ws, observer = RACES[name], uuid4(), sessions.observer
    answers: list[Change] = []
    if race.start is not None:
        runtime, model = race.start
        answers.append(create_workspace(observer, "raced", runtime, model=model, id=ws))
    sessions.first.isolation_level = sessions.second.isolation_level = LEVELS[level]

    first, second = in_turn(sessions, on(ws, race.first), on(ws, race.second), ending)

    answers += [first] if ending != "rollback" else []
    answers += [second.answer] if second.answer else []
    told = race.alone if ending == "rollback" else race.after
    assert tell(second) == told
    # Above READ COMMITTED a snapshot from before the first's commit cannot see it, and must fail.
    overtaken = level != "committed" and ending != "rollback"
    assert second.tries == (2 if overtaken else 1) or race.by_key
    check_history(observer, ws, answers)


@pytest.mark.parametrize("stop", ["workspaces", "changes"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", list(RACES)[:8])
def test_the_second_waits_for_a_first_that_is_between_its_writes(
    raced: Database, sessions: Sessions, name: str, level: str, stop: str
) -> None:
    race, ws = RACES[name], uuid4()
    created = create_workspace(sessions.observer, "raced", "claude-code", model=KIMI, id=ws)
    sessions.second.isolation_level = LEVELS[level]
    # The first session stops the second, and the third comes upon that.
    sessions.first.execute(f"lock table workspace.{stop} in share mode")
    with (
        raced.connect(options=OPTIONS) as third,
        waiting(sessions, sessions.second, on(ws, race.first), behind=sessions.first) as one,
    ):
        third.isolation_level = LEVELS[level]
        with waiting(sessions, third, on(ws, race.second), behind=sessions.second) as other:
            sessions.first.rollback()
    first, second = one.result(0), other.result(0)

    assert (tell(second), first.tries) == (race.after, 1)
    assert second.tries == (1 if level == "committed" else 2)
    answers = [created, first.answer, second.answer]
    check_history(sessions.observer, ws, [answer for answer in answers if answer is not None])


def test_a_workspace_that_is_not_committed_is_not_there_and_nobody_waits_for_it(
    sessions: Sessions,
) -> None:
    ws = uuid4()
    created = create(sessions.first, ws)
    for action in (reset, choose, clear, delete):
        assert (
            settle(sessions.second, without_waiting(on(ws, action))).code == "WORKSPACE_NOT_FOUND"
        )
    sessions.first.commit()
    changed = settle(sessions.second, without_waiting(on(ws, reset))).answer
    assert changed is not None
    check_history(sessions.observer, ws, [created, changed])


AS_SOON_AS_IT_IS_THERE = """
create function pg_temp.as_soon_as_it_is_there(ws uuid) returns setof workspace.change as $$
begin
  loop
    begin
      return query select * from workspace.{call};
      return;
    exception when sqlstate 'PT404' then -- WORKSPACE_NOT_FOUND
    end;
  end loop;
end $$ language plpgsql
"""


def test_whoever_acts_at_the_moment_of_a_commit_has_the_lock_or_finds_no_workspace(
    raced: Database,
) -> None:
    ids = [uuid4() for _ in range(300)]
    together = threading.Barrier(4, timeout=SECONDS)

    def one_by_one() -> Iterator[UUID]:
        for ws in ids:
            together.wait()
            yield ws

    def hammer(call: str) -> list[Outcome[Change]]:
        def act(conn: Conn, ws: UUID) -> Change:
            query = "select * from pg_temp.as_soon_as_it_is_there(%s)"
            return Change(*conn.execute(query, [ws]).fetchall()[0])

        with raced.connect(options=f"{OPTIONS} -c deadlock_timeout=10ms") as conn:
            conn.execute(AS_SOON_AS_IT_IS_THERE.format(call=call).encode())
            conn.commit()
            return [settle(conn, on(ws, act)) for ws in one_by_one()]

    calls = ("change_runtime(ws, 'hermes')", f"set_model(ws, '{KIMI}')", "clear_model(ws)")
    hammering = [in_thread(hammer, call) for call in calls]
    with raced.connect(options=OPTIONS, autocommit=True) as conn:
        made = [
            create_workspace(conn, "w", "claude-code", model="opus", id=ws) for ws in one_by_one()
        ]
        acted = zip(*(hammer.result(SECONDS) for hammer in hammering), strict=True)
        for created, outcomes in zip(made, acted, strict=True):
            assert [outcome.error for outcome in outcomes] == [None] * len(calls)
            answers = [outcome.answer for outcome in outcomes if outcome.answer is not None]
            check_history(conn, created.workspace_id, [created, *answers])


@pytest.mark.parametrize("level", ["committed", "repeatable"])
def test_calls_on_two_workspaces_do_not_wait_for_each_other(sessions: Sessions, level: str) -> None:
    sessions.first.isolation_level = sessions.second.isolation_level = LEVELS[level]
    for first, second in product((keep, reset, choose, clear, delete), repeat=2):
        made = [
            create_workspace(sessions.observer, "w", "claude-code", model=KIMI) for _ in range(2)
        ]
        one, other = (answer.workspace_id for answer in made)
        first(sessions.first, one)
        outcome = settle(sessions.second, without_waiting(on(other, second)))
        sessions.first.rollback()
        assert (outcome.code, outcome.tries) == (None, 1)


READERS: dict[str, Callable[[Conn, UUID], object]] = {
    "get_workspace": get_workspace,
    "preview_runtime_change": lambda conn, ws: preview_runtime_change(conn, ws, "codex"),
    "history": history,
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_sees_all_of_a_change_or_nothing(sessions: Sessions, name: str) -> None:
    ws = create_workspace(sessions.observer, "read", "claude-code", model=KIMI).workspace_id
    before = READERS[name](sessions.observer, ws)
    # No reader waits for a call. This lock stops it after it began, where it reads the secret.
    sessions.first.execute("lock table workspace.secrets, workspace.changes")
    reset(sessions.first, ws)
    with waiting(sessions, sessions.second, on(ws, READERS[name]), behind=sessions.first) as seen:
        sessions.first.commit()
    assert seen.result(0).answer in (before, READERS[name](sessions.observer, ws))
