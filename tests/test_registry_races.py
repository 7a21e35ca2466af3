"""Calls on workspaces against loads of the registry, every interleaving forced by locks.

A load replaces what calls decide by and judges what they wrote. Whichever comes second waits and
then sees what the first did; where its snapshot cannot, it fails with 40001 and sees it next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import IsolationLevel

import databases
import pyapi
from databases import Database
from pyapi import Change, RegistryLoad, load_registry
from sessions import (
    LEVELS,
    OPTIONS,
    SECONDS,
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
from support import Conn, Json, manifest, nothing_written, one, provider, rows, runtime


def registry(left: list[str], right: list[str], same: list[str], extra: Json) -> Json:
    """Runtimes left, right and another one, with an arm each, and one list of equivalents."""
    listed = [runtime("left", ("house", left)), runtime("right", ("house", right)), extra]
    return manifest([provider("house")], listed, equivalents=[same])


OLD = registry(
    ["stays", "goes", "lone", "twin-left"],
    ["first", "stays", "twin-old"],
    ["twin-left", "twin-old"],
    runtime("going", ("house", ["stays"])),
)
NEW = registry(
    ["stays", "comes", "lone", "twin-left"],
    ["second", "twin-new"],
    ["twin-left", "twin-new"],
    runtime("coming", ("house", ["other"])),
)
OTHER = OLD | {"runtimes": [*OLD["runtimes"], runtime("another")]}


def load_new(conn: Conn) -> RegistryLoad:
    return load_registry(conn, NEW)


@dataclass(frozen=True, slots=True)
class Case:
    """A call on a workspace whose runtime is left, and what it and a load of NEW are told."""

    model: str
    """The workspace's."""
    call: Callable[[Conn, UUID], Change]
    by_old: Told
    by_new: Told | None
    """None: NEW cannot be loaded before the call."""
    load: str | None = None
    """The code that refuses the load once the call is committed; None: it loads."""

    @property
    def load_alone(self) -> str | None:
        """As `load`, if the call is rolled back."""
        return "REGISTRY_ORPHANS" if self.by_new is None else None


def change(target: str, model: str | None = None) -> Callable[[Conn, UUID], Change]:
    return lambda conn, ws: pyapi.change_runtime(conn, ws, target, model=model)


def choose(model: str) -> Callable[[Conn, UUID], Change]:
    return lambda conn, ws: pyapi.set_model(conn, ws, model)


def create(target: str, model: str | None) -> Callable[[Conn, UUID], Change]:
    return lambda conn, ws: pyapi.create_workspace(conn, "made", target, model=model, id=uuid4())


ORPHANS, IN_USE = "REGISTRY_ORPHANS", "RUNTIME_IN_USE"
NO_MODEL, NO_RUNTIME = "MODEL_NOT_REGISTERED", "RUNTIME_UNSUPPORTED"
LEFT_STAYS = ("left", "stays", "requested")
CASES = {
    "kept-or-default": Case(
        "stays",
        change("right"),
        ("right", "stays", "kept"),
        ("right", "second", "default"),
        ORPHANS,
    ),
    "other-default": Case(
        "lone",
        change("right"),
        ("right", "first", "default"),
        ("right", "second", "default"),
        ORPHANS,
    ),
    "other-equivalent": Case(
        "twin-left",
        change("right"),
        ("right", "twin-old", "equivalent"),
        ("right", "twin-new", "equivalent"),
        ORPHANS,
    ),
    "explicit": Case(
        "stays", change("right", "first"), ("right", "first", "requested"), NO_MODEL, ORPHANS
    ),
    "runtime-goes": Case("stays", change("going"), ("going", "stays", "kept"), NO_RUNTIME, IN_USE),
    "runtime-comes": Case("stays", change("coming"), NO_RUNTIME, ("coming", "other", "default")),
    "nothing-to-do": Case(
        "lone", change("left"), ("left", "lone", "kept"), ("left", "lone", "kept")
    ),
    "keeps-an-orphan": Case("goes", change("left"), ("left", "goes", "kept"), None, ORPHANS),
    "set-goes": Case("stays", choose("goes"), ("left", "goes", "requested"), NO_MODEL, ORPHANS),
    "set-comes": Case("stays", choose("comes"), NO_MODEL, ("left", "comes", "requested")),
    "set-stays": Case("lone", choose("stays"), LEFT_STAYS, LEFT_STAYS),
    "set-saves": Case("goes", choose("stays"), LEFT_STAYS, None),
    "clear": Case("stays", pyapi.clear_model, ("left", None, "none"), ("left", None, "none")),
    "clear-saves": Case("goes", pyapi.clear_model, ("left", None, "none"), None),
    "delete": Case("stays", pyapi.delete_workspace, (None, None, "none"), (None, None, "none")),
    "delete-saves": Case("goes", pyapi.delete_workspace, (None, None, "none"), None),
    "create-goes": Case(
        "stays", create("left", "goes"), ("left", "goes", "requested"), NO_MODEL, ORPHANS
    ),
    "create-comes": Case(
        "stays", create("left", "comes"), NO_MODEL, ("left", "comes", "requested")
    ),
    "create-runtime-goes": Case(
        "stays", create("going", None), ("going", None, "none"), NO_RUNTIME, IN_USE
    ),
}
BEFORE_A_LOAD = [name for name, case in CASES.items() if not isinstance(case.by_old, str)]
AFTER_A_LOAD = [name for name, case in CASES.items() if case.by_new is not None]
ENDINGS = ["commit", "rollback", "before"]


@pytest.fixture(scope="module")
def raced(template: Database) -> Iterator[Database]:
    """One database for all that happens here."""
    with databases.create(template.server, template) as database:
        yield database


@pytest.fixture(scope="module")
def opened(raced: Database) -> Iterator[Sessions]:
    """The same sessions for all tests."""
    with sessions_on(raced) as sessions:
        yield sessions


@pytest.fixture
def sessions(opened: Sessions) -> Iterator[Sessions]:
    """Sessions at READ COMMITTED on a database with the registry OLD and no workspaces."""
    opened.first.isolation_level = opened.second.isolation_level = LEVELS["committed"]
    for (ws,) in opened.observer.execute("select id from workspace.workspaces").fetchall():
        pyapi.delete_workspace(opened.observer, ws)
    load_registry(opened.observer, OLD)
    yield opened
    opened.first.rollback()
    opened.second.rollback()


def workspace(sessions: Sessions, model: str = "stays") -> Change:
    """A new workspace on left."""
    return pyapi.create_workspace(sessions.observer, "raced", "left", model=model)


def check(sessions: Sessions, *answers: Change | None) -> None:
    """Check all workspaces, with the acknowledged answers about them, and the registry."""
    given = [answer for answer in answers if answer is not None]
    for ws in {answer.workspace_id for answer in given}:
        check_history(sessions.observer, ws, [a for a in given if a.workspace_id == ws])
    revisions = "select array_agg(r.revision order by r.revision) from registry.revisions as r"
    last = one(sessions.observer, "select s.revision from registry.state as s")
    assert one(sessions.observer, revisions) == list(range(1, last + 1))
    assert rows(sessions.observer, "fleet.orphans") == []


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", AFTER_A_LOAD)
def test_a_call_decides_by_the_registry_that_an_open_load_leaves(
    sessions: Sessions, name: str, level: str, ending: str
) -> None:
    case, created = CASES[name], workspace(sessions, CASES[name].model)
    sessions.second.isolation_level = LEVELS[level]

    load, call = in_turn(sessions, load_new, on(created.workspace_id, case.call), ending)

    assert load.loaded
    assert tell(call) == (case.by_old if ending == "rollback" else case.by_new)
    # A snapshot from before the load would have decided by the old registry.
    overtaken = level != "committed" and ending != "rollback"
    assert call.tries == (2 if overtaken else 1)
    check(sessions, created, call.answer)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", BEFORE_A_LOAD)
def test_a_load_judges_what_an_open_call_leaves(
    sessions: Sessions, name: str, level: str, ending: str
) -> None:
    case, created = CASES[name], workspace(sessions, CASES[name].model)
    sessions.first.isolation_level = LEVELS[level]
    revision = one(sessions.observer, "select s.revision from registry.state as s")

    answer, load = in_turn(sessions, on(created.workspace_id, case.call), load_new, ending)

    assert tell(answer) == case.by_old
    assert load.code == (case.load_alone if ending == "rollback" else case.load)
    assert load.answer is None or (load.answer.loaded, load.answer.revision) == (True, revision + 1)
    check(sessions, created, answer if ending != "rollback" else None)


@pytest.mark.parametrize("level", LEVELS)
def test_a_dry_run_changes_nothing_for_those_who_waited(sessions: Sessions, level: str) -> None:
    created = workspace(sessions)
    sessions.second.isolation_level = LEVELS[level]

    load, call = in_turn(
        sessions,
        lambda conn: load_registry(conn, NEW, dry_run=True),
        on(created.workspace_id, change("right")),
        "commit",
    )

    assert not load.loaded
    assert (tell(call), call.tries) == (("right", "stays", "kept"), 1)
    check(sessions, created, call.answer)


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_invalid_manifest_is_refused_while_others_still_decide(
    sessions: Sessions, dry_run: bool
) -> None:
    created = workspace(sessions)
    answer = pyapi.change_runtime(sessions.first, created.workspace_id, "right")
    invalid = NEW | {"providers": []}
    load = settle(
        sessions.second, without_waiting(lambda conn: load_registry(conn, invalid, dry_run=dry_run))
    )
    assert load.code == "REGISTRY_INVALID"
    sessions.first.commit()
    check(sessions, created, answer)


@pytest.mark.parametrize("second", [OTHER, NEW], ids=["different", "same"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_two_loads_make_dense_revisions(sessions: Sessions, ending: str, second: Json) -> None:
    mine, other = in_turn(sessions, load_new, lambda conn: load_registry(conn, second), ending)

    assert other.answer is not None
    repeated = second is NEW and ending != "rollback"
    assert other.answer.loaded is not repeated
    another = ending != "rollback" and not repeated
    assert other.answer.revision == mine.revision + (1 if another else 0)
    check(sessions)


def test_a_load_says_what_it_changes_of_what_an_open_load_leaves(sessions: Sessions) -> None:
    def compare(conn: Conn) -> RegistryLoad:
        return load_registry(conn, OTHER, dry_run=True)

    _, at_once = in_turn(sessions, load_new, compare, "commit")
    assert at_once.answer is not None
    assert at_once.answer == settle(sessions.second, compare).answer
    assert at_once.answer.added


def test_the_current_manifest_again_waits_for_nobody(sessions: Sessions) -> None:
    created = workspace(sessions)
    answer = pyapi.change_runtime(sessions.first, created.workspace_id, "right")
    again = settle(sessions.second, without_waiting(lambda conn: load_registry(conn, OLD)))
    assert again.answer is not None
    assert not again.answer.loaded
    sessions.first.commit()
    check(sessions, created, answer)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("level", ["repeatable", "serializable"])
def test_a_load_needs_read_committed(sessions: Sessions, level: str, dry_run: bool) -> None:
    sessions.first.isolation_level = LEVELS[level]
    with nothing_written(sessions.observer):
        load = settle(sessions.first, lambda conn: load_registry(conn, NEW, dry_run=dry_run))
    assert (load.code, load.tries) == ("ISOLATION_UNSUPPORTED", 1)
    sessions.first.isolation_level = IsolationLevel.READ_UNCOMMITTED  # the same in Postgres
    assert settle(sessions.first, load_new).answer is not None


READERS: dict[str, Callable[[Conn, UUID], Any]] = {
    "get_workspace": pyapi.get_workspace,
    "preview": lambda conn, ws: pyapi.preview_runtime_change(conn, ws, "right"),
    "history": pyapi.history,
    "resolve": lambda conn, ws: pyapi.resolve(conn, "left", "comes"),
    "default_model": lambda conn, ws: pyapi.default_model(conn, "right"),
    "menu": lambda conn, ws: pyapi.menu(conn, "left"),
    "list_models": lambda conn, ws: pyapi.list_models(conn, "left"),
    "list_runtimes": lambda conn, ws: pyapi.list_runtimes(conn),
}


@pytest.mark.parametrize("level", LEVELS)
def test_readers_see_the_old_registry_and_do_not_wait_for_an_open_load(
    sessions: Sessions, level: str
) -> None:
    ws = workspace(sessions).workspace_id
    before = {name: read(sessions.observer, ws) for name, read in READERS.items()}
    sessions.second.isolation_level = LEVELS[level]

    load_new(sessions.first)
    for name, read in READERS.items():
        seen = settle(sessions.second, without_waiting(on(ws, read)))
        assert (seen.answer, seen.code) == (before[name], None), name
    sessions.first.commit()

    after = {name: read(sessions.observer, ws) for name, read in READERS.items()}
    same = {name for name in READERS if after[name] == before[name]}
    assert same == {"get_workspace", "history"}


def test_a_dump_in_progress_does_not_hold_up_a_load(sessions: Sessions) -> None:
    sessions.second.isolation_level = LEVELS["serializable"]
    tables = one(
        sessions.second,
        "select string_agg(format('%I.%I', schemaname, tablename), ', ') from pg_tables"
        " where schemaname in ('registry', 'keyring', 'workspace', 'fleet')",
    )
    sessions.second.execute(f"lock table {tables} in access share mode")
    query = "select revision from registry.state"
    revision = one(sessions.second, query)

    load = settle(sessions.first, without_waiting(load_new)).answer

    assert load is not None
    assert load.revision == revision + 1
    assert one(sessions.second, query) == revision


@pytest.mark.parametrize("level", LEVELS)
def test_a_waiting_load_does_not_deadlock_with_the_transaction_it_waits_for(
    raced: Database, sessions: Sessions, level: str
) -> None:
    made = [workspace(sessions), workspace(sessions)]
    one, other = (created.workspace_id for created in made)
    sessions.first.isolation_level = LEVELS[level]
    answers = [pyapi.change_runtime(sessions.first, one, "right")]
    with (
        raced.connect(options=OPTIONS) as loader,
        waiting(sessions, loader, load_new, behind=sessions.first) as load,
        waiting(sessions, sessions.second, on(other, change("going")), behind=loader) as late,
    ):
        # Neither the load nor who queues behind it has anything that the first session needs.
        sessions.first.execute("set local lock_timeout = '1ms'")
        answers.append(pyapi.set_model(sessions.first, other, "goes"))
        sessions.first.commit()

    assert load.result(0).code == "REGISTRY_ORPHANS"
    assert tell(late.result(0)) == ("going", "stays", "default")
    check(sessions, *made, *answers, late.result(0).answer)


@pytest.mark.parametrize(
    ("end", "code"),
    [("pg_cancel_backend", "STATEMENT_TIMEOUT"), ("pg_terminate_backend", "CONNECTION_LOST")],
)
def test_callers_go_on_when_the_load_they_wait_behind_gives_up(
    raced: Database, sessions: Sessions, end: str, code: str
) -> None:
    made = [workspace(sessions), workspace(sessions)]
    change = pyapi.change_runtime(sessions.first, made[0].workspace_id, "right")
    choose_goes = on(made[1].workspace_id, choose("goes"))
    with (
        raced.connect(options=OPTIONS) as loader,
        waiting(sessions, loader, load_new, behind=sessions.first) as load,
        waiting(sessions, sessions.second, choose_goes, behind=loader) as call,
    ):
        sessions.observer.execute(f"select {end}(%s)", [loader.info.backend_pid])
        chosen = call.result(SECONDS)  # the first session is still in its transaction
        sessions.first.commit()

    assert load.result(0).code == code
    assert chosen.code is None
    check(sessions, *made, change, chosen.answer)


def test_a_load_with_a_lock_timeout_gives_up_and_can_come_back(sessions: Sessions) -> None:
    created = workspace(sessions, "lone")
    change = pyapi.change_runtime(sessions.first, created.workspace_id, "right")
    with nothing_written(sessions.observer):
        assert settle(sessions.second, without_waiting(load_new)).code == "LOCK_TIMEOUT"
    sessions.first.rollback()
    chosen = settle(sessions.first, on(created.workspace_id, choose("stays"))).answer
    load = settle(sessions.second, without_waiting(load_new)).answer
    assert load is not None
    assert load.loaded
    assert change.version == 2
    check(sessions, created, chosen)
