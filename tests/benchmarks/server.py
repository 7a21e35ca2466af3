"""A server of our own for a run, set as a production server would be, and what a reader of the
figures must know about it."""

from __future__ import annotations

import os
import platform
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pyapi import embedded

# Durable, as by default. The run is too short to show what checkpoints cost, so none comes in by
# itself: the rows make one between the rounds.
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "random_page_cost": "1.1",
}
SHOWN = (*SETTINGS, "synchronous_commit", "wal_level", "autovacuum", "jit", "data_checksums")


@contextmanager
def start() -> Iterator[embedded.Server]:
    """Run the server for the length of the block; its data goes to BENCH_DIR, else /var/tmp.

    Its conninfo brings the key-encryption key along.
    """
    parent = os.environ.get("BENCH_DIR", "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=parent) as directory:
        home = Path(directory)
        home.chmod(0o711)  # the server's user has to get in, even if we are root
        with embedded.server(home) as server, psycopg.connect(server.dsn, autocommit=True) as conn:
            for name, value in SETTINGS.items():
                statement = sql.SQL("ALTER SYSTEM SET {} = {}")
                conn.execute(statement.format(sql.Identifier(name), value))
        with embedded.server(home) as server:
            _use_all_buffers(server)
            kek = f"-c runtime_registry.kek={secrets.token_hex(32)}"
            yield replace(server, dsn=make_conninfo(server.dsn, options=kek))


def _use_all_buffers(server: embedded.Server) -> None:
    """Use the shared buffers once, as a server has that ran for a while: whoever is the first to
    use one waits for the operating system to clear that memory."""
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("CREATE UNLOGGED TABLE filler (filler text STORAGE PLAIN)")
        conn.execute(
            "INSERT INTO filler SELECT repeat('x', 7000) FROM pg_settings AS s,"
            " generate_series(1, s.setting::integer) WHERE s.name = 'shared_buffers'"
        )
        conn.execute("DROP TABLE filler")


def describe(server: embedded.Server) -> dict[str, str]:
    """The header of a report."""
    with psycopg.connect(server.dsn) as conn:
        version = conn.execute("SELECT version()").fetchone()
        shown = conn.execute(
            "SELECT string_agg(format('%%s=%%s', name, current_setting(name)), ', ' ORDER BY name)"
            " FROM pg_settings WHERE name = ANY (%s)",
            [list(SHOWN)],
        ).fetchone()
    assert version
    assert shown
    cpu = Path("/proc/cpuinfo")
    models = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = models[0].partition(": ")[2] if models else platform.processor()
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    return {
        "machine": f"{os.cpu_count()} x {model}, {memory:.0f} GiB, {platform.platform()}",
        "load before": load,
        "server": version[0],
        "settings": shown[0],
        "python": f"{platform.python_version()}, psycopg {psycopg.__version__}"
        f" ({psycopg.pq.__impl__})",
    }


def create_database(server: embedded.Server, name: str, template: str) -> str:
    """Make a database, which goes with the server; its conninfo."""
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        conn.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return make_conninfo(server.dsn, dbname=name)


@contextmanager
def copy_database(server: embedded.Server, template: str) -> Iterator[str]:
    """Have a copy of a database for the length of the block; its conninfo."""
    name = f"{template}_copied"
    yield create_database(server, name, template)
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
