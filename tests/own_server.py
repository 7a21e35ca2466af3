"""A server of a test's own: it may be killed, and is started again on the same data.

It is the embedded server, whatever server the other tests run on. It flushes what it commits
(fsync is on), and its socket is somewhere else after each start: ask for `dsn` every time.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

import databases
import servers
from databases import Database
from pyapi import embedded
from servers import Server
from sessions import OPTIONS, SECONDS
from support import Conn, one


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.005)


@dataclass(slots=True)
class OwnServer:
    """The server of a home; `dsn` is where it was started last."""

    home: Path
    dsn: str = ""
    _running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start it; after a crash this recovers the data."""
        self.dsn = self._running.enter_context(embedded.server(self.home, servers.chosen())).dsn

    def stop(self) -> None:
        """Shut it down, or wait until all its processes are gone if its postmaster was killed."""
        self._running.close()

    def install(self) -> None:
        """Install everything, as on the server of the other tests."""
        with closing(self.connect()) as conn:
            server = Server(self.dsn, conn.info.server_version, "own", lambda: "")
            database = Database(server, conn.info.dbname)
            databases.install(database)
            if databases.SEALED:
                databases.start_sealing(database)
            assert one(conn, "show fsync") == "on"
            # Or else each recovery first flushes every file of the data by itself, for seconds.
            conn.execute("alter system set recovery_init_sync_method = syncfs")

    def connect(self) -> Conn:
        """Open a connection (autocommit), which the caller closes."""
        return psycopg.connect(self.dsn, autocommit=True, options=OPTIONS)

    def connect_patiently(self) -> Conn:
        """Open a connection as soon as the server takes one."""
        opened: list[Conn] = []

        def accepted() -> bool:
            with suppress(psycopg.OperationalError):
                opened.append(self.connect())
            return bool(opened)

        wait_until(accepted)
        return opened[0]

    @property
    def postmaster(self) -> int:
        """The pid of the server's first process."""
        return int((self.home / "data" / "postmaster.pid").read_text().split()[0])

    def kill(self, with_all: bool) -> None:
        """kill -9 the postmaster, alone or with all other processes, and wait for their end."""
        pids = [self.postmaster]
        if with_all:
            with closing(self.connect_patiently()) as conn:
                pids += one(conn, "select array_agg(pid) from pg_stat_get_activity(null)")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop()

    def kill_backend(self, dice: random.Random) -> None:
        """kill -9 the process of some client, and wait until the server has noticed.

        It ends all other sessions then, and recovers.
        """
        with closing(self.connect_patiently()) as conn:
            pids = conn.execute(
                "select pid from pg_stat_activity"
                " where backend_type = 'client backend' and pid <> pg_backend_pid()"
            ).fetchall()
            os.kill(dice.choice(pids)[0], signal.SIGKILL)
            readable, _, _ = select.select([conn], [], [], SECONDS)
            assert readable


@contextmanager
def running(home: Path) -> Iterator[OwnServer]:
    """The server of a home, for the length of the block."""
    server = OwnServer(home)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def copy(home: Path, to: Path) -> None:
    """Copy the home of a server that is stopped; owners stay."""
    subprocess.run(["cp", "-a", home, to], check=True)


@contextmanager
def replica(of: OwnServer, home: Path) -> Iterator[OwnServer]:
    """A replica for the length of the block; the server commits nothing that it does not have."""
    data = home / "data"
    home.mkdir(mode=0o711)
    backup = (servers.chosen().programs / "pg_basebackup", "--checkpoint=fast")
    subprocess.run([*backup, "-d", of.dsn, "-D", data], check=True)
    # Not --write-recovery-conf: it writes options that the server's libpq, if older, does not know.
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = '{of.dsn}'\n")
    (data / "standby.signal").touch()
    subprocess.run(["chown", "-R", "--reference", of.home / "data", data], check=True)
    with running(home) as server, closing(of.connect()) as conn:
        conn.execute("alter system set synchronous_standby_names = '*'")
        conn.execute("select pg_reload_conf()")
        state = "select max(sync_state) from pg_stat_replication"
        wait_until(lambda: one(conn, state) == "sync")
        yield server
