"""The life of a workspace: what each function answers, writes and leaves alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from databases import Database
from support import (
    Conn,
    Json,
    acting_as,
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

KIMI = "moonshot/kimi-k2.6"
RESET = "platform:gemini-2.5-pro"
NOBODY = UUID(int=0)


def change(**given: Any) -> Json:
    """All fields of a workspace.change; what is not given is as after a call with nothing to do."""
    return {
        "changed": False,
        "previous_runtime": None,
        "runtime": None,
        "previous_model": None,
        "model": None,
        "model_source": "none",
        "model_was_reset": False,
        "provider": None,
        "billed_to": None,
        "billing_changed": False,
        "needs_restart": False,
        "model_deprecated": False,
        "model_sunset_at": None,
        **given,
    }


def count(conn: Conn, table: str, ws: UUID) -> int:
    column = "id" if table == "workspaces" else "workspace_id"
    found: int = one(conn, f"select count(*) from workspace.{table} where {column} = %s", ws)
    return found


# create_workspace, get_workspace


def test_create_answers_what_it_stored(conn: Conn) -> None:
    ws = uuid4()
    made = call(conn, "workspace.create_workspace", "demo", "claude-code", KIMI, ws)
    assert made._asdict() == change(
        workspace_id=ws,
        version=1,
        changed=True,
        runtime="claude-code",
        model=KIMI,
        model_source="requested",
        provider="platform",
        billed_to="platform",
    )
    state = call(conn, "workspace.get_workspace", ws)
    times = {"created_at": state.created_at, "updated_at": state.updated_at}
    assert state._asdict() == {
        "workspace_id": ws,
        "name": "demo",
        "runtime": "claude-code",
        "model": KIMI,
        "model_registered": True,
        "provider": "platform",
        "billed_to": "platform",
        "version": 1,
        **times,
        "model_deprecated": False,
        "model_sunset_at": None,
    }
    assert isinstance(state.created_at, datetime)
    assert state.created_at == state.updated_at


def test_create_without_a_model_stores_none(conn: Conn) -> None:
    made = call(conn, "workspace.create_workspace", "demo", "external")
    assert made._asdict() == change(
        workspace_id=made.workspace_id, version=1, changed=True, runtime="external"
    )
    assert count(conn, "secrets", made.workspace_id) == 0
    state = call(conn, "workspace.get_workspace", made.workspace_id)
    assert (state.model, state.model_registered, state.provider, state.billed_to) == (None,) * 4


def test_each_workspace_gets_an_id_of_its_own_and_names_may_repeat(conn: Conn) -> None:
    assert len({create(conn, "codex", name="same") for _ in range(20)}) == 20


def test_create_trims_name_runtime_and_model(conn: Conn) -> None:
    ws = call(
        conn, "workspace.create_workspace", "\u3000a name\n", " codex\t", "\u00a0gpt-5.5 "
    ).workspace_id
    state = call(conn, "workspace.get_workspace", ws)
    assert (state.name, state.runtime, state.model) == ("a name", "codex", "gpt-5.5")


@pytest.mark.parametrize("deleted", [False, True])
def test_an_id_is_never_given_twice(conn: Conn, deleted: bool) -> None:
    ws = create(conn, "codex")
    if deleted:
        call(conn, "workspace.delete_workspace", ws)
    with nothing_written(conn):
        refusal = refused(conn, "workspace.create_workspace", "w", "claude-code", "sonnet", id=ws)
    assert (refusal.sqlstate, refusal.code) == ("PT409", "WORKSPACE_EXISTS")
    assert refusal.detail == {"code": "WORKSPACE_EXISTS", "workspace_id": str(ws)}


def test_create_is_strict_on_the_pair(conn: Conn) -> None:
    with nothing_written(conn):
        refusal = refused(conn, "workspace.create_workspace", "w", "hermes", "sonnet")
    assert (refusal.sqlstate, refusal.code) == ("PT422", "MODEL_NOT_REGISTERED")
    assert refusal.detail == {
        "code": "MODEL_NOT_REGISTERED",
        "runtime": "hermes",
        "valid_models": ["kimi-coding/kimi-k2", KIMI, "moonshot/kimi-k2.5"],
        "valid_models_total": 3,
    }


# set_model, clear_model, delete_workspace


def test_set_model_stores_the_model_that_was_asked_for(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    answer = call(conn, "workspace.set_model", ws, " claude-made-up-9\n")
    assert answer._asdict() == change(
        workspace_id=ws,
        version=2,
        changed=True,
        previous_runtime="claude-code",
        runtime="claude-code",
        previous_model=KIMI,
        model="claude-made-up-9",
        model_source="requested",
        provider="anthropic-api",
        billed_to="tenant",
        billing_changed=True,
        needs_restart=True,
    )
    assert pair(conn, ws) == ("claude-code", "claude-made-up-9", 2)


@pytest.mark.parametrize("current", [None, KIMI])
def test_set_model_refuses_what_the_runtime_cannot_run(conn: Conn, current: str | None) -> None:
    ws = create(conn, "hermes", current)
    with nothing_written(conn):
        refusal = refused(conn, "workspace.set_model", ws, RESET)
    assert (refusal.sqlstate, refusal.code) == ("PT422", "MODEL_NOT_REGISTERED")
    assert refusal.detail["runtime"] == "hermes"
    assert refusal.detail["valid_models"] == [
        row[0] for row in rows(conn, "registry.menu", "hermes")
    ]


def test_clear_model_removes_the_secret(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    answer = call(conn, "workspace.clear_model", ws)
    assert answer._asdict() == change(
        workspace_id=ws,
        version=2,
        changed=True,
        previous_runtime="claude-code",
        runtime="claude-code",
        previous_model=KIMI,
        needs_restart=True,
    )
    assert count(conn, "secrets", ws) == 0
    assert pair(conn, ws) == ("claude-code", None, 2)


def test_delete_removes_workspace_and_secrets_and_keeps_the_history(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    conn.execute("insert into workspace.secrets values (%s, 'OTHER', 'x', null, now())", [ws])
    answer = call(conn, "workspace.delete_workspace", ws)
    assert answer._asdict() == change(
        workspace_id=ws,
        version=2,
        changed=True,
        previous_runtime="claude-code",
        previous_model=KIMI,
    )
    assert [count(conn, table, ws) for table in ("workspaces", "secrets", "changes")] == [0, 0, 2]
    for function, *args in EVERY_CALL:
        if function != "history":
            with nothing_written(conn):
                assert (
                    refused(conn, f"workspace.{function}", ws, *args).code == "WORKSPACE_NOT_FOUND"
                )
    history = [
        (entry.action, entry.runtime, entry.model) for entry in rows(conn, "workspace.history", ws)
    ]
    assert history == [("create_workspace", "claude-code", KIMI), ("delete_workspace", None, None)]


EVERY_CALL: list[tuple[Any, ...]] = [
    ("change_runtime", "hermes"),
    ("preview_runtime_change", "hermes"),
    ("set_model", "opus"),
    ("clear_model",),
    ("delete_workspace",),
    ("get_workspace",),
    ("history",),
]


@pytest.mark.parametrize("step", EVERY_CALL, ids=lambda step: step[0])
def test_a_workspace_that_never_was_is_not_found(conn: Conn, step: tuple[Any, ...]) -> None:
    function, *args = step
    with nothing_written(conn):
        refusal = refused(conn, f"workspace.{function}", NOBODY, *args)
    assert (refusal.sqlstate, refusal.code) == ("PT404", "WORKSPACE_NOT_FOUND")
    assert refusal.detail == {"code": "WORKSPACE_NOT_FOUND", "workspace_id": str(NOBODY)}


# Nothing to do.

NO_OPS: list[tuple[tuple[Any, ...], str | None, str]] = [
    # the call, the model stored, and the model_source of the answer
    (("change_runtime", "claude-code"), KIMI, "kept"),
    (("change_runtime", " claude-code "), KIMI, "kept"),
    (("change_runtime", "claude-code"), None, "none"),
    (("change_runtime", "claude-code", KIMI), KIMI, "requested"),
    (("change_runtime", "claude-code", None, True), KIMI, "kept"),
    (("set_model", KIMI), KIMI, "requested"),
    (("set_model", f"\n{KIMI}\n"), KIMI, "requested"),
    (("clear_model",), None, "none"),
]


@pytest.mark.parametrize(("step", "model", "source"), NO_OPS)
def test_nothing_to_do_writes_nothing(
    conn: Conn, step: tuple[Any, ...], model: str | None, source: str
) -> None:
    ws = create(conn, "claude-code", model)
    function, *args = step
    with nothing_written(conn):
        answer = call(conn, f"workspace.{function}", ws, *args)
    payer = "platform" if model else None
    assert answer._asdict() == change(
        workspace_id=ws,
        version=1,
        previous_runtime="claude-code",
        runtime="claude-code",
        previous_model=model,
        model=model,
        model_source=source,
        provider=payer,
        billed_to=payer,
    )


# Versions.

WRITES: list[tuple[Any, ...]] = [
    ("change_runtime", "google-adk"),
    ("change_runtime", "hermes"),
    ("set_model", "opus"),
    ("clear_model",),
    ("rename_workspace", "renamed"),
    ("set_secret", "TOKEN", "t"),
    ("delete_workspace",),
]


@pytest.mark.parametrize("step", WRITES)
def test_a_write_is_refused_at_another_version_and_done_at_the_expected_one(
    conn: Conn, step: tuple[Any, ...]
) -> None:
    ws = create(conn, "claude-code", KIMI)
    call(conn, "workspace.set_model", ws, "sonnet")
    function, *args = step
    for wrong in (1, 3, 0, -1, 2**63 - 1):
        with nothing_written(conn):
            refusal = refused(conn, f"workspace.{function}", ws, *args, expected_version=wrong)
        assert (refusal.sqlstate, refusal.code) == ("PT409", "VERSION_CONFLICT")
        assert refusal.detail == {
            "code": "VERSION_CONFLICT",
            "workspace_id": str(ws),
            "expected_version": wrong,
            "version": 2,
        }
    assert call(conn, f"workspace.{function}", ws, *args, expected_version=2).version == 3


def test_the_version_is_compared_even_if_there_is_nothing_to_do(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    for function, *args in [("change_runtime", "claude-code"), ("set_model", KIMI)]:
        refusal = refused(conn, f"workspace.{function}", ws, *args, expected_version=9)
        assert refusal.code == "VERSION_CONFLICT"


def test_the_version_is_compared_before_the_model_is_judged(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    for function, *args in [("change_runtime", "hermes", "nope"), ("set_model", "nope")]:
        refusal = refused(conn, f"workspace.{function}", ws, *args, expected_version=9)
        assert refusal.code == "VERSION_CONFLICT"


def test_the_version_of_a_preview_buys_what_it_promised(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    preview = call(conn, "workspace.preview_runtime_change", ws, "google-adk")
    assert (preview.version, preview.model, preview.model_was_reset) == (1, RESET, True)
    done = call(
        conn, "workspace.change_runtime", ws, "google-adk", expected_version=preview.version
    )
    assert done == preview._replace(version=2)
    refusal = refused(
        conn, "workspace.change_runtime", ws, "hermes", expected_version=preview.version
    )
    assert refusal.code == "VERSION_CONFLICT"


# The history.


def test_every_write_adds_one_version_and_one_entry(conn: Conn) -> None:
    conn.execute("set local runtime_registry.actor = 'alice'")
    ws = create(conn, "claude-code", KIMI)
    steps: list[tuple[Any, ...]] = [
        ("change_runtime", "google-adk"),
        ("change_runtime", "google-adk"),  # nothing to do
        ("set_model", "gemini-2.5-pro"),
        ("change_runtime", "claude-code", None, True),
        ("clear_model",),
        ("change_runtime", "hermes"),
        ("change_runtime", "codex", "gpt-5.4"),
        ("delete_workspace",),
    ]
    for function, *args in steps:
        call(conn, f"workspace.{function}", ws, *args)
    history = rows(conn, "workspace.history", ws)
    payer = ("platform", "platform")
    assert [
        (
            entry.action,
            entry.runtime,
            entry.model,
            entry.model_source,
            entry.provider,
            entry.billed_to,
        )
        for entry in history
    ] == [
        ("create_workspace", "claude-code", KIMI, "requested", *payer),
        ("change_runtime", "google-adk", RESET, "default", *payer),
        ("set_model", "google-adk", "gemini-2.5-pro", "requested", "google", "tenant"),
        ("change_runtime", "claude-code", KIMI, "restored", *payer),
        ("clear_model", "claude-code", None, "none", None, None),
        ("change_runtime", "hermes", None, "none", None, None),
        ("change_runtime", "codex", "gpt-5.4", "requested", "openai-subscription", "tenant"),
        ("delete_workspace", None, None, "none", None, None),
    ]
    assert [entry.version for entry in history] == list(range(1, 9))
    after = [(None, None), *((entry.runtime, entry.model) for entry in history)]
    assert [(entry.previous_runtime, entry.previous_model) for entry in history] == after[:-1]
    assert {
        (entry.workspace_id, entry.changed, entry.actor, entry.request_id) for entry in history
    } == {(ws, True, "alice", None)}
    moments = [entry.changed_at for entry in history]
    assert moments == sorted(moments)
    own = "select count(*) from workspace.changes where txid = pg_current_xact_id()"
    assert one(conn, own) == 8


def test_a_workspace_knows_when_it_was_made_and_changed(conn: Conn) -> None:
    ws = create(conn, "claude-code", KIMI)
    made = call(conn, "workspace.get_workspace", ws)
    call(conn, "workspace.change_runtime", ws, "google-adk")
    now = call(conn, "workspace.get_workspace", ws)
    assert now.created_at == made.created_at
    assert now.updated_at > made.updated_at


def test_the_actor_is_the_setting_else_the_session_user(conn: Conn) -> None:
    conn.execute("create role caller in role runtime_registry_operator")
    with acting_as(conn, "caller"):
        ws = create(conn, "codex")
        for actor, model in [("al@example", "gpt-5.5"), ("", "gpt-5.4"), ("é" * 300, "gpt-5.2")]:
            conn.execute("select set_config('runtime_registry.actor', %s, true)", [actor])
            call(conn, "workspace.set_model", ws, model)
        conn.execute("set local runtime_registry.actor = ''")
        conn.execute("set local role runtime_registry_operator")
        call(conn, "workspace.delete_workspace", ws)
        actors = [entry.actor for entry in rows(conn, "workspace.history", ws)]
    assert actors == ["caller", "al@example", "caller", "é" * 255, "caller"]


# Who is billed.

BILLING = manifest(
    [
        provider("plat", billed_to="platform", model_aliases=["both"]),
        provider("own"),
        provider("own2"),
    ],
    [
        runtime("one", ("plat", ["p1", "p2"]), ("own", ["o1"])),
        runtime("two", ("own", ["both", "o2"]), ("plat", ["p1"])),
        runtime("three", ("own2", ["o1", "both"])),
        {"name": "open", "model_policy": "any"},
    ],
)
PAYERS: list[tuple[str, str | None, str, str | None, str | None, bool]] = [
    # runtime and model before, target and model asked for, who pays then, whether that is new
    ("one", "p1", "one", "p2", "platform", False),
    ("one", "p1", "one", "o1", "tenant", True),
    ("one", "o1", "two", None, "tenant", False),
    ("one", "both", "two", None, "tenant", True),
    ("two", "both", "one", None, "platform", True),
    ("one", "p1", "two", None, "platform", False),
    ("one", "p1", "three", None, "tenant", True),
    ("two", "both", "three", None, "tenant", False),
    ("one", None, "two", None, None, False),
    ("one", None, "two", "o2", "tenant", False),
    # Nobody knows who pays on a federated runtime.
    ("one", "p1", "open", None, None, False),
    ("open", "x", "one", None, "platform", False),
]


@pytest.mark.parametrize(("start", "model", "target", "wanted", "payer", "is_new"), PAYERS)
def test_a_change_says_whether_somebody_else_pays(
    conn: Conn,
    start: str,
    model: str | None,
    target: str,
    wanted: str | None,
    payer: str | None,
    is_new: bool,
) -> None:
    load(conn, BILLING)
    ws = create(conn, start, model)
    answer = call(conn, "workspace.change_runtime", ws, target, wanted)
    assert (answer.billed_to, answer.billing_changed) == (payer, is_new)
    assert call(conn, "workspace.get_workspace", ws).billed_to == payer


# Reading.


def test_reading_works_in_a_read_only_transaction(database: Database) -> None:
    writer = database.connect(autocommit=True)
    ws = create(writer, "claude-code", KIMI)
    reader = database.connect()
    reader.read_only = True
    assert pair(reader, ws) == ("claude-code", KIMI, 1)
    assert call(reader, "workspace.preview_runtime_change", ws, "google-adk").model == RESET
    assert len(rows(reader, "workspace.history", ws)) == 1
    assert call(reader, "registry.resolve", "hermes", KIMI)[0] == "platform"
    assert len(rows(reader, "registry.list_models", "hermes")) == 3
    refusal = refused(reader, "workspace.set_model", ws, "sonnet")
    assert refusal.sqlstate == "25006"


def test_a_preview_takes_no_lock_that_a_writer_could_feel(database: Database) -> None:
    writer, reader = database.connect(autocommit=True), database.connect()
    ws = create(writer, "claude-code", KIMI)
    call(reader, "workspace.preview_runtime_change", ws, "google-adk")
    call(reader, "workspace.get_workspace", ws)
    held = reader.execute(
        "select relation::regclass::text, mode from pg_locks where pid = pg_backend_pid()"
        " and relation >= 16384 and mode <> 'AccessShareLock'"
    ).fetchall()
    assert held == []
    writer.execute("set lock_timeout = '2s'")
    assert call(writer, "workspace.change_runtime", ws, "google-adk").version == 2
    assert load(writer, manifest([], [runtime("google-adk")]), dry_run=True).orphans != []
