"""A server without room fails calls, or dies; with room again it goes on and has lost nothing.

Room is taken in two ways: by a limit on the size of files, and by filling a disk, where this
process may mount one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import figures
import own_server
import servers
from own_server import OwnServer
from random_load import random_load, torn
from support import one

SEED = int(os.environ.get("RUNTIME_REGISTRY_SEED", "1"))


@contextmanager
def mounted(directory: Path) -> Iterator[bool]:
    """A small disk for the length of the block; false if this process may not mount one."""
    mount = ("mount", "-t", "tmpfs", "-o", "size=400m", "tests", directory)
    done = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "--lazy", directory], check=True)


def may_mount() -> bool:
    with servers.reachable_directory() as directory, mounted(directory) as done:
        return done


@pytest.fixture
def on_small_disk(installed_home: Path) -> Iterator[OwnServer]:
    """A server on a disk of its own."""
    with servers.reachable_directory() as directory, mounted(directory) as done:
        assert done
        directory.chmod(0o711)
        own_server.copy(installed_home, directory / "home")
        with own_server.running(directory / "home") as server:
            yield server


def fill(server: OwnServer) -> None:
    """Leave the tables no room, and WAL only what it has already."""
    with closing(server.connect()) as conn:
        conn.execute("select pg_switch_wal()")  # a whole file, so that the tables end first
        conn.execute("select pg_logical_emit_message(true, '', '')")
        with (server.home / "ballast").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))


def use_up_wal(server: OwnServer) -> None:
    """Write until no WAL can be written, which ends the server."""
    with closing(server.connect()) as conn:
        while not conn.closed:
            with suppress(psycopg.Error):
                conn.execute("select pg_switch_wal()")
                conn.execute("select pg_logical_emit_message(true, '', '')")


def limit_files(server: OwnServer, size: int | str) -> None:
    """Limit the files that the processes of clients write; as their user, who may do it."""
    with closing(server.connect()) as conn:
        pids = conn.execute(
            "select pid from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        ).fetchall()
    owner = (server.home / "data").stat()
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = {"user": owner.st_uid, "group": owner.st_gid}
    for (pid,) in pids:
        limit = ["prlimit", f"--pid={pid}", f"--fsize={size}:"]
        subprocess.run(limit, capture_output=True, **account)  # the first may end the others


def outgrow_wal(server: OwnServer) -> int:
    """Make the table of changes larger than a file of WAL, with rows that nobody sees; its size."""
    with closing(server.connect()) as conn:
        with conn.transaction(force_rollback=True):
            # One row a page, or there would be room left between them.
            conn.execute("alter table workspace.changes alter action set storage plain")
            conn.execute(
                "insert into workspace.changes (workspace_id, version, action, changed,"
                " model_source, billing_changed, restore, actor, changed_at, txid)"
                " select gen_random_uuid(), 1, repeat('x', 8000), true, '', true, true, '', now(),"
                " pg_current_xact_id() from generate_series(1, 2500)"
            )
        size = int(one(conn, "select pg_relation_size('workspace.changes')"))
        assert size > int(one(conn, "select pg_size_bytes(current_setting('wal_segment_size'))"))
        return size


def test_calls_fail_while_files_may_not_grow(own: OwnServer) -> None:
    size, code = outgrow_wal(own), "DATABASE_FAILURE"  # Postgres has no SQLSTATE for it
    with closing(own.connect()) as conn:
        with random_load(conn, lambda _: own.connect(), SEED, {code}) as load:
            load.wait_for(20)
            limit_files(own, size)
            load.wait_until(20, code)
            assert torn(conn) == []
            limit_files(own, "unlimited")
            load.wait_for(20)
        done = load.check(conn)
    figures.record("files that may not grow", failures=load.counts[code], **done)


def test_a_server_that_may_not_write_wal_dies_and_recovers(own: OwnServer) -> None:
    with (
        closing(own.connect()) as conn,
        random_load(conn, lambda _: own.connect(), SEED, {"DATABASE_FAILURE"}) as load,
    ):
        load.wait_for(20)
        # Beyond the limit in a file of WAL, and within it in all tables.
        conn.execute("select pg_switch_wal()")
        conn.execute("select pg_logical_emit_message(true, '', repeat('x', 8000000))")
        limit_files(own, 4_000_000)
        load.wait_until(1, "CONNECTION_LOST")
        load.wait_for(20)
    with closing(own.connect()) as conn:
        done = load.check(conn)
    figures.record("WAL that may not be written", **done)


if may_mount():

    def test_calls_fail_while_the_disk_is_full(on_small_disk: OwnServer) -> None:
        own, code = on_small_disk, "OUT_OF_RESOURCES"
        with closing(own.connect()) as conn:
            with random_load(conn, lambda _: own.connect(), SEED, {code}) as load:
                load.wait_for(20)
                fill(own)
                load.wait_until(20, code)
                assert torn(conn) == []
                (own.home / "ballast").unlink()
                load.wait_for(20)
            done = load.check(conn)
        figures.record("disk full", failures=load.counts[code], **done)

    def test_a_server_without_room_for_wal_dies_and_recovers(on_small_disk: OwnServer) -> None:
        own, code = on_small_disk, "OUT_OF_RESOURCES"
        with (
            closing(own.connect()) as conn,
            random_load(conn, lambda _: own.connect(), SEED, {code}) as load,
        ):
            load.wait_for(20)
            fill(own)
            use_up_wal(own)
            (own.home / "ballast").unlink()
            own.stop()
            own.start()
            load.wait_for(20)
        with closing(own.connect()) as conn:
            done = load.check(conn)
        figures.record("disk full of WAL", **done)
