"""What the SQL tests share: calls by name, refusals, manifests, and a hash of all tables."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from databases import SQL

SCHEMAS = ["registry", "keyring", "access", "workspace", "fleet"]
MANIFEST: dict[str, Any] = json.loads((SQL / "registry" / "manifest.json").read_text())
# The error table of the README: every code we raise, and its SQLSTATE.
CODES = {
    **dict.fromkeys(["INVALID_ARGUMENT", "ISOLATION_UNSUPPORTED"], "PT400"),
    **dict.fromkeys(
        [
            "WORKSPACE_NOT_FOUND",
            "SECRET_NOT_FOUND",
            "KEY_NOT_FOUND",
            "REVISION_NOT_FOUND",
            "TOKEN_NOT_FOUND",
        ],
        "PT404",
    ),
    **dict.fromkeys(
        [
            "VERSION_CONFLICT",
            "RUNTIME_IN_USE",
            "REGISTRY_ORPHANS",
            "WORKSPACE_EXISTS",
            "KEYRING_EXISTS",
            "KEYRING_EMPTY",
            "KEY_IN_USE",
            "TOKEN_EXISTS",
        ],
        "PT409",
    ),
    **dict.fromkeys(
        [
            "RUNTIME_UNSUPPORTED",
            "MODEL_NOT_REGISTERED",
            "NO_DEFAULT_MODEL",
            "REGISTRY_UNAVAILABLE",
            "REGISTRY_INVALID",
            "REQUEST_ID_REUSED",
        ],
        "PT422",
    ),
    **dict.fromkeys(["SECRET_UNREADABLE", "ENCRYPTION_KEY_MISSING"], "PT500"),
}
# Expected behaviour and facts of an existing system; the tests that use it also run without it.
REFERENCE = Path(
    os.environ.get("RUNTIME_REGISTRY_REFERENCE")
    or Path(__file__).resolve().parents[2] / "shared" / "reference"
)

Conn = psycopg.Connection[Any]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client was told; `text` is every word of it. Codes are ours and come with DETAIL."""

    sqlstate: str
    code: str
    detail: Json
    hint: str
    text: str


def rows(conn: Conn, function: str, *args: object, **named: object) -> list[Any]:
    """Call `function` (with its schema); its rows as named tuples."""
    holders = ["%s"] * len(args) + [f"{name} => %s" for name in named]
    query = f"select * from {function}({', '.join(holders)})"
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(query, [*args, *named.values()]).fetchall()


def call(conn: Conn, function: str, *args: object, **named: object) -> Any:
    """As `rows`, for a function that returns exactly one row."""
    (answer,) = rows(conn, function, *args, **named)
    return answer


def one(conn: Conn, query: str, *params: object) -> Any:
    """The only column of the only row of a query."""
    ((value,),) = conn.execute(query, params or None).fetchall()
    return value


@contextmanager
def savepoint(conn: Conn) -> Iterator[None]:
    """Take back whatever the block does; settings too."""
    with conn.transaction(force_rollback=True):
        yield


@contextmanager
def acting_as(conn: Conn, role: str) -> Iterator[None]:
    """Run the block with the rights of a role alone, and take back what it does."""
    with savepoint(conn):
        name = sql.Identifier(role)
        conn.execute(sql.SQL("set local session authorization {}").format(name))
        yield


def refused(conn: Conn, function: str, *args: object, **named: object) -> Refusal:
    """Call a function that has to fail, in a savepoint so that the transaction can go on.

    Asserts what holds for all errors of ours; any other has an empty code and DETAIL.
    """
    try:
        with conn.transaction():
            rows(conn, function, *args, **named)
    except psycopg.Error as error:
        sqlstate, diag = error.sqlstate or "", error.diag
    else:
        raise AssertionError(f"{function}{args!r:.200} was not refused")
    message, hint = diag.message_primary or "", diag.message_hint or ""
    detail: Json = {}
    if sqlstate.startswith("PT"):
        detail = json.loads(diag.message_detail or "")
        assert CODES[detail["code"]] == sqlstate
        assert re.fullmatch(r"[A-Z].*\.", message)
        assert re.fullmatch(r"[A-Z].*\.", hint)
    text = "\n".join([message, diag.message_detail or "", hint, diag.context or ""])
    return Refusal(sqlstate, detail.get("code", ""), detail, hint, text)


def create(conn: Conn, runtime: str | None, model: str | None = None, name: str = "w") -> UUID:
    """A new workspace's id."""
    ws: UUID = call(conn, "workspace.create_workspace", name, runtime, model).workspace_id
    return ws


def load(conn: Conn, manifest: Json, **named: object) -> Any:
    """Load a manifest; the fleet.registry_load."""
    return call(conn, "fleet.load_registry", Jsonb(manifest), **named)


def pair(conn: Conn, ws: UUID) -> tuple[str, str | None, int]:
    """A workspace's runtime, model and version."""
    state = call(conn, "workspace.get_workspace", ws)
    return state.runtime, state.model, state.version


def fingerprint(conn: Conn) -> str:
    """A hash of every row of every table we have; the connection may read them."""
    tables = conn.execute(
        "select format('%%I.%%I', schemaname, tablename) from pg_tables"
        " where schemaname = any(%s) order by 1",
        [SCHEMAS],
    ).fetchall()
    assert tables
    hashes = (
        f"(select md5(coalesce(string_agg(t::text, E'\\n' order by t::text), '')) from {table} t)"
        for (table,) in tables
    )
    return str(one(conn, f"select concat_ws(' ', {', '.join(hashes)})"))


@contextmanager
def nothing_written(conn: Conn) -> Iterator[None]:
    """Assert that the block leaves every row of every table as it was."""
    before = fingerprint(conn)
    yield
    assert fingerprint(conn) == before


def unrecorded(conn: Conn) -> list[Any]:
    """Where what is stored is not what the history says, or the history has a gap."""
    return conn.execute(
        """
        select told.workspace_id, told.version
        from (
          select
            c.*,
            row_number() over history as place,
            lag(c.runtime) over history as runtime_before,
            lag(c.sealed) over history as sealed_before,
            lead(c.version) over history is null as is_last
          from workspace.changes c
          window history as (partition by c.workspace_id order by c.version)
        ) as told
        left join workspace.workspaces w on w.id = told.workspace_id
        left join workspace.secrets s on s.workspace_id = told.workspace_id and s.key = 'MODEL'
        where told.version <> told.place
          or (told.previous_runtime, told.previous_sealed)
            is distinct from (told.runtime_before, told.sealed_before)
          or told.is_last and told.action <> 'delete_workspace'
            and (told.version, told.runtime, told.sealed)
              is distinct from (w.version, w.runtime, s.sealed)
        """
    ).fetchall()


def make_unreadable(conn: Conn, ws: UUID) -> None:
    """Put bytes that no key opens and no text has in the place of a workspace's model."""
    done = conn.execute(
        "update workspace.secrets set sealed = %s where workspace_id = %s and key = 'MODEL'",
        [b"\xff\xfe\x00", ws],
    )
    assert done.rowcount == 1


def provider(name: str, **keys: object) -> Json:
    """A provider of a manifest."""
    return {"name": name, **keys}


def runtime(name: str, *arms: tuple[str, list[str]], **keys: object) -> Json:
    """A runtime of a manifest; an arm is a provider and its models."""
    listed = [{"provider": of, "models": models} for of, models in arms]
    return {"name": name, "arms": listed, **keys}


def manifest(providers: list[Json], runtimes: list[Json], **keys: object) -> Json:
    """A manifest of the version that the project reads."""
    return {"schema_version": 1, "providers": providers, "runtimes": runtimes, **keys}


def claims(of: Json, model: str) -> bool:
    """Whether a provider of a manifest owns an id by a prefix or an alias."""

    def fold(text: str) -> str:
        return text if of.get("case_sensitive", True) else text.lower()

    prefixes = tuple(fold(prefix) for prefix in of.get("model_prefixes", []))
    aliases = [fold(alias) for alias in of.get("model_aliases", [])]
    return fold(model).startswith(prefixes) or fold(model) in aliases
