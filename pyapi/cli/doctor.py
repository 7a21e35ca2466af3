"""What `runtime-registry doctor` looks at."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import psycopg

from .. import fleet, keyring, registry, schema
from ..errors import EncryptionKeyMissing, PermissionDenied, RegistryError, translate

Status = Literal["ok", "warning", "problem"]
Finding = tuple[Status, str]

_SCHEMA = "schema"
# The minor releases of February 2026, by major release.
_PGCRYPTO_FIXED = {15: 16, 16: 12, 17: 8, 18: 2}


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    check: str
    status: Status
    finding: str


def examine(conn: psycopg.Connection[Any], only: Container[str] | None = None) -> Iterator[Check]:
    """Look at the database of an autocommit connection, one check at a time; change nothing.

    What the role may not look at is a warning; the owner and a superuser may look at everything.
    `only` are the names of the checks to make.
    """
    for name, look in _CHECKS.items():
        if only is not None and name not in only:
            continue
        try:
            status, finding = look(conn)
        except (RegistryError, psycopg.Error) as raised:
            error = raised if isinstance(raised, RegistryError) else translate(raised)
            if isinstance(error, PermissionDenied):
                status, finding = "warning", "not checked: the role may not read this"
            elif isinstance(error, EncryptionKeyMissing):
                status, finding = "warning", "not checked: this takes the key-encryption key"
            else:
                status, finding = "problem", " ".join(filter(None, [error.message, error.hint]))
        yield Check(name, status, finding)
        if name == _SCHEMA and status == "problem":
            return  # the rest would say the same in other words


def examine_file(kek_file: Path | None) -> Iterator[Check]:
    """Look at who can read the file with the KEK, if there is one."""
    if kek_file is not None:
        others = kek_file.stat().st_mode & 0o077
        finding = "others than its owner can read or write it" if others else "its owner's alone"
        yield Check("KEK file", "warning" if others else "ok", finding)


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
            (3, 'load a registry', 'fleet', 'fleet.load_registry(jsonb, text, boolean)'),
            (4, 'manage the keyring', 'keyring', 'keyring.rotate()')
        ) as entry (place, what, home, function)
        where case when has_schema_privilege(home, 'usage')
            then has_function_privilege(function, 'execute') end
        order by place
        """
    ).fetchall()
    if not rows:
        return "problem", "none: grant the role runtime_registry_reader, _operator or _admin"
    return "ok", f"{rows[0][0]} may {', '.join(what for _, what in rows)}"


def pgcrypto(server_version: int) -> Finding:
    """Tell whether the pgcrypto of a server of this version has the fix of CVE-2026-2005."""
    major, minor = divmod(server_version, 10000)
    fixed = _PGCRYPTO_FIXED.get(major, 0)
    if minor >= fixed:
        return "ok", f"that of PostgreSQL {major}.{minor}"
    return (
        "warning",
        f"that of PostgreSQL {major}.{minor}: whoever can write a sealed value may run code on the "
        f"server (CVE-2026-2005); {major}.{fixed} mends it",
    )


def _kek(conn: psycopg.Connection[Any]) -> Finding:
    ((given, stored),) = conn.execute(
        """
        select coalesce(current_setting('runtime_registry.kek', true), '') <> '',
            exists (
                select from pg_db_role_setting as s, unnest(s.setconfig) as c (setting)
                where c.setting ~ '^runtime_registry\\.(new_)?kek=.'
            )
        """
    ).fetchall()
    if stored:
        return (
            "problem",
            "ALTER ROLE or ALTER DATABASE has stored one where every role can read it: take it out "
            "there, then give the keyring another one with `runtime-registry keyring rewrap`",
        )
    try:
        # Behind the last workspace there is nothing to seal; that it tries needs a KEK that fits.
        keyring.reseal(conn, after=UUID(int=2**128 - 1))
    except EncryptionKeyMissing:
        if given:
            return "problem", "the one given does not fit the keyring"
        return "warning", f"none given: see --kek-file and {keyring.ENVIRONMENT_VARIABLE}"
    return "ok", "as it should be" if given else "not needed: the keyring has no key"


def _secrets(conn: psycopg.Connection[Any]) -> Finding:
    try:
        entries = keyring.status(conn, verify=True)
    except EncryptionKeyMissing:
        entries = keyring.status(conn)
    plain = sum(entry.secrets for entry in entries if entry.state == "plain")
    plain_history = sum(entry.history for entry in entries if entry.state == "plain")
    if not any(entry.state == "active" for entry in entries):
        return "warning", f"stored plain, {plain} so far: the keyring has no key"
    lost = sum(
        entry.secrets + entry.history if entry.state == "missing" else entry.unreadable or 0
        for entry in entries
    )
    if lost:
        return "problem", f"{lost} cannot be read, those in the history included"
    if plain or plain_history:
        return (
            "warning",
            f"{plain} are still stored plain, and {plain_history} in the history: run "
            "`runtime-registry keyring reseal`",
        )
    return "ok", "sealed"


def _pairs(conn: psycopg.Connection[Any]) -> Finding:
    dead = [str(orphan.workspace_id) for orphan in fleet.orphans(conn)]
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
            when 'log_transaction_sample_rate' then setting <> '0'
            when 'log_parameter_max_length_on_error' then setting <> '0'
            when 'debug_print_parse' then setting = 'on'
            when 'debug_print_rewritten' then setting = 'on'
            when 'debug_print_plan' then setting = 'on'
            when 'auto_explain.log_min_duration' then setting <> '-1'
            when 'pgaudit.log' then setting not in ('', 'none')
            when 'pg_stat_statements.track_utility' then setting = 'on'
        end
        order by name
        """
    ).fetchall()
    if not rows:
        return "ok", "no setting records statements or parameters"
    settings = ", ".join(setting for (setting,) in rows)
    return "warning", f"models, secrets and keys can be recorded by {settings}"


_CHECKS: dict[str, Callable[[psycopg.Connection[Any]], Finding]] = {
    "server": _server,
    "encoding": _encoding,
    "server log": _logging,
    _SCHEMA: _schema,
    "rights": _rights,
    "registry": _registry,
    "registry revision": _revision,
    "pgcrypto": lambda conn: pgcrypto(conn.info.server_version),
    "KEK": _kek,
    "secrets": _secrets,
    "workspaces": _pairs,
}

ENCRYPTION = frozenset({"server log", _SCHEMA, "pgcrypto", "KEK", "secrets"})
"""The checks of what encryption depends on."""
