"""Who may do what: the grants, and what happens to those who have none."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support import MANIFEST, SCHEMAS, Conn, acting_as, call, create, nothing_written, one, rows

READER, OPERATOR, ADMIN = (
    "runtime_registry_reader",
    "runtime_registry_operator",
    "runtime_registry_admin",
)
READING = {
    "registry.resolve", "registry.default_model", "registry.menu", "registry.list_runtimes",
    "registry.list_models", "workspace.get_workspace", "workspace.preview_runtime_change",
    "workspace.history", "workspace.list_secrets", "registry.status", "fleet.list_workspaces",
    "fleet.overview", "fleet.recent_changes", "fleet.orphans",
    "keyring.opens",
}  # fmt: skip
OPERATING = READING | {
    "workspace.create_workspace", "workspace.change_runtime", "workspace.set_model",
    "workspace.clear_model", "workspace.delete_workspace", "workspace.rename_workspace",
    "workspace.set_secret", "workspace.get_secret", "workspace.delete_secret",
    "access.authenticate",
}  # fmt: skip
MAY_CALL: dict[str, set[str]] = {
    "nobody_in_particular": set(),
    READER: READING,
    OPERATOR: OPERATING,
    ADMIN: OPERATING | {
        "fleet.load_registry", "fleet.restore_registry", "fleet.revisions",
        "fleet.revision_manifest", "fleet.deprecations",
        "fleet.reset_orphans", "fleet.move",
        "fleet.changes_after", "fleet.current_cursor",
        "fleet.prune_changes",
        "keyring.init", "keyring.rotate", "keyring.rewrap", "keyring.reseal", "keyring.retire",
        "keyring.status",
        "access.create_token", "access.revoke_token", "access.list_tokens",
    },
}  # fmt: skip
PRIVILEGES = ["select", "insert", "update", "delete", "truncate", "references", "trigger"]
DENIED = "42501"


@pytest.fixture
def with_nobody(conn: Conn) -> Conn:
    """The transaction, with a role in it that was granted nothing."""
    conn.execute("create role nobody_in_particular")
    return conn


def denied(conn: Conn, query: str, *params: object) -> bool:
    try:
        with conn.transaction():
            conn.execute(query, params)
    except psycopg.Error as error:
        return error.sqlstate == DENIED
    return False


@pytest.mark.parametrize("role", MAY_CALL)
def test_the_roles_may_call_exactly_this(with_nobody: Conn, role: str) -> None:
    granted = with_nobody.execute(
        "select p.oid::regproc::text, has_schema_privilege(%(role)s, p.pronamespace, 'usage')"
        " from pg_proc p where p.pronamespace::regnamespace::text = any(%(schemas)s)"
        " and has_function_privilege(%(role)s, p.oid, 'execute')",
        {"schemas": SCHEMAS, "role": role},
    ).fetchall()
    assert set(granted) == {(name, True) for name in MAY_CALL[role]}


@pytest.mark.parametrize("role", MAY_CALL)
def test_every_function_that_is_not_granted_is_denied(with_nobody: Conn, role: str) -> None:
    functions = with_nobody.execute(
        "select p.oid::regproc::text,"
        " array(select format('null::%%s', t::regtype) from unnest(p.proargtypes::oid[]) t)"
        " from pg_proc p where p.pronamespace::regnamespace::text = any(%s)",
        [SCHEMAS],
    ).fetchall()
    assert len(functions) > 40
    with nothing_written(with_nobody), acting_as(with_nobody, role):
        for name, arguments in functions:
            got = denied(with_nobody, f"select * from {name}({', '.join(arguments)})")
            assert got == (name not in MAY_CALL[role]), name


def test_the_roles_can_do_their_work(conn: Conn) -> None:
    ws = create(conn, "claude-code", "sonnet")
    with acting_as(conn, READER):
        assert call(conn, "workspace.get_workspace", ws).model == "sonnet"
        assert call(conn, "workspace.preview_runtime_change", ws, "hermes").model_was_reset
        assert len(rows(conn, "workspace.history", ws)) == 1
        assert call(conn, "registry.resolve", "codex", "gpt-5.5")[0] == "openai-subscription"
        assert len(rows(conn, "registry.list_models", "codex")) == 8
    for role in (OPERATOR, ADMIN):
        with acting_as(conn, role):
            made = create(conn, "claude-code", "sonnet")
            assert call(conn, "workspace.change_runtime", made, "hermes").changed
            assert call(conn, "workspace.set_model", made, "moonshot/kimi-k2.5").changed
            assert call(conn, "workspace.clear_model", made).changed
            assert call(conn, "workspace.delete_workspace", made).changed
    with acting_as(conn, ADMIN):
        extended = {**MANIFEST, "runtimes": [*MANIFEST["runtimes"], {"name": "new"}]}
        assert call(conn, "fleet.load_registry", Jsonb(extended)).loaded


@pytest.mark.parametrize("role", MAY_CALL)
def test_no_role_has_any_right_on_a_table(with_nobody: Conn, role: str) -> None:
    relations = with_nobody.execute(
        "select c.oid::regclass::text, c.relkind from pg_class c"
        " where c.relnamespace::regnamespace::text = any(%s) and c.relkind not in ('i', 'c')",
        [SCHEMAS],
    ).fetchall()
    sequences = [relation for relation, kind in relations if kind == "S"]
    for sequence in sequences:
        query = "select has_sequence_privilege(%s, %s, 'usage,select,update')"
        assert one(with_nobody, query, role, sequence) is False, sequence
    relations = [entry for entry in relations if entry[0] not in sequences]
    assert len(relations) >= 11
    for relation, kind in relations:
        assert kind == "r", f"{relation} is of a kind this test does not know"
        held = with_nobody.execute(
            "select has_table_privilege(%s, %s, %s) or has_any_column_privilege(%s, %s, %s)",
            [
                role,
                relation,
                ",".join(PRIVILEGES),
                role,
                relation,
                "select,insert,update,references",
            ],
        ).fetchone()
        assert held == (False,), relation
    with acting_as(with_nobody, role):
        for relation, _ in relations:
            assert denied(with_nobody, f"select from {relation}"), relation
            assert denied(with_nobody, f"delete from {relation}"), relation
            assert denied(with_nobody, f"lock table {relation} in access share mode"), relation


ANSWERS = {
    "workspace.change", "workspace.state", "workspace.history_entry", "registry.runtime_entry",
    "registry.model_entry", "fleet.registry_load", "workspace.secret_entry",
    "keyring.reseal_progress", "keyring.status_entry", "fleet.revision", "fleet.deprecation",
    "fleet.orphan", "fleet.move_entry", "fleet.feed_entry", "fleet.pruning",
    "registry.installation", "fleet.workspace_entry", "access.token", "access.caller",
    "fleet.overview_entry",
}  # fmt: skip


@pytest.mark.parametrize("role", MAY_CALL)
def test_no_role_can_make_a_table_depend_on_our_tables_and_internal_types(
    with_nobody: Conn, role: str
) -> None:
    types = with_nobody.execute(
        "select t.oid::regtype::text from pg_type t"
        " where t.typnamespace::regnamespace::text = any(%s) and t.typcategory <> 'A'",
        [SCHEMAS],
    ).fetchall()
    internal = {name for (name,) in types} - ANSWERS
    assert len(types) - len(internal) == len(ANSWERS)
    with_nobody.execute(f"create schema mine authorization {role}".encode())
    with acting_as(with_nobody, role):
        with_nobody.execute("create table mine.table_of_its_own (x text)")
        for name in sorted(internal):
            for kind in (name, f"{name}[]"):
                assert denied(with_nobody, f"create table mine.other (x {kind})"), kind


def test_a_reader_can_keep_an_answer_in_a_table(conn: Conn) -> None:
    ws = create(conn, "claude-code", "sonnet")
    with acting_as(conn, READER):
        for function in (
            f"workspace.get_workspace('{ws}')",
            f"workspace.preview_runtime_change('{ws}', 'hermes')",
            f"workspace.history('{ws}')",
            "registry.list_runtimes()",
            "registry.list_models('codex')",
        ):
            conn.execute(f"create temp table kept as select * from {function}".encode())
            assert one(conn, "select count(*) from kept") > 0
            conn.execute("drop table kept")


@pytest.mark.parametrize("role", MAY_CALL)
def test_no_role_may_create_anything_in_our_schemas(with_nobody: Conn, role: str) -> None:
    with acting_as(with_nobody, role):
        for schema in SCHEMAS:
            assert denied(with_nobody, f"create table {schema}.mine (x int)"), schema
            made = f"create function {schema}.mine() returns int language sql as 'select 1'"
            assert denied(with_nobody, made), schema


def test_a_role_without_rights_sees_none_of_the_schemas(with_nobody: Conn) -> None:
    with acting_as(with_nobody, "nobody_in_particular"):
        for schema in SCHEMAS:
            assert denied(with_nobody, f"select {schema}.anything()"), schema


def test_public_was_granted_nothing(conn: Conn) -> None:
    public = conn.execute(
        """
        select 'schema', n.nspname::text
        from pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
        where n.nspname = any(%(schemas)s) and a.grantee = 0
        union all
        select 'function', p.oid::regprocedure::text
        from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where p.pronamespace::regnamespace::text = any(%(schemas)s) and a.grantee = 0
        union all
        select 'table', c.oid::regclass::text
        from pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
        where c.relnamespace::regnamespace::text = any(%(schemas)s)
          and c.relkind <> 'c' and a.grantee = 0
        """,
        {"schemas": SCHEMAS},
    ).fetchall()
    assert public == []


def test_no_right_can_be_passed_on(conn: Conn) -> None:
    grantable = conn.execute(
        "select p.oid::regprocedure::text from pg_proc p, aclexplode(p.proacl) a"
        " where p.pronamespace::regnamespace::text = any(%s) and a.is_grantable"
        " and a.grantee <> p.proowner",
        [SCHEMAS],
    ).fetchall()
    assert grantable == []


def test_the_roles_cannot_log_in_and_have_no_special_powers(conn: Conn) -> None:
    found = conn.execute(
        "select rolcanlogin or rolsuper or rolcreatedb or rolcreaterole or rolreplication"
        " or rolbypassrls"
        " from pg_roles where rolname = any(%s)",
        [[READER, OPERATOR, ADMIN]],
    ).fetchall()
    assert found == [(False,)] * 3
