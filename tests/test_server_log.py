"""The server's log keeps what errors say, so no error may say what a secret holds."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from databases import Database
from servers import Server
from support import (
    CODES,
    MANIFEST,
    Conn,
    Refusal,
    call,
    create,
    load,
    provider,
    refused,
    runtime,
)

# As much as a server can be asked to say of an error.
TALKATIVE = (
    "-c log_error_verbosity=verbose -c log_min_messages=debug1 -c log_min_error_statement=debug1"
)


def lines_with(text: str, said: list[str]) -> list[str]:
    """The lines that hold a text, as it is or as bytea shows it."""
    shown = (text, text.encode().hex())
    return [line for part in said for line in part.splitlines() if any(t in line for t in shown)]


def test_no_error_puts_a_model_into_the_servers_log(server: Server, database: Database) -> None:
    mark = secrets.token_hex(8)
    stored, earlier, wanted, garbled, listed = (
        f"claude-{kind}-{mark}" for kind in ("stored", "earlier", "wanted", "garbled", "listed")
    )
    conn = database.connect(autocommit=True, options=TALKATIVE)
    ws = create(conn, "claude-code", earlier)
    call(conn, "workspace.set_model", ws, stored, request_id="r-1")
    broken = create(conn, "claude-code", stored)
    conn.execute(
        "update workspace.secrets set sealed = %s where workspace_id = %s",
        [b"\xff" + garbled.encode(), broken],
    )

    refusals = [
        *refused_calls(conn, ws, broken, wanted),
        *refused_loads(conn, listed),
        *refused_keys(conn, ws, listed),
        *refused_tokens(conn),
        *failures(conn, database, ws, wanted),
    ]
    # Every code but the one of a database without a registry, and errors that are not ours.
    assert {refusal.code for refusal in refusals} == {*CODES, ""} - {"REGISTRY_UNAVAILABLE"}
    log = server.log_text()
    said = [log, *(refusal.text for refusal in refusals)]
    assert lines_with(mark, said) == []
    # The log is the one that these refusals went to.
    assert str(ws) in log
    assert "The model is not registered for the runtime hermes." in log
    assert "injected" in log


def refused_calls(conn: Conn, ws: UUID, broken: UUID, wanted: str) -> list[Refusal]:
    calls: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("create_workspace", ["w", "codex", wanted], {}),
        ("create_workspace", ["w", "claude-code", wanted], {"id": ws}),
        ("set_model", [ws, f"gpt {wanted}"], {}),
        ("set_model", [ws, f"{wanted}\n{wanted}"], {}),
        ("set_model", [ws, wanted * 20], {}),
        ("set_model", [ws, wanted], {"expected_version": 9}),
        ("set_model", [ws, wanted], {"request_id": "r-1"}),
        ("set_model", [UUID(int=0), wanted], {}),
        ("clear_model", [ws], {"request_id": "r-1"}),
        ("change_runtime", [ws, "external"], {}),
        ("change_runtime", [ws, "external"], {"restore": True}),
        ("change_runtime", [ws, "hermes", wanted], {}),
        ("change_runtime", [ws, "no-such-runtime", wanted], {}),
        ("change_runtime", [ws, "hermes"], {"request_id": "r-1"}),
        ("change_runtime", [ws, "hermes"], {"expected_version": 9}),
        ("change_runtime", [broken, "hermes"], {}),
        ("preview_runtime_change", [ws, "external"], {}),
        ("preview_runtime_change", [ws, "hermes", wanted], {}),
        ("get_workspace", [broken], {}),
        ("delete_workspace", [ws], {"expected_version": 9}),
        ("rename_workspace", [ws, "w"], {"model": f"gpt {wanted}"}),
        ("rename_workspace", [ws, "w"], {"request_id": "r-1"}),
        ("rename_workspace", [broken, "w"], {}),
    ]
    return [refused(conn, f"workspace.{name}", *args, **named) for name, args, named in calls]


def refused_keys(conn: Conn, ws: UUID, value: str) -> list[Refusal]:
    """What the keyring and secrets besides MODEL refuse; the KEK's own text is in the settings."""
    found = []
    with conn.transaction(force_rollback=True):
        conn.execute("delete from keyring.keys")
        conn.execute("select set_config('runtime_registry.kek', %s, true)", [value])
        found.append(refused(conn, "keyring.rotate"))
        found.append(refused(conn, "keyring.init"))
        kek = (value * 3).encode().hex()[:64]
        conn.execute("select set_config('runtime_registry.kek', %s, true)", [kek])
        key = call(conn, "keyring.init").init
        found.append(refused(conn, "keyring.init"))
        found.append(refused(conn, "keyring.retire", key))
        found.append(refused(conn, "keyring.retire", key + 1))
        call(conn, "workspace.set_secret", ws, "TOKEN", value)
        conn.execute("select set_config('runtime_registry.kek', %s, true)", [value])
        found.append(refused(conn, "workspace.get_secret", ws, "TOKEN"))
        found.append(refused(conn, "workspace.set_secret", ws, "TOKEN", value))
        found.append(refused(conn, "keyring.rewrap"))
        found.append(refused(conn, "keyring.rotate"))
    found.append(refused(conn, "workspace.get_secret", ws, "TOKEN"))
    found.append(refused(conn, "workspace.set_secret", ws, "MODEL", value))
    return found


def refused_tokens(conn: Conn) -> list[Refusal]:
    call(conn, "access.create_token", "t", "admin", b"x" * 32)
    return [
        refused(conn, "access.create_token", "t", "operator", b"y" * 32),
        refused(conn, "access.revoke_token", "u"),
    ]


def refused_loads(conn: Conn, listed: str) -> list[Refusal]:
    nothing = {"schema_version": 1, "providers": [], "runtimes": []}
    manifests = [
        nothing,
        {**nothing, "runtimes": [{"name": entry["name"]} for entry in MANIFEST["runtimes"]]},
        {
            **MANIFEST,
            "providers": [
                provider("p", model_prefixes=["claude-"], model_aliases=[f" {listed}"]),
                provider("q", model_aliases=["x" + listed * 20]),
            ],
            "runtimes": [
                runtime("r", ("p", [f"{listed}\x01"]), ("q", [listed * 20]), default_model=listed)
            ],
            "equivalents": [[listed, listed]],
        },
    ]
    loads = [refused(conn, "fleet.load_registry", Jsonb(manifest)) for manifest in manifests]
    loads.append(refused(conn, "fleet.restore_registry", 99))
    assert load(conn, manifests[1], dry_run=True).orphans
    with conn.transaction():
        conn.execute("set transaction isolation level serializable")
        loads.append(refused(conn, "fleet.load_registry", Jsonb(MANIFEST)))
    return loads


def failures(conn: Conn, database: Database, ws: UUID, wanted: str) -> list[Refusal]:
    """What is not refused by us: a lock, no rights, read-only, and a failure after each write."""
    found = []
    holder = database.connect()
    holder.execute("select from workspace.workspaces for update")
    with conn.transaction():
        conn.execute("set local lock_timeout = '1ms'")
        found.append(refused(conn, "workspace.set_model", ws, wanted))
    holder.close()
    with conn.transaction():
        conn.execute("set transaction read only")
        found.append(refused(conn, "workspace.set_model", ws, wanted))
    stranger = database.connect_as("pg_monitor", autocommit=True, options=TALKATIVE)
    found.append(refused(stranger, "workspace.set_model", ws, wanted))

    conn.execute(
        "create function public.fail() returns trigger language plpgsql"
        " as $$ begin raise exception 'injected'; end $$"
    )
    for table in ("secrets", "workspaces", "changes"):
        for moment in ("before", "after"):
            conn.execute(
                f"create trigger fail {moment} insert or update on workspace.{table}"
                " for each row execute function public.fail()"
            )
            found.append(refused(conn, "workspace.change_runtime", ws, "claude-code", wanted))
            conn.execute(f"drop trigger fail on workspace.{table}")
    return found


def test_a_broken_rule_of_a_table_prints_no_model(server: Server, database: Database) -> None:
    """A row that breaks a constraint is printed by Postgres: no row with a secret can break one."""
    model = f"claude-{secrets.token_hex(8)}"
    conn = database.connect(autocommit=True, options=TALKATIVE)
    ws = create(conn, "claude-code", model)
    # The next version is taken: the change row of the next write collides with it.
    conn.execute(
        "insert into workspace.changes (workspace_id, version, action, changed, model_source,"
        " billing_changed, restore, actor, changed_at, txid)"
        " values (%s, 2, 'test', false, 'none', false, false, 'test', now(), pg_current_xact_id())",
        [ws],
    )
    refusal = refused(conn, "workspace.change_runtime", ws, "hermes")
    assert refusal.sqlstate == "23505"
    log = server.log_text()
    assert "changes_pkey" in log
    assert lines_with(model, [log, refusal.text]) == []
