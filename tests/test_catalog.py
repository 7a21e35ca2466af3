"""The installed objects and their files: comments, search_path, layers, and hijacking."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from databases import SQL, Database
from keyrings import KEK, NEW_KEK, bring, empty
from support import MANIFEST, SCHEMAS, Conn, acting_as, call, one, refused, rows

PINNED = "search_path=pg_catalog, pg_temp"
OPERATOR, ADMIN = "runtime_registry_operator", "runtime_registry_admin"


def functions(conn: Conn) -> list[Any]:
    """Name, settings, SECURITY DEFINER, whether it is granted, comment and body of each."""
    found = conn.execute(
        "select p.oid::regproc::text, p.proconfig, p.prosecdef,"
        " has_function_privilege('runtime_registry_admin', p.oid, 'execute'),"
        " obj_description(p.oid), p.prosrc"
        " from pg_proc p where p.pronamespace::regnamespace::text = any(%s) order by 1",
        [SCHEMAS],
    ).fetchall()
    assert len(found) > 40
    return found


def test_every_function_pins_its_search_path(conn: Conn) -> None:
    unpinned = [name for name, settings, *_ in functions(conn) if PINNED not in (settings or [])]
    assert unpinned == []


def test_exactly_what_is_granted_runs_with_its_owners_rights(conn: Conn) -> None:
    found = functions(conn)
    definer = [name for name, _, definer, *_ in found if definer]
    assert definer == [name for name, _, _, granted, *_ in found if granted]
    assert len(definer) == 44


def test_everything_has_a_comment(conn: Conn) -> None:
    bare = conn.execute(
        """
        select n.oid::regnamespace::text, obj_description(n.oid, 'pg_namespace') as comment
        from pg_namespace n where n.nspname = any(%(schemas)s)
        union all
        select c.oid::regclass::text, obj_description(c.oid, 'pg_class')
        from pg_class c
        where c.relnamespace::regnamespace::text = any(%(schemas)s) and c.relkind not in ('c', 'i')
        union all
        select t.oid::regtype::text, obj_description(t.oid, 'pg_type')
        from pg_type t left join pg_class c on c.oid = t.typrelid
        where t.typnamespace::regnamespace::text = any(%(schemas)s)
          and t.typelem = 0 and coalesce(c.relkind, 'c') = 'c'
        union all
        select p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc')
        from pg_proc p where p.pronamespace::regnamespace::text = any(%(schemas)s)
        """,
        {"schemas": SCHEMAS},
    ).fetchall()
    assert len(bare) > 60
    assert [name for name, comment in bare if not comment] == []


def test_comments_begin_with_a_sentence_and_say_what_is_internal(conn: Conn) -> None:
    for name, _, _, granted, comment, _ in functions(conn):
        assert re.match(r"[A-Z].*\.$", comment.splitlines()[0]), name
        assert comment.startswith("Internal:") != granted, name


# The files.

FILES = {path.relative_to(SQL).as_posix(): path.read_text() for path in sorted(SQL.rglob("*.sql"))}
INSTALLED = re.findall(r"^\\ir (\S+)$", FILES["install.sql"], re.MULTILINE)


def defined_in(text: str) -> list[str]:
    return re.findall(r"^create or replace function (\w+\.\w+)\(", text, re.MULTILINE)


def test_install_sql_runs_every_file_once_and_does_nothing_else() -> None:
    assert Counter(INSTALLED) == Counter(set(FILES) - {"install.sql"})
    other = [
        line
        for line in FILES["install.sql"].splitlines()
        if line and not line.startswith("--") and not re.fullmatch(r"\\ir \S+", line)
    ]
    assert other == []


def test_every_public_function_has_the_file_of_its_name(conn: Conn) -> None:
    granted = [name for name, _, _, granted, *_ in functions(conn) if granted]
    for name in granted:
        assert defined_in(FILES[f"{name.replace('.', '/')}.sql"]) == [name]
    for path, text in FILES.items():
        names = defined_in(text)
        assert {name.split(".")[0] for name in names} <= {path.split("/")[0]}, path
        if len(names) == 1:
            assert names[0].replace(".", "/") + ".sql" == path
        else:
            assert not set(names) & set(granted), path


def test_every_function_comes_from_the_files(conn: Conn) -> None:
    defined = [name for path in INSTALLED for name in defined_in(FILES[path])]
    assert sorted(defined) == sorted(name for name, *_ in functions(conn))


BELOW = {
    "registry": {"registry"},
    "keyring": {"keyring", "registry"},
    "access": {"access", "registry"},
    "workspace": {"workspace", "registry", "keyring"},
    "fleet": set(SCHEMAS),
}


# They go through everything that a key has sealed.
LOOK_UP = {"keyring.reseal", "keyring.retire", "keyring.status"}


def test_a_schema_uses_only_those_below_it(conn: Conn) -> None:
    for name, _, _, _, _, body in functions(conn):
        code = re.sub(r"--.*|'[^']*'", "", body)
        used = set(re.findall(rf"\b({'|'.join(SCHEMAS)})\.\w", code))
        upwards = used - BELOW[name.split(".")[0]]
        assert upwards == ({"workspace"} if name in LOOK_UP else set()), name


def test_the_workspace_tables_can_be_distributed_by_workspace(conn: Conn) -> None:
    tables = "c.relnamespace = 'workspace'::regnamespace"
    triggers = conn.execute(
        "select tgname from pg_trigger join pg_class c on c.oid = tgrelid"
        f" where {tables} and not tgisinternal"
    ).fetchall()
    assert triggers == []
    unique = conn.execute(
        "select c.oid::regclass::text, a.attname from pg_index i"
        " join pg_class c on c.oid = i.indrelid"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]"
        f" where {tables} and i.indisunique"
    ).fetchall()
    assert set(unique) == {
        ("workspace.workspaces", "id"),
        ("workspace.secrets", "workspace_id"),
        ("workspace.changes", "workspace_id"),
        ("workspace.numbering", "singleton"),  # one row, the same everywhere
    }


def test_no_check_can_print_a_secret(conn: Conn) -> None:
    checks = conn.execute(
        "select conname from pg_constraint where contype = 'c'"
        " and conrelid in ('workspace.secrets'::regclass, 'workspace.changes'::regclass)"
    ).fetchall()
    assert checks == []


# Hijacking. What a caller puts in the way must not be found by our functions.

TRAP = "language plpgsql as $$ begin raise exception 'hijacked'; end $$"
TRAPS = [
    f"create function {{0}}.lower(text) returns text {TRAP}",
    f"create function {{0}}.btrim(text, text) returns text {TRAP}",
    f"create function {{0}}.octet_length(text) returns integer {TRAP}",
    f"create function {{0}}.translate(text, text, text) returns text {TRAP}",
    f"create function {{0}}.clock_timestamp() returns timestamptz {TRAP}",
    f"create function {{0}}.gen_random_uuid() returns uuid {TRAP}",
    f"create function {{0}}.current_setting(text) returns text {TRAP}",
    f"create function {{0}}.current_setting(text, boolean) returns text {TRAP}",
    f"create function {{0}}.jsonb_typeof(jsonb) returns text {TRAP}",
    f"create function {{0}}.starts_with(text, text) returns boolean {TRAP}",
    f"create function {{0}}.convert_to(text, name) returns bytea {TRAP}",
    f"create function {{0}}.pg_current_xact_id() returns xid8 {TRAP}",
    f"create function {{0}}.pg_current_snapshot() returns pg_snapshot {TRAP}",
    f"create function {{0}}.pg_snapshot_xmin(pg_snapshot) returns xid8 {TRAP}",
    f"create function {{0}}.pg_is_in_recovery() returns boolean {TRAP}",
    f"create function {{0}}.nextval(regclass) returns bigint {TRAP}",
    f"create function {{0}}.sha256(bytea) returns bytea {TRAP}",
    f"create function {{0}}.substr(text, integer) returns text {TRAP}",
    f"create function {{0}}.substr(bytea, integer, integer) returns bytea {TRAP}",
    f"create function {{0}}.encode(bytea, text) returns text {TRAP}",
    f"create function {{0}}.decode(text, text) returns bytea {TRAP}",
    f"create function {{0}}.length(text) returns integer {TRAP}",
    f"create function {{0}}.octet_length(bytea) returns integer {TRAP}",
    f"create function {{0}}.get_byte(bytea, integer) returns integer {TRAP}",
    f"create function {{0}}.convert_from(bytea, name) returns text {TRAP}",
    f"create function {{0}}.cardinality(anyarray) returns integer {TRAP}",
    f"create function {{0}}.upper(text) returns text {TRAP}",
    f"create function {{0}}.format(text, text) returns text {TRAP}",
    f"create function {{0}}.pgp_sym_encrypt(text, text, text) returns bytea {TRAP}",
    f"create function {{0}}.pgp_sym_decrypt(bytea, text) returns text {TRAP}",
    f"create function {{0}}.gen_random_bytes(integer) returns bytea {TRAP}",
    *(
        f"create function {{0}}.trap_{number}({left}, {right}) returns {result} {TRAP};"
        f" create operator {{0}}.{operator}"
        f" (leftarg = {left}, rightarg = {right}, function = {{0}}.trap_{number})"
        for number, (operator, left, right, result) in enumerate(
            [
                ("=", "text", "text", "boolean"),
                ("<>", "text", "text", "boolean"),
                ("<=", "text", "text", "boolean"),
                ("=", "uuid", "uuid", "boolean"),
                ("=", "bigint", "bigint", "boolean"),
                ("<>", "bigint", "bigint", "boolean"),
                (">", "bigint", "bigint", "boolean"),
                ("<<", "bigint", "integer", "bigint"),
                ("=", "boolean", "boolean", "boolean"),
                ("=", "integer", "integer", "boolean"),
                ("=", "bytea", "bytea", "boolean"),
                ("||", "text", "text", "text"),
                ("<", "timestamptz", "timestamptz", "boolean"),
                (">", "timestamptz", "timestamptz", "boolean"),
                ("-", "timestamptz", "interval", "timestamptz"),
                (">", "integer", "integer", "boolean"),
                ("+", "bigint", "integer", "bigint"),
                ("&&", "anyarray", "anyarray", "boolean"),
                ("||", "jsonb", "jsonb", "jsonb"),
                ("->", "jsonb", "text", "jsonb"),
                ("->>", "jsonb", "text", "text"),
            ]
        )
    ),
]
FAKES = [
    "create table {0}.workspaces (id uuid, name text, runtime text, version bigint)",
    "create table {0}.secrets (workspace_id uuid, key text, sealed bytea)",
    "create table {0}.changes (workspace_id uuid)",
    "create table {0}.state (revision bigint)",
    "create table {0}.keys (id integer, wrapped bytea, state text)",
    "create table {0}.tokens (name text, hash bytea, role text)",
    "create table {0}.retention (prunings bigint)",
    "create table {0}.numbering (era bigint)",
    "create table {0}.runtimes (name text, default_model text)",
    "create table {0}.models (runtime text, model text)",
    "create type {0}.change as (x integer)",
    "create type {0}.snapshot as (x integer)",
    "create domain {0}.text as pg_catalog.text check (false)",
    "create domain {0}.uuid as pg_catalog.uuid check (false)",
    "create domain {0}.bigint as pg_catalog.int8 check (false)",
]
WS = UUID(int=7)
STORY: list[tuple[str, list[Any]]] = [
    ("registry.resolve", ["claude-code", "MINIMAX-M9"]),
    ("registry.resolve", ["codex", "gpt-5.5", ["OPENAI_API_KEY"]]),
    ("registry.default_model", ["hermes"]),
    ("registry.menu", ["hermes"]),
    ("registry.list_runtimes", []),
    ("registry.list_models", ["codex"]),
    ("workspace.create_workspace", ["w", " claude-code ", "moonshot/kimi-k2.6", WS]),
    ("workspace.preview_runtime_change", [WS, "google-adk"]),
    ("workspace.change_runtime", [WS, "google-adk", None, False, 1, "r-1"]),
    ("workspace.change_runtime", [WS, "google-adk", None, False, 1, "r-1"]),
    ("workspace.change_runtime", [WS, "claude-code", None, True]),
    ("workspace.set_model", [WS, "no-such-model"]),
    ("workspace.set_model", [WS, "opus"]),
    ("workspace.clear_model", [WS]),
    ("workspace.get_workspace", [WS]),
    ("workspace.delete_workspace", [WS]),
    ("workspace.history", [WS]),
]

HASH, CURSOR = b"x" * 32, f"0.{WS}.0.0"
ADMINS_STORY: list[tuple[str, list[Any]]] = [
    ("keyring.opens", []),
    ("keyring.init", []),
    ("registry.status", []),
    *STORY[:9],
    ("workspace.set_secret", [WS, "TOKEN", "t", 2]),
    ("workspace.set_secret", [WS, "MODEL", "t"]),
    ("workspace.get_secret", [WS, "TOKEN"]),
    ("workspace.list_secrets", [WS]),
    ("keyring.rotate", []),
    ("workspace.set_secret", [WS, "TOKEN", "u"]),
    ("keyring.reseal", [WS]),
    ("keyring.rewrap", []),
    ("keyring.status", [True]),
    ("keyring.retire", [2**31 - 1]),
    ("workspace.delete_secret", [WS, "TOKEN"]),
    ("workspace.rename_workspace", [WS, "v", "claude-code", None, True, None, "r-2"]),
    ("fleet.load_registry", [Jsonb(MANIFEST | {"equivalents": []}), "keep"]),
    ("fleet.restore_registry", [1, "refuse", True]),
    ("fleet.revisions", []),
    ("fleet.revision_manifest", [1]),
    ("fleet.deprecations", []),
    ("fleet.orphans", []),
    ("fleet.reset_orphans", ["claude-code", "r-3", None, 10, [WS]]),
    ("fleet.move", ["claude-code", "google-adk", True, "r-4"]),
    ("fleet.list_workspaces", []),
    ("fleet.overview", []),
    ("fleet.recent_changes", [10]),
    ("fleet.changes_after", [CURSOR, 10]),
    ("fleet.current_cursor", []),
    ("fleet.prune_changes", [datetime(9999, 1, 1, tzinfo=UTC), 10, CURSOR]),
    ("access.create_token", ["t", "workspace", HASH, WS]),
    ("access.authenticate", [HASH]),
    ("access.list_tokens", []),
    ("access.revoke_token", ["t"]),
    *STORY[9:],
]
VARYING = {
    *("created_at", "updated_at", "changed_at", "actor", "loaded_at", "loaded_by", "last_used_at"),
    *("revoked_at", "retired_at", "cursor", "current_cursor", "init", "rotate", "key_id"),
}


def story(conn: Conn, calls: list[tuple[str, list[Any]]] = STORY) -> list[Any]:
    """What the calls answer, each time; refusals as SQLSTATE and DETAIL."""
    told: list[Any] = []
    for function, args in calls:
        try:
            with conn.transaction():
                answer = rows(conn, function, *args)
        except psycopg.Error as error:
            told.append((error.sqlstate, error.diag.message_detail))
            continue
        for row in answer:
            told.append({key: value for key, value in row._asdict().items() if key not in VARYING})
    return told


@pytest.fixture
def true_story(conn: Conn) -> list[Any]:
    with acting_as(conn, OPERATOR):
        told = story(conn)
    assert len(told) > 30
    return told


def test_the_story_has_every_function_that_is_granted(conn: Conn) -> None:
    granted = {name for name, _, _, granted, *_ in functions(conn) if granted}
    assert {name for name, _ in ADMINS_STORY} == granted


@pytest.fixture
def admins_story(conn: Conn) -> list[Any]:
    """What all functions answer; the keyring has no key yet."""
    empty(conn)
    bring(conn, KEK, NEW_KEK)
    with acting_as(conn, ADMIN):
        told = story(conn, ADMINS_STORY)
    refusals = [answer[0] for answer in told if isinstance(answer, tuple)]
    # set_secret of MODEL, retire and set_model.
    assert refusals == ["PT400", "PT404", "PT422"]
    return told


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("evil", "evil, pg_catalog"),
        ("evil", "evil, registry, workspace, pg_catalog, pg_temp"),
        ("pg_temp", "pg_temp, pg_catalog"),
        ("pg_temp", "registry"),
    ],
)
def test_what_a_caller_puts_in_the_way_is_not_found(
    conn: Conn, admins_story: list[Any], schema: str, path: str
) -> None:
    if schema == "evil":
        conn.execute("create schema evil")
        conn.execute(f"grant all on schema evil to {ADMIN}")
    with acting_as(conn, ADMIN):
        for statement in [*TRAPS, *FAKES]:
            conn.execute(statement.format(schema))
        conn.execute(f"set local search_path = {path}")
        assert story(conn, ADMINS_STORY) == admins_story


def test_the_traps_above_do_catch_a_function_with_no_search_path_of_its_own(conn: Conn) -> None:
    conn.execute("create schema evil")
    for statement in TRAPS:
        conn.execute(statement.format("evil"))
    conn.execute("set local search_path = evil, pg_catalog")
    assert call(conn, "registry.trim_text", " x")[0] == "x"
    conn.execute("alter function registry.trim_text(text) reset search_path")
    assert "hijacked" in refused(conn, "registry.trim_text", " x").text


SETTINGS = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "on",
    "backslash_quote": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "bytea_output": "escape",
    "DateStyle": "ISO,DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "plan_cache_mode": "force_generic_plan",
    "enable_indexscan": "off",
    "enable_hashjoin": "off",
    "default_transaction_isolation": "serializable",
    "plpgsql.variable_conflict": "use_column",
}


def test_the_callers_settings_do_not_change_an_answer(
    database: Database, true_story: list[Any]
) -> None:
    options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
    conn = database.connect(options=options)
    assert one(conn, "show standard_conforming_strings") == "off"
    assert story(conn) == true_story
