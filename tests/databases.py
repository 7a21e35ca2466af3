"""Databases for tests, and what it takes to watch two sessions wait for each other."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from servers import Server

SQL = Path(__file__).parents[1] / "sql"
SEALED = os.environ.get("RUNTIME_REGISTRY_TEST_SEALED") == "1"
KEK = secrets.token_hex(32)  # for sealed runs

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Database:
    """A database of its own; the connections opened here are closed when it is dropped."""

    server: Server
    name: str
    _open: list[psycopg.Connection | psycopg.AsyncConnection] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        """Conninfo of a superuser."""
        return make_conninfo(self.server.dsn, dbname=self.name)

    def connect(self, **options: Any) -> psycopg.Connection:
        """Open a connection as superuser; `options` are those of psycopg.connect."""
        conn = psycopg.connect(self.dsn, **options)
        self._open.append(conn)
        return conn

    async def aconnect(self, **options: Any) -> psycopg.AsyncConnection:
        """Open an async connection as superuser."""
        conn = await psycopg.AsyncConnection.connect(self.dsn, **options)
        self._open.append(conn)
        return conn

    def connect_as(self, role: str, **options: Any) -> psycopg.Connection:
        """Open a connection with the rights of `role`, even if that role cannot log in."""
        conn = self.connect(**options)
        conn.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
        if not conn.autocommit:
            conn.commit()  # or else a rollback would take it back
        return conn

    def psql(self, *arguments: str | Path) -> str:
        """Run psql with these arguments and return what it prints; any error raises."""
        done = subprocess.run(
            [self.server.bin("psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d", self.dsn, *arguments],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise AssertionError(f"psql ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def close(self) -> None:
        """Close all connections opened here."""
        for conn in self._open:
            conn.pgconn.finish()  # async ones too: their event loop may be gone by now
        self._open.clear()


@contextmanager
def create(server: Server, template: Database | None = None) -> Iterator[Database]:
    """A database for the length of the block: empty, or a clone of `template`."""
    database = Database(server, f"test_{secrets.token_hex(6)}")
    name = sql.Identifier(database.name)
    # Copying files takes half as long as writing them to the WAL, where fsync is off.
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' STRATEGY file_copy")
    source = sql.Identifier(template.name if template else "template0")
    with server.connect(autocommit=True) as conn:
        conn.execute(statement.format(name, source))
    try:
        yield database
    finally:
        database.close()
        with server.connect(autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def install(database: Database) -> None:
    """Install the SQL with psql, as the README says, and load the packaged catalogue."""
    database.psql("-q", "-1", "-f", SQL / "install.sql")
    manifest = (SQL / "registry" / "manifest.json").read_text()
    with psycopg.connect(database.dsn) as conn:
        conn.execute("SELECT fleet.load_registry(manifest => %s::jsonb)", [manifest])


def start_sealing(database: Database) -> None:
    """Give the keyring a key and all sessions of the server, from now on, the KEK."""
    give_kek(database.server, KEK)
    with psycopg.connect(database.dsn) as conn:
        conn.execute("SELECT keyring.init()")


def give_kek(server: Server, kek: str) -> None:
    """Give all sessions that begin from now on the KEK, or none if it is empty.

    A setting of all roles is how no real KEK must be kept: here it reaches every kind of session.
    """
    with server.connect(autocommit=True) as conn:
        conn.execute(sql.SQL("ALTER ROLE ALL SET runtime_registry.kek = {}").format(kek))


@contextmanager
def without_kek(server: Server) -> Iterator[None]:
    """Give the sessions that begin within the block no KEK, in any run."""
    if not SEALED:
        yield
        return
    give_kek(server, "")
    try:
        yield
    finally:
        give_kek(server, KEK)


def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call the function in a thread of its own: the second session of a test."""
    executor = ThreadPoolExecutor(max_workers=1)
    future = executor.submit(function, *args, **kwargs)
    executor.shutdown(wait=False)
    return future


def wait_until_blocked(
    observer: psycopg.Connection, backend_pid: int, seconds: float = 10
) -> list[int]:
    """Wait until that backend waits for other sessions, and return the pids of those who block it.

    An autovacuum worker that is in the way for a moment does not count.
    `observer` is any connection that is free. Raises AssertionError when the time is up.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        row = observer.execute(
            "SELECT array_agg(DISTINCT a.pid) FROM pg_stat_get_activity(NULL) AS a"
            " WHERE a.pid = ANY (pg_blocking_pids(%s)) AND a.backend_type = 'client backend'",
            [backend_pid],
        ).fetchone()
        if row is not None and row[0]:
            return list(row[0])
        threading.Event().wait(0.002)
    observer.execute("SELECT pg_stat_clear_snapshot()")
    row = observer.execute(
        "SELECT state, wait_event_type, wait_event, query FROM pg_stat_activity WHERE pid = %s",
        [backend_pid],
    ).fetchone()
    raise AssertionError(f"backend {backend_pid} waits for no lock: {row}")
