"""rename_workspace, alone and with a switch in the same change; creating with a request id."""

from __future__ import annotations

from typing import Any
from uuid import RFC_4122

import pytest

from databases import Database, in_thread, wait_until_blocked
from pyapi import (
    Change,
    create_workspace,
    delete_workspace,
    get_workspace,
    history,
    list_workspaces,
    load_registry,
    rename_workspace,
    set_model,
    status,
)
from pyapi.errors import (
    InvalidArgument,
    ModelNotRegistered,
    RegistryError,
    RequestIdReused,
    SecretUnreadable,
    VersionConflict,
    WorkspaceExists,
    WorkspaceNotFound,
)
from sessions import settle, tell
from support import MANIFEST, Conn, create, make_unreadable, nothing_written, one

KIMI = "moonshot/kimi-k2.6"
GEMINI = "platform:gemini-2.5-pro"


def test_a_rename_is_one_recorded_change_and_leaves_the_pair_alone(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI, name="old")
    sealed = one(conn, "select sealed from workspace.secrets")
    change = rename_workspace(conn, ws, " new ")
    assert (change.version, change.changed, change.needs_restart) == (2, True, False)
    assert tell(change) == ("claude-code", KIMI, "kept")
    assert (change.provider, change.billed_to) == ("platform", "platform")
    assert change.billing_changed is False
    assert get_workspace(conn, ws).name == "new"
    assert one(conn, "select sealed from workspace.secrets") == sealed
    last = history(conn, ws)[-1]
    assert (last.action, last.name) == ("rename_workspace", "new")
    assert (last.runtime, last.model) == ("claude-code", KIMI)
    assert [entry.name for entry in history(conn, ws)] == ["old", "new"]


def test_the_same_name_again_writes_nothing(conn: Conn) -> None:
    ws = create(conn, "hermes", name="same")
    with nothing_written(conn):
        change = rename_workspace(conn, ws, "same")
    assert (change.changed, change.version, change.model_source) == (False, 1, "none")


@pytest.mark.parametrize(
    ("asked", "told", "restart"),
    [
        ({"runtime": "google-adk"}, ("google-adk", GEMINI, "default"), True),
        ({"runtime": "hermes"}, ("hermes", KIMI, "kept"), True),
        ({"runtime": "claude-code"}, ("claude-code", KIMI, "kept"), False),
        ({"runtime": "codex", "model": "gpt-5.4"}, ("codex", "gpt-5.4", "requested"), True),
        ({"model": "opus"}, ("claude-code", "opus", "requested"), True),
        ({"model": KIMI}, ("claude-code", KIMI, "requested"), False),
    ],
    ids=str,
)
def test_with_a_switch_it_is_still_one_change(
    conn: Conn, asked: dict[str, Any], told: tuple[str, ...], restart: bool
) -> None:
    ws = create(conn, "claude-code", KIMI)
    change = rename_workspace(conn, ws, "new", **asked)
    assert tell(change) == told
    assert (change.version, change.changed, change.needs_restart) == (2, True, restart)
    now = get_workspace(conn, ws)
    assert (now.name, now.runtime, now.model) == ("new", *told[:2])


def test_restore_comes_along(conn: Conn) -> None:
    ws = create(conn, "claude-code", "opus")
    rename_workspace(conn, ws, "b", runtime="google-adk")
    back = rename_workspace(conn, ws, "c", runtime="claude-code", restore=True)
    assert tell(back) == ("claude-code", "opus", "restored")
    with pytest.raises(InvalidArgument) as caught:
        rename_workspace(conn, ws, "d", restore=True)
    assert caught.value.argument == "restore"


def test_all_or_nothing(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI, name="old")
    refusals: list[tuple[type[RegistryError], dict[str, Any]]] = [
        (ModelNotRegistered, {"runtime": "hermes", "model": "opus"}),
        (ModelNotRegistered, {"model": "gpt-5.4"}),
        (RegistryError, {"runtime": "external"}),
        (RegistryError, {"runtime": "nowhere"}),
        (VersionConflict, {"expected_version": 2}),
    ]
    with nothing_written(conn):
        for kind, asked in refusals:
            with pytest.raises(kind), conn.transaction():
                rename_workspace(conn, ws, "new", **asked)


def test_a_pair_that_the_registry_has_no_more_can_be_renamed_and_an_unreadable_one_says_so(
    conn: Conn,
) -> None:
    ws = create(conn, "claude-code", KIMI)
    conn.execute("delete from registry.models")
    conn.execute("delete from registry.claims")
    assert tell(rename_workspace(conn, ws, "new")) == ("claude-code", KIMI, "kept")
    load_registry(conn, {**MANIFEST, "equivalents": []})
    make_unreadable(conn, ws)
    with pytest.raises(SecretUnreadable), conn.transaction():
        rename_workspace(conn, ws, "newer")
    assert rename_workspace(conn, ws, "newer", model="opus").model == "opus"


def test_a_replay_gets_the_recorded_answer_and_another_request_is_refused(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    first = rename_workspace(conn, ws, "new", runtime="google-adk", request_id="r")
    set_model(conn, ws, "gemini-2.5-pro")
    with nothing_written(conn):
        again = rename_workspace(
            conn, ws, "new", runtime="google-adk", request_id="r", expected_version=1
        )
        assert again == first
        others: list[dict[str, Any]] = [
            {"name": "newer", "runtime": "google-adk"},
            {"name": "new"},
            {"name": "new", "runtime": "hermes"},
            {"name": "new", "runtime": "google-adk", "model": GEMINI},
            {"name": "new", "runtime": "google-adk", "restore": True},
        ]
        for other in others:
            with pytest.raises(RequestIdReused), conn.transaction():
                rename_workspace(conn, ws, **other, request_id="r")
        with pytest.raises(RequestIdReused), conn.transaction():
            set_model(conn, ws, GEMINI, request_id="r")


# Creating with a request id


def test_creating_again_with_the_same_request_id_creates_nothing(conn: Conn) -> None:
    first = create_workspace(conn, "w", "claude-code", model=KIMI, request_id="r")
    with nothing_written(conn):
        again = create_workspace(conn, "w", "claude-code", model=KIMI, request_id="r")
        assert again == first
        others: list[dict[str, Any]] = [
            {"name": "v", "runtime": "claude-code", "model": KIMI},
            {"name": "w", "runtime": "hermes", "model": KIMI},
            {"name": "w", "runtime": "claude-code", "model": "opus"},
            {"name": "w", "runtime": "claude-code"},
        ]
        for other in others:
            with pytest.raises(RequestIdReused), conn.transaction():
                create_workspace(conn, **other, request_id="r")
        with pytest.raises(WorkspaceExists), conn.transaction():
            create_workspace(conn, "w", "claude-code", id=first.workspace_id)
    delete_workspace(conn, first.workspace_id)
    assert create_workspace(conn, "w", "claude-code", model=KIMI, request_id="r") == first
    with pytest.raises(WorkspaceNotFound):
        get_workspace(conn, first.workspace_id)


def test_a_request_id_is_its_actors_own(conn: Conn) -> None:
    made = set()
    for actor, request in (("alice", "r"), ("bob", "r"), ("alice", "b r"), ("alice b", "r")):
        conn.execute("select set_config('runtime_registry.actor', %s, true)", [actor])
        made.add(create_workspace(conn, "w", "hermes", request_id=request).workspace_id)
    assert len(made) == 4
    # Strict clients take no others: RFC 9562's own kind of UUID, made as we like.
    assert {(ws.variant, ws.version) for ws in made} == {(RFC_4122, 8)}


def test_two_at_once_create_one(database: Database) -> None:
    first, second = database.connect(), database.connect()
    observer = database.connect(autocommit=True)

    def make(conn: Conn) -> Change:
        return create_workspace(conn, "w", "hermes", request_id="r")

    answer = make(first)
    other = in_thread(settle, second, make)
    wait_until_blocked(observer, second.info.backend_pid)
    first.commit()
    assert other.result(30).answer == answer
    assert len(list_workspaces(observer)) == 1


# Lists


def test_workspaces_are_listed_a_page_at_a_time(conn: Conn) -> None:
    made = sorted(create(conn, "hermes", KIMI, name=f"w{number}") for number in range(5))
    found = []
    after = None
    while page := list_workspaces(conn, after=after, max_entries=2):
        found += page
        after = page[-1].workspace_id
    assert [entry.workspace_id for entry in found] == made
    state = get_workspace(conn, made[0])
    assert (found[0].name, found[0].runtime) == (state.name, state.runtime)
    assert found[0].version == state.version
    for size in (0, -1, 1001, None):
        with pytest.raises(InvalidArgument), conn.transaction():
            list_workspaces(conn, max_entries=size)  # type: ignore[arg-type]


def test_the_status_is_what_is_installed_and_loaded(conn: Conn) -> None:
    installed = one(conn, "select version_num from registry.alembic_version")
    assert (status(conn).schema_revision, status(conn).registry_revision) == (installed, 1)
    load_registry(conn, {**MANIFEST, "equivalents": []})
    assert status(conn).registry_revision == 2
