"""Changing keys while others seal, two sessions, every interleaving forced by locks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import psycopg
import pytest

from databases import Database, in_thread, wait_until_blocked
from keyrings import (
    KEK,
    NEW_KEK,
    init,
    key_ids,
    options,
    reseal,
    retire,
    rewrap,
    rotate,
    sealing_sessions,
    status,
)
from pyapi.errors import RegistryError
from sessions import (
    LEVELS,
    Sessions,
    commit,
    in_turn,
    on,
    settle,
    waiting,
    without_waiting,
)
from support import Conn, call, create, pair, rows

KIMI = "moonshot/kimi-k2.6"


@pytest.fixture
def sessions(database: Database) -> Iterator[Sessions]:
    """Sessions with both KEKs, and a keyring with one key."""
    with sealing_sessions(database, KEK, NEW_KEK) as sessions:
        init(sessions.observer)
        yield sessions


@pytest.fixture
def ws(sessions: Sessions) -> UUID:
    """A workspace with a model and a token."""
    ws = create(sessions.observer, "claude-code", KIMI)
    call(sessions.observer, "workspace.set_secret", ws, "TOKEN", "t")
    return ws


def action(function: str, *args: object, **named: object) -> Callable[[Conn, UUID], object]:
    """The action of a call whose first argument is the workspace."""
    return lambda conn, ws: call(conn, f"workspace.{function}", ws, *args, **named)


SEALING: dict[str, Callable[[Conn, UUID], object]] = {
    "create": lambda conn, ws: create(conn, "claude-code", "opus"),
    "keep": action("change_runtime", "hermes"),
    "reset": action("change_runtime", "google-adk"),
    "choose": action("set_model", "opus"),
    "clear": action("clear_model"),
    "rename": action("rename_workspace", "renamed", "google-adk"),
    "set_secret": action("set_secret", "OTHER", "x"),
    "delete_secret": action("delete_secret", "TOKEN"),
    "delete": action("delete_workspace"),
    "reseal": lambda conn, ws: reseal(conn),
}


def retire_first(conn: Conn) -> None:
    retire(conn, 1)


def replace_first(conn: Conn) -> None:
    rotate(conn)
    retire(conn, 1)


CHANGING: dict[str, Callable[[Conn], object]] = {"rotate": rotate, "rewrap": rewrap}


@pytest.mark.parametrize(
    ("changing", "ending"), [("rotate", "commit"), ("rotate", "rollback"), ("rewrap", "commit")]
)
@pytest.mark.parametrize("sealing", SEALING)
def test_who_changes_the_keys_waits_for_who_seals(
    sessions: Sessions, ws: UUID, changing: str, sealing: str, ending: str
) -> None:
    _, changed = in_turn(sessions, on(ws, SEALING[sealing]), CHANGING[changing], ending)
    assert (changed.error, changed.tries) == (None, 1)
    assert status(sessions.observer, verify=True)[0][4] == 0


@pytest.mark.parametrize(
    ("level", "ending"),
    [
        ("committed", "commit"),
        ("committed", "rollback"),
        ("committed", "before"),
        ("repeatable", "before"),
        ("serializable", "commit"),
    ],
)
@pytest.mark.parametrize("sealing", SEALING)
def test_who_seals_waits_for_a_rotation_and_then_takes_the_new_key(
    sessions: Sessions, ws: UUID, sealing: str, level: str, ending: str
) -> None:
    sessions.second.isolation_level = LEVELS[level]
    before = {1} if ending == "rollback" else {1, 2}
    _, sealed = in_turn(sessions, rotate, on(ws, SEALING[sealing]), ending)
    assert sealed.error is None
    # Its snapshot is older than the rotation; it is told so and not let loose on the old key.
    stale = level != "committed" and ending != "rollback"
    assert sealed.tries == (2 if stale else 1)
    assert key_ids(sessions.observer) <= before
    if sealing in ("create", "reset", "choose", "set_secret"):
        assert key_ids(sessions.observer) == before
    if sealing == "reseal" and ending != "rollback":
        assert key_ids(sessions.observer) == {2}
    assert all(unreadable == 0 for *_, unreadable in status(sessions.observer, verify=True))


@pytest.mark.parametrize("changing", CHANGING)
def test_who_only_reads_never_waits_for_a_change_of_keys(
    sessions: Sessions, ws: UUID, changing: str
) -> None:
    reads: list[Callable[[Conn], object]] = [
        on(ws, action("get_workspace")),
        on(ws, action("preview_runtime_change", "google-adk")),
        on(ws, action("get_secret", "TOKEN")),
        lambda conn: rows(conn, "workspace.history", ws),
        lambda conn: rows(conn, "workspace.list_secrets", ws),
        lambda conn: status(conn, verify=True),
    ]
    CHANGING[changing](sessions.first)
    for read in reads:
        assert settle(sessions.second, without_waiting(read)).error is None
    sessions.first.commit()
    for read in reads:
        assert settle(sessions.second, without_waiting(read)).error is None


def test_two_first_keys_are_one(database: Database) -> None:
    with sealing_sessions(database) as sessions:
        first, second = in_turn(sessions, init, init, "commit")
        assert (first, second.code) == (1, "KEYRING_EXISTS")


@pytest.mark.parametrize("level", ["repeatable", "serializable"])
def test_a_first_key_that_cannot_be_made_waits_for_nobody(database: Database, level: str) -> None:
    with sealing_sessions(database) as sessions:
        sessions.first.isolation_level = sessions.second.isolation_level = LEVELS[level]
        create(sessions.first, "claude-code")
        refused = settle(sessions.second, without_waiting(init))
        assert (refused.code, refused.tries) == ("ISOLATION_UNSUPPORTED", 1)


@pytest.mark.parametrize("level", LEVELS)
def test_a_first_key_and_who_seals_wait_for_another_in_the_same_order(
    database: Database, level: str
) -> None:
    with sealing_sessions(database, KEK, NEW_KEK) as sessions:
        ws = create(sessions.observer, "claude-code", "opus")
        sessions.second.isolation_level = LEVELS[level]
        third = database.connect(options=options(KEK))
        rewrap(sessions.first)
        sealed = in_thread(settle, sessions.second, on(ws, action("set_model", "haiku")))
        wait_until_blocked(sessions.observer, sessions.second.info.backend_pid)
        started = in_thread(settle, third, init)
        wait_until_blocked(sessions.observer, third.info.backend_pid)
        sessions.first.commit()
        assert (sealed.result(30).code, sealed.result().tries) == (None, 1)
        assert (started.result(30).answer, started.result().tries) == (1, 1)


def test_two_rotations_make_two_keys(sessions: Sessions) -> None:
    first, second = in_turn(sessions, rotate, rotate, "commit")
    assert (first, second.answer) == (2, 3)


def test_encryption_is_turned_on_between_two_writes(database: Database) -> None:
    with sealing_sessions(database) as sessions:
        ws = create(sessions.observer, "claude-code", "opus")
        plain = action("set_model", "haiku")
        _, started = in_turn(sessions, on(ws, plain), init, "commit")
        assert (started.answer, key_ids(sessions.observer)) == (1, {None})
        _, sealed = in_turn(sessions, reseal, on(ws, action("set_model", "sonnet")), "commit")
        assert sealed.error is None
        assert key_ids(sessions.observer) == {1}


@pytest.mark.parametrize(("ending", "code"), [("commit", "KEY_IN_USE"), ("rollback", None)])
def test_a_key_that_only_an_uncommitted_secret_refers_to_is_not_removed(
    sessions: Sessions, ending: str, code: str | None
) -> None:
    _, replaced = in_turn(
        sessions, lambda conn: create(conn, "claude-code", "opus"), replace_first, ending
    )
    assert replaced.code == code


def test_a_key_is_not_removed_while_its_bytes_are_copied_into_the_history(
    sessions: Sessions, ws: UUID
) -> None:
    rotate(sessions.observer)
    _, removed = in_turn(
        sessions, on(ws, action("change_runtime", "hermes")), retire_first, "commit"
    )
    assert removed.code == "KEY_IN_USE"
    reseal(sessions.observer)
    _, removed = in_turn(
        sessions, on(ws, action("change_runtime", "claude-code")), retire_first, "commit"
    )
    assert (removed.code, key_ids(sessions.observer)) == (None, {2})


# Resealing beside others


def test_reseal_does_not_wait_for_a_workspace_and_comes_back(sessions: Sessions, ws: UUID) -> None:
    other = create(sessions.observer, "claude-code", "opus")
    rotate(sessions.observer)
    call(sessions.first, "workspace.change_runtime", ws, "google-adk")
    done = settle(sessions.second, without_waiting(reseal))
    assert done.answer == (None, 2, 0, 1)
    sessions.first.commit()
    # What was written meanwhile has the new key already.
    assert commit(sessions.second, reseal) == (None, 5, 0, 0)
    assert key_ids(sessions.observer) == {2}
    assert pair(sessions.observer, other)[1] == "opus"
    assert pair(sessions.observer, ws)[0] == "google-adk"


def test_reseal_skips_a_workspace_that_is_being_deleted(sessions: Sessions, ws: UUID) -> None:
    rotate(sessions.observer)
    call(sessions.first, "workspace.delete_workspace", ws)
    assert settle(sessions.second, without_waiting(reseal)).answer == (None, 0, 0, 1)
    sessions.first.commit()
    assert commit(sessions.second, reseal) == (None, 4, 0, 0)
    assert key_ids(sessions.observer) == {2}
    history = rows(sessions.observer, "workspace.history", ws)
    assert [row.model for row in history] == [KIMI, KIMI, None]


def test_who_writes_waits_for_a_reseal_and_loses_nothing(sessions: Sessions, ws: UUID) -> None:
    rotate(sessions.observer)
    _, changed = in_turn(sessions, reseal, on(ws, action("change_runtime", "hermes")), "commit")
    assert changed.error is None
    assert key_ids(sessions.observer) == {2}
    history = rows(sessions.observer, "workspace.history", ws)
    assert [(row.previous_model, row.model) for row in history] == [
        (None, KIMI), (KIMI, KIMI), (KIMI, KIMI),
    ]  # fmt: skip


def test_two_reseals_at_once_do_the_work_once(sessions: Sessions, ws: UUID) -> None:
    gone = create(sessions.observer, "claude-code", "opus")
    call(sessions.observer, "workspace.delete_workspace", gone)
    rotate(sessions.observer)
    first = reseal(sessions.first)
    with waiting(sessions, sessions.second, reseal, behind=sessions.first) as outcome:
        sessions.first.commit()
    assert first == (None, 7, 0, 0)
    second = outcome.result(0)
    assert second.error is None
    assert key_ids(sessions.observer) == {2}
    assert all(unreadable == 0 for *_, unreadable in status(sessions.observer, verify=True))


@pytest.mark.parametrize("killed_after", [0, 2])
def test_a_killed_reseal_goes_on_where_it_was(
    database: Database, sessions: Sessions, killed_after: int
) -> None:
    """It is killed within a batch, in the middle of a workspace, after `killed_after` batches."""
    ids = sorted(uuid4() for _ in range(8))
    for ws in ids:
        call(sessions.observer, "workspace.create_workspace", "w", "claude-code", "opus", ws)
        call(sessions.observer, "workspace.set_secret", ws, "TOKEN", "t")
    last = ids[2 * killed_after + 1]
    # Its history is all there is of it, and nothing but a reseal ever locks that.
    call(sessions.observer, "workspace.delete_workspace", last)
    rotate(sessions.observer)

    def batch(conn: Conn) -> tuple[UUID | None, int, int, int]:
        return reseal(conn, after=after, batch=2)

    after: UUID | None = None
    for _ in range(killed_after):
        after = commit(sessions.second, batch)[0]
    sessions.first.execute(
        "select from workspace.changes where workspace_id = %s for update", [last]
    )
    pid = sessions.second.info.backend_pid
    doomed = in_thread(settle, sessions.second, batch)
    assert wait_until_blocked(sessions.observer, pid) == [sessions.first.info.backend_pid]
    sessions.observer.execute("select pg_terminate_backend(%s, 10000)", [pid])
    error = doomed.result(10).error
    assert isinstance(error, RegistryError)
    sessions.first.rollback()

    # Whole batches are done, and no other workspace is.
    sealed = sessions.observer.execute(
        "select distinct workspace_id, key_id from workspace.secrets order by 1"
    ).fetchall()
    done = ids[: 2 * killed_after]
    assert sealed == [(ws, 2 if ws in done else 1) for ws in ids if ws != last]
    with database.connect(options=options(), autocommit=True) as resumed:
        while after is not None or not done or key_ids(resumed) != {2}:
            done = ids
            after, _, unreadable, skipped = batch(resumed)
            assert (unreadable, skipped) == (0, 0)
        retire(resumed, 1)
        assert status(resumed, verify=True) == [(2, "active", 14, 25, 0)]


# Secrets and models


@pytest.mark.parametrize("ending", ["commit", "rollback", "before"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_credential_lands_while_the_runtime_changes(
    sessions: Sessions, level: str, ending: str
) -> None:
    """The provider that serves the new pair is the one whose credential the workspace has then."""
    ws = create(sessions.observer, "claude-code", "opus")
    sessions.second.isolation_level = LEVELS[level]
    _, changed = in_turn(
        sessions,
        on(ws, action("set_secret", "OPENAI_API_KEY", "sk")),
        on(ws, action("change_runtime", "codex", "gpt-5.5")),
        ending,
    )
    served = "openai-subscription" if ending == "rollback" else "openai-api"
    assert changed.answer.provider == served  # type: ignore[attr-defined]
    assert call(sessions.observer, "workspace.get_workspace", ws).provider == served


@pytest.mark.parametrize("ending", ["commit", "rollback", "before"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_runtime_changes_while_a_credential_lands(
    sessions: Sessions, level: str, ending: str
) -> None:
    ws = create(sessions.observer, "claude-code", "opus")
    sessions.second.isolation_level = LEVELS[level]
    changed, told = in_turn(
        sessions,
        on(ws, action("change_runtime", "codex", "gpt-5.5")),
        on(ws, action("set_secret", "OPENAI_API_KEY", "sk")),
        ending,
    )
    assert changed.provider == "openai-subscription"  # type: ignore[attr-defined]
    answer = told.answer
    pair_now = ("claude-code", "opus") if ending == "rollback" else ("codex", "gpt-5.5")
    assert (answer.runtime, answer.model) == pair_now  # type: ignore[attr-defined]
    assert pair(sessions.observer, ws)[:2] == pair_now
    served = call(sessions.observer, "workspace.get_workspace", ws).provider
    assert answer.provider == served  # type: ignore[attr-defined]
    assert served == ("anthropic-oauth" if ending == "rollback" else "openai-api")


@pytest.mark.parametrize("ending", ["commit", "rollback", "before"])
def test_one_secret_is_written_twice_at_once(sessions: Sessions, ws: UUID, ending: str) -> None:
    first, second = in_turn(
        sessions,
        on(ws, action("set_secret", "TOKEN", "one")),
        on(ws, action("set_secret", "TOKEN", "two")),
        ending,
    )
    assert first.version == 3  # type: ignore[attr-defined]
    assert second.answer.version == (3 if ending == "rollback" else 4)  # type: ignore[attr-defined]
    assert call(sessions.observer, "workspace.get_secret", ws, "TOKEN").get_secret == "two"


def test_a_secret_for_an_expected_version_is_not_written_late(sessions: Sessions, ws: UUID) -> None:
    for late in (
        action("set_secret", "A", "x", expected_version=2),
        action("delete_secret", "TOKEN", expected_version=2),
    ):
        _, told = in_turn(sessions, on(ws, action("set_secret", "A", "y")), on(ws, late), "commit")
        assert told.code == "VERSION_CONFLICT"


def test_a_secret_does_not_come_back_to_a_deleted_workspace(sessions: Sessions, ws: UUID) -> None:
    _, told = in_turn(
        sessions,
        on(ws, action("delete_workspace")),
        on(ws, action("set_secret", "A", "x")),
        "commit",
    )
    assert told.code == "WORKSPACE_NOT_FOUND"
    with pytest.raises(psycopg.Error):
        rows(sessions.second, "workspace.list_secrets", ws)
