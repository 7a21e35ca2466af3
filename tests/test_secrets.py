"""Secrets besides MODEL: names, values, versions, and who serves the model because of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from support import (
    Conn,
    call,
    create,
    load,
    manifest,
    nothing_written,
    one,
    pair,
    provider,
    refused,
    rows,
    runtime,
)

MIB = 1048576
NAMES = ["TOKEN", "token", "a", "A.B-C/d", "models", "MODEL_2", "x" * 255]
VALUES = [
    "x",
    " ",
    "\n",
    "  padded\t",
    "line\nbreak\r\n",
    "\u00a0\u3000\u2028",
    "\x01\x7f\u0085",
    '{"a": "b\\u0000"}',
    "%s {} $1 ' \" \\ ;",
    "😀" * 1000,
    "x" * MIB,
    "€" * (MIB // 3),
]


@pytest.fixture
def ws(conn: Conn) -> UUID:
    """A workspace with a model."""
    return create(conn, "claude-code", "opus")


def put(conn: Conn, ws: UUID, name: str | None, value: str | None, **named: object) -> Any:
    return call(conn, "workspace.set_secret", ws, name, value, **named)


def get(conn: Conn, ws: UUID, name: str) -> str:
    return str(call(conn, "workspace.get_secret", ws, name).get_secret)


def names(conn: Conn, ws: UUID) -> list[str]:
    return [entry.name for entry in rows(conn, "workspace.list_secrets", ws)]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value[:20]))
def test_a_value_is_kept_as_it_is(conn: Conn, ws: UUID, value: str) -> None:
    change = put(conn, ws, "TOKEN", value)
    assert (change.changed, change.version) == (True, 2)
    assert get(conn, ws, "TOKEN") == value
    assert not put(conn, ws, "TOKEN", value).changed


@pytest.mark.parametrize("name", NAMES)
def test_a_name_may_be_any_of_a_variable_or_a_file(conn: Conn, ws: UUID, name: str) -> None:
    put(conn, ws, name, "x")
    assert get(conn, ws, name) == "x"
    assert sorted(names(conn, ws)) == sorted(["MODEL", name])
    assert call(conn, "workspace.delete_secret", ws, name).changed
    assert names(conn, ws) == ["MODEL"]


@pytest.mark.parametrize(
    "name", ["MODEL=x", "A B", "ключ", "\uff2d\uff2f\uff24\uff25\uff2c", "MODEL\u200b"]
)
def test_a_name_that_could_pass_for_another_is_refused(conn: Conn, ws: UUID, name: str) -> None:
    with nothing_written(conn):
        refusal = refused(conn, "workspace.set_secret", ws, name, "x")
    assert (refusal.code, refusal.detail["argument"]) == ("INVALID_ARGUMENT", "name")


def test_names_are_trimmed_and_differ_by_case(conn: Conn, ws: UUID) -> None:
    put(conn, ws, " \u3000TOKEN\n", "x")
    put(conn, ws, "Token", "y")
    assert (get(conn, ws, "TOKEN"), get(conn, ws, "\tToken ")) == ("x", "y")
    assert names(conn, ws) == ["MODEL", "TOKEN", "Token"]
    call(conn, "workspace.delete_secret", ws, " TOKEN ")
    assert names(conn, ws) == ["MODEL", "Token"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is null"),
        ("", "is blank"),
        ("x" * (MIB + 1), "is longer than 1048576 bytes"),
        ("€" * (MIB // 3 + 1), "is longer than 1048576 bytes"),
    ],
    ids=["null", "empty", "long", "long in bytes"],
)
def test_a_value_that_is_none_is_refused(
    conn: Conn, ws: UUID, value: str | None, problem: str
) -> None:
    with nothing_written(conn):
        refusal = refused(conn, "workspace.set_secret", ws, "TOKEN", value)
    assert (refusal.code, refusal.detail["argument"]) == ("INVALID_ARGUMENT", "value")
    assert refusal.detail["problem"] == problem
    assert "xxx" not in refusal.text


@pytest.mark.parametrize("name", ["MODEL", "model", "Model", " MODEL", "mOdEl\n", "\u3000MODEL\t "])
@pytest.mark.parametrize("function", ["set_secret", "get_secret", "delete_secret"])
def test_no_side_door_leads_to_the_model(conn: Conn, ws: UUID, function: str, name: str) -> None:
    value = ["sonnet"] if function == "set_secret" else []
    with nothing_written(conn):
        refusal = refused(conn, f"workspace.{function}", ws, name, *value)
    assert (refusal.code, refusal.detail["argument"]) == ("INVALID_ARGUMENT", "name")
    assert refusal.detail["problem"] == "is MODEL: use set_model, clear_model or get_workspace"


@pytest.mark.parametrize("name", [None, "", " ", "a\x01b", "x" * 256, "a\nb"])
@pytest.mark.parametrize("function", ["set_secret", "get_secret", "delete_secret"])
def test_what_is_no_name_is_refused(conn: Conn, ws: UUID, function: str, name: str | None) -> None:
    value = ["x"] if function == "set_secret" else []
    with nothing_written(conn):
        refusal = refused(conn, f"workspace.{function}", ws, name, *value)
    assert (refusal.code, refusal.detail["argument"]) == ("INVALID_ARGUMENT", "name")


CALLS: list[tuple[str, list[str]]] = [
    ("set_secret", ["TOKEN", "x"]),
    ("get_secret", ["TOKEN"]),
    ("delete_secret", ["TOKEN"]),
    ("list_secrets", []),
]


@pytest.mark.parametrize(("function", "args"), CALLS)
def test_a_workspace_has_to_be_there(conn: Conn, function: str, args: list[str]) -> None:
    gone = create(conn, "claude-code", "opus")
    put(conn, gone, "TOKEN", "x")
    call(conn, "workspace.delete_workspace", gone)
    with nothing_written(conn):
        for ws in (uuid4(), gone):
            refusal = refused(conn, f"workspace.{function}", ws, *args)
            assert refusal.detail == {"code": "WORKSPACE_NOT_FOUND", "workspace_id": str(ws)}
        assert refused(conn, f"workspace.{function}", None, *args).code == "INVALID_ARGUMENT"


def test_what_a_workspace_does_not_have_is_not_found(conn: Conn, ws: UUID) -> None:
    refusal = refused(conn, "workspace.get_secret", ws, "TOKEN")
    assert refusal.detail == {
        "code": "SECRET_NOT_FOUND",
        "workspace_id": str(ws),
        "secret": "TOKEN",
    }
    with nothing_written(conn):
        change = call(conn, "workspace.delete_secret", ws, "TOKEN")
    assert (change.changed, change.needs_restart, change.version) == (False, False, 1)


def test_a_secret_belongs_to_its_workspace(conn: Conn, ws: UUID) -> None:
    other = create(conn, "claude-code", "opus")
    put(conn, ws, "TOKEN", "one")
    put(conn, other, "TOKEN", "two")
    assert (get(conn, ws, "TOKEN"), get(conn, other, "TOKEN")) == ("one", "two")
    call(conn, "workspace.delete_secret", ws, "TOKEN")
    assert get(conn, other, "TOKEN") == "two"


def test_every_write_is_a_version_and_a_line_of_the_history_without_the_value(
    conn: Conn, ws: UUID
) -> None:
    conn.execute("set local runtime_registry.actor = 'somebody'")
    writes: list[Callable[[], Any]] = [
        lambda: put(conn, ws, "TOKEN", "a-value"),
        lambda: put(conn, ws, "TOKEN", "another-value"),
        lambda: call(conn, "workspace.delete_secret", ws, "TOKEN"),
    ]
    for version, write in enumerate(writes, start=2):
        change = write()
        assert (change.changed, change.version) == (True, version)
        assert (change.previous_runtime, change.runtime) == ("claude-code", "claude-code")
        assert (change.previous_model, change.model) == ("opus", "opus")
        assert (change.model_source, change.model_was_reset) == ("kept", False)
        assert change.needs_restart
    assert pair(conn, ws) == ("claude-code", "opus", 4)
    history = rows(conn, "workspace.history", ws)
    assert [(row.action, row.secret) for row in history] == [
        ("create_workspace", None),
        ("set_secret", "TOKEN"),
        ("set_secret", "TOKEN"),
        ("delete_secret", "TOKEN"),
    ]
    assert {(row.previous_model, row.model, row.actor) for row in history[1:]} == {
        ("opus", "opus", "somebody")
    }
    for table in ("changes", "workspaces"):
        everything = one(conn, f"select string_agg(t::text, ' ') from workspace.{table} t")
        for value in ("a-value", "another-value"):
            assert value not in everything
            assert value.encode().hex() not in everything


def test_the_same_value_again_changes_nothing(conn: Conn, ws: UUID) -> None:
    put(conn, ws, "TOKEN", "x")
    with nothing_written(conn):
        change = put(conn, ws, "TOKEN", "x")
    assert (change.changed, change.needs_restart, change.version) == (False, False, 2)


def test_a_secret_can_be_written_for_an_expected_version_only(conn: Conn, ws: UUID) -> None:
    with nothing_written(conn):
        for expected in (0, 2):
            for function, args in (("set_secret", ["TOKEN", "x"]), ("delete_secret", ["TOKEN"])):
                refusal = refused(
                    conn, f"workspace.{function}", ws, *args, expected_version=expected
                )
                assert (refusal.code, refusal.detail["version"]) == ("VERSION_CONFLICT", 1)
    assert put(conn, ws, "TOKEN", "x", expected_version=1).version == 2
    change = call(conn, "workspace.delete_secret", ws, "TOKEN", expected_version=2)
    assert change.version == 3


def test_a_workspace_without_a_model_can_have_secrets(conn: Conn) -> None:
    ws = create(conn, "hermes")
    change = put(conn, ws, "TOKEN", "x")
    assert (change.model, change.model_source, change.provider) == (None, "none", None)
    assert names(conn, ws) == ["TOKEN"]
    assert pair(conn, ws) == ("hermes", None, 2)
    call(conn, "workspace.set_model", ws, "moonshot/kimi-k2.6")
    call(conn, "workspace.clear_model", ws)
    assert names(conn, ws) == ["TOKEN"]


def test_secrets_survive_a_switch_and_go_with_their_workspace(conn: Conn, ws: UUID) -> None:
    put(conn, ws, "TOKEN", "x")
    call(conn, "workspace.change_runtime", ws, "google-adk")
    assert get(conn, ws, "TOKEN") == "x"
    call(conn, "workspace.delete_workspace", ws)
    query = "select count(*) from workspace.secrets where workspace_id = %s"
    assert one(conn, query, ws) == 0


def test_names_are_listed_with_their_times_and_never_a_value(conn: Conn, ws: UUID) -> None:
    put(conn, ws, "B", "x")
    put(conn, ws, "A", "x")
    listed = rows(conn, "workspace.list_secrets", ws)
    assert listed[0]._fields == ("name", "updated_at")
    assert [entry.name for entry in listed] == ["A", "B", "MODEL"]
    assert listed[0].updated_at > listed[1].updated_at > listed[2].updated_at


# Who serves the model

SHARED = manifest(
    [
        provider("ours", billed_to="platform", auth_env=["OURS"]),
        provider("theirs", billed_to="tenant", auth_env=["THEIRS", "THEIRS_TOO"]),
    ],
    [
        runtime("one", ("ours", ["m"]), ("theirs", ["m", "n"])),
        runtime("two", ("theirs", ["m"]), ("ours", ["m"])),
    ],
)


@pytest.fixture
def shared(conn: Conn) -> UUID:
    """A workspace whose model two providers list: who serves it depends on its credentials."""
    load(conn, SHARED)
    return create(conn, "one", "m")


def served(conn: Conn, ws: UUID) -> tuple[str, str]:
    state = call(conn, "workspace.get_workspace", ws)
    return state.provider, state.billed_to


def told(change: Any) -> tuple[str, str, bool]:
    return change.provider, change.billed_to, change.billing_changed


def test_credentials_decide_who_serves_the_model_and_who_pays(conn: Conn, shared: UUID) -> None:
    steps = [
        (("set_secret", "UNRELATED", "x"), ("ours", "platform", False)),
        (("set_secret", "THEIRS_TOO", "x"), ("theirs", "tenant", True)),
        (("set_secret", "THEIRS_TOO", "y"), ("theirs", "tenant", False)),
        (("set_secret", "THEIRS_TOO", "y"), ("theirs", "tenant", False)),
        # Both could: the first arm serves.
        (("set_secret", "OURS", "x"), ("ours", "platform", True)),
        (("delete_secret", "OURS"), ("theirs", "tenant", True)),
        (("delete_secret", "OURS"), ("theirs", "tenant", False)),
        (("delete_secret", "THEIRS_TOO"), ("ours", "platform", True)),
        # A name counts as the provider spells it.
        (("set_secret", "theirs", "x"), ("ours", "platform", False)),
    ]
    for (function, *args), expected in steps:
        assert told(call(conn, f"workspace.{function}", shared, *args)) == expected
        assert served(conn, shared) == expected[:2]
    recorded = [(row.provider, row.billed_to) for row in rows(conn, "workspace.history", shared)]
    assert recorded == [
        ("ours", "platform"), ("ours", "platform"), ("theirs", "tenant"), ("theirs", "tenant"),
        ("ours", "platform"), ("theirs", "tenant"), ("ours", "platform"), ("ours", "platform"),
    ]  # fmt: skip


def test_a_switch_knows_the_credentials(conn: Conn, shared: UUID) -> None:
    preview = call(conn, "workspace.preview_runtime_change", shared, "two")
    assert told(preview) == ("theirs", "tenant", True)
    put(conn, shared, "OURS", "x")
    preview = call(conn, "workspace.preview_runtime_change", shared, "two")
    assert told(preview) == ("ours", "platform", False)
    change = call(conn, "workspace.change_runtime", shared, "two")
    assert (told(change), change.model_source) == (told(preview), "kept")
    assert told(call(conn, "workspace.set_model", shared, "m")) == ("ours", "platform", False)
    assert served(conn, shared) == ("ours", "platform")


def test_credentials_of_another_workspace_do_not_count(conn: Conn, shared: UUID) -> None:
    other = create(conn, "one", "m")
    put(conn, other, "THEIRS", "x")
    assert served(conn, shared) == ("ours", "platform")
    assert served(conn, other) == ("theirs", "tenant")


def test_a_credential_does_not_make_a_model_routable(conn: Conn, shared: UUID) -> None:
    put(conn, shared, "THEIRS", "x")
    with nothing_written(conn):
        refusal = refused(conn, "workspace.change_runtime", shared, "two", "n")
    assert refusal.code == "MODEL_NOT_REGISTERED"
