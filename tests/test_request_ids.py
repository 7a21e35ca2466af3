"""A repeated request_id gets the recorded answer: a caller that lost our answer can ask again."""

from __future__ import annotations

from typing import Any

import pytest

from support import (
    MANIFEST,
    Conn,
    Json,
    call,
    create,
    load,
    make_unreadable,
    manifest,
    nothing_written,
    one,
    pair,
    refused,
    rows,
    runtime,
)

KIMI = "moonshot/kimi-k2.6"
Step = tuple[str, tuple[Any, ...], Json]
REQUESTS: dict[str, Step] = {
    "reset": ("change_runtime", ("google-adk",), {}),
    "kept": ("change_runtime", ("hermes",), {}),
    "requested": ("change_runtime", ("codex", "gpt-5.4"), {}),
    "restored": ("change_runtime", ("hermes",), {"restore": True}),
    "set": ("set_model", ("opus",), {}),
    "cleared": ("clear_model", (), {}),
    "nothing to change": ("change_runtime", ("claude-code",), {}),
    "nothing to set": ("set_model", (KIMI,), {}),
}


def ask(conn: Conn, ws: object, request: Step, **more: object) -> Any:
    function, args, named = request
    return call(conn, f"workspace.{function}", ws, *args, **{**named, **more})


@pytest.mark.parametrize("name", REQUESTS)
def test_a_replay_gets_the_first_answer_and_writes_nothing(conn: Conn, name: str) -> None:
    ws = create(conn, "claude-code", KIMI)
    first = ask(conn, ws, REQUESTS[name], request_id="r-1")
    assert first.version == 2
    assert first.changed == (not name.startswith("nothing"))
    with nothing_written(conn):
        assert ask(conn, ws, REQUESTS[name], request_id="r-1") == first
        assert ask(conn, ws, REQUESTS[name], request_id=" r-1\n") == first


@pytest.mark.parametrize("name", REQUESTS)
def test_a_late_replay_does_not_undo_what_happened_in_between(conn: Conn, name: str) -> None:
    ws = create(conn, "claude-code", KIMI)
    first = ask(conn, ws, REQUESTS[name], request_id="r-1")
    call(conn, "workspace.change_runtime", ws, "codex")
    call(conn, "workspace.clear_model", ws)
    call(conn, "workspace.change_runtime", ws, "openclaw", "groq:x", request_id="r-2")
    with nothing_written(conn):
        assert ask(conn, ws, REQUESTS[name], request_id="r-1") == first
    assert pair(conn, ws)[:2] == ("openclaw", "groq:x")


@pytest.mark.parametrize("name", REQUESTS)
def test_a_replay_may_expect_the_version_of_the_first_try(conn: Conn, name: str) -> None:
    ws = create(conn, "claude-code", KIMI)
    first = ask(conn, ws, REQUESTS[name], request_id="r-1", expected_version=1)
    call(conn, "workspace.change_runtime", ws, "openclaw", "groq:x")
    with nothing_written(conn):
        for expected in (1, None, 77):
            again = ask(conn, ws, REQUESTS[name], request_id="r-1", expected_version=expected)
            assert again == first


def test_a_replay_settles_a_switch_to_a_runtime_that_is_gone_since(conn: Conn) -> None:
    with_passing = {**MANIFEST, "runtimes": [*MANIFEST["runtimes"], runtime("passing")]}
    load(conn, with_passing)
    ws = create(conn, "claude-code")
    first = call(conn, "workspace.change_runtime", ws, "passing", request_id="r-1")
    call(conn, "workspace.change_runtime", ws, "hermes")
    load(conn, MANIFEST)
    with nothing_written(conn):
        assert call(conn, "workspace.change_runtime", ws, "passing", request_id="r-1") == first
    refusal = refused(conn, "workspace.change_runtime", ws, "passing", request_id="r-2")
    assert refusal.code == "RUNTIME_UNSUPPORTED"


def test_nothing_to_do_is_recorded_as_a_version_of_its_own(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    stored = "select sealed, updated_at, ctid::text from workspace.secrets where workspace_id = %s"
    before = conn.execute(stored, [ws]).fetchall()
    answer = call(conn, "workspace.change_runtime", ws, "claude-code", request_id="r-1")
    assert (answer.changed, answer.needs_restart, answer.model_source) == (False, False, "kept")
    assert pair(conn, ws) == ("claude-code", KIMI, 2)
    assert conn.execute(stored, [ws]).fetchall() == before
    entry = rows(conn, "workspace.history", ws)[-1]
    assert (entry.version, entry.changed, entry.request_id) == (2, False, "r-1")


DIFFERENT: list[tuple[str, Step]] = [
    # the request that was recorded, and another one under its request_id
    ("reset", ("change_runtime", ("hermes",), {})),
    ("reset", ("change_runtime", ("google-adk",), {"restore": True})),
    ("reset", ("change_runtime", ("google-adk", "gemini-2.5-pro"), {})),
    ("reset", ("change_runtime", ("google-adk", "platform:gemini-2.5-pro"), {})),
    ("reset", ("set_model", ("platform:gemini-2.5-pro",), {})),
    ("reset", ("clear_model", (), {})),
    ("requested", ("change_runtime", ("codex",), {})),
    ("requested", ("change_runtime", ("codex", "gpt-5.5"), {})),
    ("requested", ("change_runtime", ("codex", "GPT-5.4"), {})),
    ("requested", ("set_model", ("gpt-5.4",), {})),
    ("restored", ("change_runtime", ("hermes",), {})),
    ("set", ("set_model", ("haiku",), {})),
    ("set", ("change_runtime", ("claude-code", "opus"), {})),
    ("cleared", ("set_model", ("opus",), {})),
    ("cleared", ("change_runtime", ("claude-code",), {})),
    ("nothing to change", ("change_runtime", ("claude-code", KIMI), {})),
    ("nothing to set", ("change_runtime", ("claude-code", KIMI), {})),
]


@pytest.mark.parametrize(("name", "other"), DIFFERENT)
def test_a_request_id_is_good_for_one_request(conn: Conn, name: str, other: Step) -> None:
    ws = create(conn, "claude-code", KIMI)
    ask(conn, ws, REQUESTS[name], request_id="r-1")
    function, args, named = other
    with nothing_written(conn):
        refusal = refused(conn, f"workspace.{function}", ws, *args, **named, request_id="r-1")
    assert (refusal.sqlstate, refusal.code) == ("PT422", "REQUEST_ID_REUSED")
    assert refusal.detail == {"code": "REQUEST_ID_REUSED", "workspace_id": str(ws)}


def test_a_request_id_belongs_to_its_workspace(conn: Conn) -> None:
    one_ws, other = create(conn, "claude-code", KIMI), create(conn, "claude-code", "opus")
    ask(conn, one_ws, REQUESTS["reset"], request_id="r-1")
    assert ask(conn, other, REQUESTS["cleared"], request_id="r-1").changed
    assert pair(conn, other) == ("claude-code", None, 2)


def test_request_ids_compare_case_sensitively(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    assert ask(conn, ws, REQUESTS["reset"], request_id="r").changed
    assert ask(conn, ws, REQUESTS["cleared"], request_id="R").changed


def test_a_refused_request_is_not_recorded(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    named = {"request_id": "r-1"}
    for args in (("external",), ("hermes", "nope"), ("no-such-runtime",)):
        assert refused(conn, "workspace.change_runtime", ws, *args, **named).sqlstate == "PT422"
    stale = refused(conn, "workspace.change_runtime", ws, "hermes", expected_version=9, **named)
    assert stale.code == "VERSION_CONFLICT"
    assert call(conn, "workspace.change_runtime", ws, "codex", **named).version == 2


def test_a_replay_of_a_deleted_workspace_finds_none(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    ask(conn, ws, REQUESTS["set"], request_id="r-1")
    call(conn, "workspace.delete_workspace", ws)
    with nothing_written(conn):
        refusal = refused(conn, "workspace.set_model", ws, "opus", request_id="r-1")
    assert refusal.code == "WORKSPACE_NOT_FOUND"


def test_a_replay_is_answered_though_the_model_is_no_longer_registered(conn: Conn) -> None:
    ws = create(conn, "codex", "gpt-5.5")
    first = ask(conn, ws, ("set_model", ("gpt-5.4",), {}), request_id="r-1")
    call(conn, "workspace.clear_model", ws)
    load(conn, manifest([], [{"name": "codex"}]))
    with nothing_written(conn):
        assert ask(conn, ws, ("set_model", ("gpt-5.4",), {}), request_id="r-1") == first


def test_a_replay_needs_no_readable_model(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    make_unreadable(conn, ws)
    request: Step = ("set_model", ("opus",), {})
    first = ask(conn, ws, request, request_id="r-1")
    assert first.previous_model is None
    make_unreadable(conn, ws)
    with nothing_written(conn):
        assert ask(conn, ws, request, request_id="r-1") == first


def test_a_replay_whose_recorded_model_cannot_be_read_is_not_called_another_request(
    conn: Conn,
) -> None:
    ws = create(conn, "claude-code", KIMI)
    ask(conn, ws, REQUESTS["set"], request_id="r-1")
    conn.execute("update workspace.changes set key_id = 9 where request_id = 'r-1'")
    with nothing_written(conn):
        refusal = refused(conn, "workspace.set_model", ws, "opus", request_id="r-1")
    assert (refusal.sqlstate, refusal.code) == ("PT500", "SECRET_UNREADABLE")


def test_without_a_request_id_the_same_call_is_a_new_one(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    ask(conn, ws, REQUESTS["reset"])
    call(conn, "workspace.change_runtime", ws, "claude-code")
    assert ask(conn, ws, REQUESTS["reset"]).changed
    assert one(conn, "select count(*) from workspace.changes where workspace_id = %s", ws) == 4
