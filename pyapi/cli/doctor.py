"""What `runtime-registry doctor` looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from .. import registry, schema
from ..errors import PermissionDenied, RegistryError, translate

Status = Literal["ok", "warning", "problem"]
Finding = tuple[Status, str]

_SCHEMA = "schema"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    check: str
    status: Status
    finding: str


def examine(conn: psycopg.Connection[Any]) -> Iterator[Check]:
    """Look at the database of an autocommit connection, one check at a time; change nothing.

    What the role may not look at is a warning; the owner and a superuser may look at everything.
    """
    for name, look in _CHECKS.items():
        try:
            status, finding = look(conn)
        except (RegistryError, psycopg.Error) as raised:
            error = raised if isinstance(raised, RegistryError) else translate(raised)
            if isinstance(error, PermissionDenied):
                status, finding = "warning", "not checked: the role may not read this"
            else:
                status, finding = "problem", " ".join(filter(None, [error.message, error.hint]))
        yield Check(name, status, finding)
        if name == _SCHEMA and status == "problem":
            return  # the rest would say the same in other words


def _server(conn: psycopg.Connection[Any]) -> Finding:
    number = conn.info.server_version
    found = f"PostgreSQL {conn.info.parameter_status('server_version')}"
    return ("ok", found) if number >= 150000 else ("problem", f"{found}; 15 or newer is needed")


def _encoding(conn: psycopg.Connection[Any]) -> Finding:
    encoding = conn.info.parameter_status("server_encoding")
    return ("ok", "UTF8") if encoding == "UTF8" else ("problem", f"{encoding}; UTF8 is needed")


def _schema(conn: psycopg.Connection[Any]) -> Finding:
    current, head = schema.current_revision(conn), schema.head_revision()
    if current == head:
        return "ok", f"revision {current}"
    return (
        "problem",
        f"revision {current or 'none'}, this release has {head}: run `runtime-registry migrate`",
    )


def _registry(conn: psycopg.Connection[Any]) -> Finding:
    runtimes = registry.list_runtimes(conn)
    if not runtimes:
        return "problem", "none is loaded: run `runtime-registry load`"
    return "ok", f"{len(runtimes)} runtimes, {sum(entry.models for entry in runtimes)} models"


def _revision(conn: psycopg.Connection[Any]) -> Finding:
    row = conn.execute(
        """
        select r.revision, r.loaded_by, r.loaded_at at time zone 'UTC'
        from registry.state as s
        join registry.revisions as r on r.revision = s.revision
        """
    ).fetchone()
    if not row:
        return "problem", "none is loaded: run `runtime-registry load`"
    return "ok", f"{row[0]}, loaded by {row[1]} at {row[2]:%Y-%m-%d %H:%M:%S} UTC"


def _rights(conn: psycopg.Connection[Any]) -> Finding:
    # A function can be looked up by name only by a role that may use its schema, hence the case.
    rows = conn.execute(
        """
        select current_user::text, what
        from (values
            (1, 'read', 'registry', 'registry.list_runtimes()'),
            (2, 'change workspaces', 'workspace',
                'workspace.change_runtime(uuid, text, text, boolean, bigint, text)'),
            (3, 'load a registry', 'fleet', 'fleet.load_registry(jsonb, text, boolean)')
        ) as entry (place, what, home, function)
        where case when has_schema_privilege(home, 'usage')
            then has_function_privilege(function, 'execute') end
        order by place
        """
    ).fetchall()
    if not rows:
        return "problem", "none: grant the role runtime_registry_reader, _operator or _admin"
    return "ok", f"{rows[0][0]} may {', '.join(what for _, what in rows)}"


def _secrets(conn: psycopg.Connection[Any]) -> Finding:
    row = conn.execute(
        """
        select
            (select k.id from keyring.keys as k where k.state = 'active'),
            (select count(*) from workspace.secrets as s where s.key_id is null)
        """
    ).fetchone()
    assert row
    active_key, plain = row
    if active_key is None:
        return "warning", f"stored plain, {plain} so far: the keyring has no key"
    return ("warning", f"{plain} are still stored plain") if plain else ("ok", "sealed")


_UNROUTABLE = "select * from fleet.unroutable_workspaces(keyring.active_key())"


def _pairs(conn: psycopg.Connection[Any]) -> Finding:
    dead = [str(ws) for (ws,) in conn.execute(_UNROUTABLE)]
    if not dead:
        return "ok", "every one has a model that its runtime can run, or none"
    shown = ", ".join(dead[:3]) + (", ..." if len(dead) > 3 else "")
    return "problem", f"{len(dead)} with a model that is not registered or not readable: {shown}"


def _logging(conn: psycopg.Connection[Any]) -> Finding:
    rows = conn.execute(
        """
        select name || ' = ' || setting from pg_settings
        where case name
            when 'log_statement' then setting = 'all'
            when 'log_min_duration_statement' then setting <> '-1'
            when 'log_min_duration_sample' then setting <> '-1'
            when 'auto_explain.log_min_duration' then setting <> '-1'
            when 'log_transaction_sample_rate' then setting <> '0'
            when 'log_parameter_max_length_on_error' then setting <> '0'
        end
        order by name
        """
    ).fetchall()
    if not rows:
        return "ok", "no setting writes the parameters of calls into it"
    return "warning", f"models can get into it by {', '.join(setting for (setting,) in rows)}"


_CHECKS: dict[str, Callable[[psycopg.Connection[Any]], Finding]] = {
    "server": _server,
    "encoding": _encoding,
    "server log": _logging,
    _SCHEMA: _schema,
    "rights": _rights,
    "registry": _registry,
    "registry revision": _revision,
    "secrets": _secrets,
    "workspaces": _pairs,
}
