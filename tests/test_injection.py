"""What callers send or own is data to our functions: never SQL, and never run with more rights."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg import sql

from support import MANIFEST, SCHEMAS, Conn, acting_as, call, create, one, rows, savepoint
from test_arguments import FUNCTIONS, HOSTILE, given

OPERATOR = "runtime_registry_operator"
INSTALLED = (
    "select md5(string_agg(o::text, ' ' order by o::text)) from ("
    " select c.oid, c.relname, c.relacl::text from pg_class as c"
    " union all select p.oid, p.proname, p.proacl::text from pg_proc as p"
    " union all select n.oid, n.nspname, n.nspacl::text from pg_namespace as n"
    " union all select r.oid, r.rolname, r.rolsuper::text from pg_roles as r) as o"
)


def text_arguments(conn: Conn) -> list[tuple[str, str]]:
    """The arguments of the functions that are granted which take text, alone or in a list."""
    return conn.execute(
        "select p.oid::regproc::text, a.name"
        " from pg_proc as p, unnest(p.proargnames, p.proargtypes::oid[]) as a (name, type)"
        " where p.pronamespace::regnamespace::text = any(%s) and p.prosecdef"
        " and a.type in ('text'::regtype, 'text[]'::regtype)"
        " order by 1, 2",
        [SCHEMAS],
    ).fetchall()


def test_no_function_makes_sql_of_anything(conn: Conn) -> None:
    bodies = conn.execute(
        "select p.oid::regproc::text, p.prosrc from pg_proc as p"
        " where p.pronamespace::regnamespace::text = any(%s)",
        [SCHEMAS],
    ).fetchall()
    assert len(bodies) > 100
    dynamic = r"\b(execute|query_to_xml|dblink|set_config|currval|setval|lo_\w+|pg_read_\w+)\b"
    for name, body in bodies:
        assert not re.search(dynamic, re.sub(r"--.*|'[^']*'", "", body), re.IGNORECASE), name


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_taken_for_sql(conn: Conn, text: str) -> None:
    """Every text argument of every function: it is refused by name, or taken as it is."""
    ws = create(conn, "claude-code", "sonnet")
    arguments = text_arguments(conn)
    assert len(arguments) > 35
    before = one(conn, INSTALLED)
    for function, argument in arguments:
        named = given(function, ws) if function in FUNCTIONS else {}
        if function == "fleet.load_registry":
            named["manifest"] = psycopg.types.json.Jsonb(MANIFEST)
        elif function == "fleet.restore_registry":
            named["revision"] = 1
        elif function == "fleet.prune_changes":
            named["before"] = "2020-01-01"
        named[argument] = [text] if argument == "auth_env" else text
        sqlstate = "PT"
        try:
            with savepoint(conn):
                rows(conn, function, **named)
        except psycopg.Error as error:
            sqlstate = error.sqlstate or ""
        assert sqlstate.startswith("PT"), (function, argument)
        assert one(conn, INSTALLED) == before, (function, argument)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_looks_like_sql_is_kept_as_it_is(conn: Conn, text: str) -> None:
    ws = create(conn, "claude-code", "sonnet")
    call(conn, "workspace.set_secret", ws, "TOKEN", text)
    assert call(conn, "workspace.get_secret", ws, "TOKEN").get_secret == text
    call(conn, "workspace.rename_workspace", ws, text, request_id=text)
    assert call(conn, "workspace.get_workspace", ws).name == text
    assert rows(conn, "workspace.history", ws)[-1].request_id == text
    call(conn, "access.create_token", text, "admin", b"x" * 32)
    assert call(conn, "access.authenticate", b"x" * 32).name == text
    assert call(conn, "access.revoke_token", text).revoked_at


def test_one_role_that_is_none_of_ours_owns_everything(conn: Conn) -> None:
    owners = conn.execute(
        """
        select pg_get_userbyid(n.nspowner)::text from pg_namespace as n
        where n.nspname = any(%(schemas)s)
        union select pg_get_userbyid(c.relowner) from pg_class as c
        where c.relnamespace::regnamespace::text = any(%(schemas)s)
        union select pg_get_userbyid(p.proowner) from pg_proc as p
        where p.pronamespace::regnamespace::text = any(%(schemas)s)
        union select pg_get_userbyid(t.typowner) from pg_type as t
        where t.typnamespace::regnamespace::text = any(%(schemas)s)
        """,
        {"schemas": SCHEMAS},
    ).fetchall()
    assert owners == [(one(conn, "select current_user"),)]


@pytest.fixture
def evil(conn: Conn) -> Conn:
    """The transaction, with a schema in it that operators may do anything in."""
    conn.execute("create schema evil")
    conn.execute(sql.SQL("grant all on schema evil to {}, public").format(sql.Identifier(OPERATOR)))
    return conn


ARGUMENTS = {
    "by a cast": (
        "create type evil.given as enum ('x');"
        " create function evil.caught(evil.given) returns text language plpgsql"
        " as $$ begin return current_user; end $$;"
        " create cast (evil.given as text) with function evil.caught(evil.given) as implicit",
        "'x'::evil.given",
    ),
    "by a domain": (
        "create function evil.caught(text) returns boolean language plpgsql as"
        " $$ begin return current_user = 'runtime_registry_operator'; end $$;"
        " create domain evil.given as text check (evil.caught(value))",
        "'runtime_registry_operator'::evil.given",
    ),
    "by a function": (
        "create function evil.caught() returns text language plpgsql"
        " as $$ begin return current_user; end $$",
        "evil.caught()",
    ),
}


@pytest.mark.parametrize("way", ARGUMENTS)
def test_what_a_caller_brings_along_runs_with_the_callers_rights(evil: Conn, way: str) -> None:
    made, argument = ARGUMENTS[way]
    ws = create(evil, "claude-code", "sonnet")
    with acting_as(evil, OPERATOR):
        evil.execute(made.encode())
        evil.execute("set local search_path = evil, workspace, pg_catalog")
        for call_ in (
            f"set_secret('{ws}', {argument}, 'v')",
            f"rename_workspace('{ws}', {argument})",
        ):
            evil.execute(f"select workspace.{call_}".encode())
        names = [row.name for row in rows(evil, "workspace.list_secrets", ws)]
        assert names == ["MODEL", OPERATOR]
        assert call(evil, "workspace.get_workspace", ws).name == OPERATOR


def test_a_function_of_the_same_name_that_fits_better_is_not_ours(evil: Conn) -> None:
    """A caller who names the schema gets our function: nobody may add one to it."""
    with acting_as(evil, OPERATOR):
        evil.execute("create type evil.kind as enum ('x')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), evil.transaction():
            evil.execute(
                "create function workspace.get_workspace(ws evil.kind) returns text"
                " language sql as 'select 1::text'"
            )


def test_no_function_takes_what_could_be_anything(conn: Conn) -> None:
    """A type of the caller's own, with operators of its own, has to become one of Postgres's."""
    taken = conn.execute(
        "select distinct t::regtype::text from pg_proc as p, unnest(p.proargtypes::oid[]) as t"
        " where p.pronamespace::regnamespace::text = any(%s) and p.prosecdef",
        [SCHEMAS],
    ).fetchall()
    assert {name for (name,) in taken} == {
        *("uuid", "uuid[]", "text", "text[]", "boolean", "bigint", "integer", "jsonb", "bytea"),
        "timestamp with time zone",
    }
