"""Which database a command works on, and the ways into it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .. import embedded, fleet, keyring, registry, schema
from ..errors import ConnectionLost
from ..keyring import Kek

# libpq reads more variables; these are the ones that say where a database is.
_LIBPQ = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")

NEW_KEK_VARIABLE = "RUNTIME_REGISTRY_NEW_KEK"


@dataclass(frozen=True, slots=True)
class Options:
    """The options that every command has, before or after its name."""

    database: str | None
    as_json: bool
    kek_file: Path | None = None


def read_kek(file: Path | None, variable: str) -> Kek | None:
    """Read a KEK from a file, else from an environment variable; None if neither is given.

    Raises BadParameter and InvalidArgument.
    """
    if file is None:
        return Kek.from_environment(variable) if os.environ.get(variable) else None
    try:
        return Kek.from_file(file)
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Database:
    """A database: where it is, the embedded server if it is on that, and the KEKs for sessions."""

    conninfo: str
    server: embedded.Server | None = None
    kek: Kek | None = None
    new_kek: Kek | None = None

    def options(self) -> str | None:
        """libpq's `options` with the KEK added, which so is in no statement; None without a KEK."""
        if self.kek is None:
            return None
        others = conninfo_to_dict(self.conninfo).get("options") or os.environ.get("PGOPTIONS", "")
        return keyring.startup_options(self.kek, str(others), new_kek=self.new_kek)

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect, with every call a transaction of its own. Raises ConnectionLost."""
        try:
            conn = psycopg.connect(
                self.conninfo,
                autocommit=True,
                fallback_application_name="runtime-registry",
                options=self.options(),
            )
        except psycopg.OperationalError as error:
            # Here libpq's reason is what somebody has to know. There is no password in it.
            failure = ConnectionLost.make(harmless=True)
            reason = " ".join(str(error).split())
            raise ConnectionLost(
                failure.status, failure.code, reason, failure.hint, failure.detail
            ) from error
        with conn:
            yield conn

    def psql(self, arguments: Sequence[str]) -> int:
        """Run psql on the database and return its exit code. Raises FileNotFoundError."""
        parts = conninfo_to_dict(self.conninfo)
        environment = os.environ.copy()
        if password := parts.pop("password", None):
            # Not as an argument, which all users of the machine can see.
            environment["PGPASSWORD"] = str(password)
        if options := self.options():
            # The environment of a process is for its own user's eyes, and root's.
            environment["PGOPTIONS"] = options
            parts.pop("options", None)  # it would come before
        program = str(self.server.bin_dir / "psql") if self.server else "psql"
        command = [program, "--dbname", make_conninfo("", **parts), *arguments]
        # Ctrl-C is psql's, to cancel a query. A handler, unlike SIG_IGN, is not inherited.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            return subprocess.run(command, env=environment).returncode
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def connection(options: Options, *, loaded: bool = True) -> Iterator[psycopg.Connection[Any]]:
    """Open the database that is meant and connect to it."""
    with opened(options, loaded=loaded) as database, database.connected() as conn:
        yield conn


@contextmanager
def opened(options: Options, *, migrated: bool = True, loaded: bool = True) -> Iterator[Database]:
    """Find the database that is meant; start the embedded server when none is named.

    The embedded database is a playground: as far as the command needs it, it is migrated and
    given the packaged catalogue. Every other database is left as it is.
    """
    conninfo = named(options.database, os.environ)
    kek = read_kek(options.kek_file, keyring.ENVIRONMENT_VARIABLE)
    new_kek = read_kek(None, NEW_KEK_VARIABLE)
    if conninfo is not None:
        yield Database(conninfo, None, kek, new_kek)
        return
    with embedded.server() as server:
        home = server.log_path.parent
        notice = f"No database is named; this is the embedded Postgres in {home}."
        if not options.as_json:
            print(notice, file=sys.stderr)
        database = Database(server.dsn, server, kek, new_kek)
        if migrated:
            _prepare(database, loaded)
        yield database
        if options.as_json:  # only now: with an error, standard error holds that and nothing else
            print(notice, file=sys.stderr)


def _prepare(database: Database, loaded: bool) -> None:
    with database.connected() as conn:
        if schema.current_revision(conn) != schema.head_revision():
            schema.migrate(database.conninfo)
        if loaded and not registry.list_runtimes(conn):
            fleet.load_registry(conn, schema.default_manifest())


def named(option: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the conninfo that the option, DATABASE_URL or libpq's variables give, in this order.

    SQLAlchemy's URLs are understood (the driver in them is dropped) and, as in psql, the mere name
    of a database. None: no database is named.

    Raises BadParameter, which does not repeat the text: there may be a password in it.
    """
    source, given = "--database", option
    if given is None:
        source, given = "DATABASE_URL", environment.get("DATABASE_URL") or None
    if given is None:
        return "" if any(environment.get(name) for name in _LIBPQ) else None
    if not given.strip():
        raise typer.BadParameter(f"{source} is empty")
    if re.fullmatch(r"[^=:/@\s]+", given):
        return make_conninfo("", dbname=given)
    conninfo = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", given)
    try:
        parts = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        parts = {}
    if not parts:
        raise typer.BadParameter(
            f"{source} is neither a connection string (host=... dbname=...) nor a postgresql:// URL"
        )
    # libpq ends a URL's password at the first @ or /, and would print the rest of it as a host,
    # port or database.
    strays = f"{parts.get('host', '')}{parts.get('dbname', '')}"
    if "://" in conninfo and ("@" in strays or re.search(r"[^\d,]", str(parts.get("port", "")))):
        raise typer.BadParameter(
            f"{source} has an @ or / in its user or password: write it as %40 or %2F"
        )
    return conninfo
