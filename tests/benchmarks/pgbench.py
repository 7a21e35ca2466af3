"""The server's side, measured with pgbench: no client in the figures but a thin one in C."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pyapi import embedded

from .fill import Pair
from .table import Tail

WARM_UP = 5
PATIENCE = 10  # seconds


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call took on average: microseconds, pages that were not in shared buffers, and bytes
    of WAL."""

    time: float
    pages_read: float
    wal: float


@dataclass(frozen=True, slots=True)
class Bench:
    """Switches workspaces there and back: a transaction a call, each client on its own ones."""

    server: embedded.Server
    dsn: str
    call: str
    """`workspace.change_runtime` or what does it instead."""
    pair: Pair
    workspaces: int
    first: int = 0
    """The number of the first of its workspaces."""

    def time(self, seconds: int, clients: int = 1, *, durable: bool) -> float:
        """Microseconds a call, for each client."""
        return self.cost(seconds, clients, durable=durable).time

    def cost(self, seconds: int, clients: int = 1, *, durable: bool) -> Cost:
        """What a call takes, for each client."""
        own = self.workspaces // clients
        script = f"""
            \\set n {self.first} + :client_id * {own} + random(1, {own}) - 1
            select * from {self.call}(md5(:n)::uuid, '{self.pair.there}');
            select * from {self.call}(md5(:n)::uuid, '{self.pair.home}');
        """
        before = self._counted()
        times, transactions = self._run(script, seconds, clients, durable)
        calls, until = 2 * transactions, time.monotonic() + PATIENCE
        while (after := self._counted())[0] < before[0] + calls and time.monotonic() < until:
            time.sleep(0.01)  # a session counts what it did when it is over
        changes, pages_read, wal = (new - old for new, old in zip(after, before, strict=True))
        assert changes == calls, "a call had nothing to do"
        return Cost(fmean(times) / 2, pages_read / calls, wal / calls)

    def tail(self, name: str, side: str, seconds: int, *, shared: int | None = None) -> Tail:
        """How long the calls of 64 clients take: on as few workspaces as `shared` says, which each
        client switches at random; else each on its own, all to the one runtime and all back."""
        clients = 64
        if shared:
            choice = f"\\set n {self.first} + random(0, {shared} - 1)\n\\set there random(0, 1)"
        else:
            own = self.workspaces // clients
            choice = f"\\set n {self.first} + :client_id * {own} + :turn / 2 % {own}\n"
            choice += "\\set there 1 - :turn % 2"
        script = f"""
            {choice}
            \\set turn :turn + 1
            \\if :there
            select * from {self.call}(md5(:n)::uuid, '{self.pair.there}');
            \\else
            select * from {self.call}(md5(:n)::uuid, '{self.pair.home}');
            \\endif
        """
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        before = self._number(deadlocks)
        times = sorted(self._run(script, seconds, clients, durable=True)[0])
        p50, p99, p999 = (times[int(len(times) * part)] for part in (0.5, 0.99, 0.999))
        return Tail(name, side, len(times), p50, p99, p999, self._number(deadlocks) - before)

    def _counted(self) -> tuple[int, int, int]:
        """So far: changes, pages read, bytes of WAL."""
        with psycopg.connect(self.dsn) as conn:
            row = conn.execute(
                "select c.n_tup_ins, d.blks_read, (pg_current_wal_insert_lsn() - '0/0')::bigint"
                " from pg_stat_database as d, pg_stat_user_tables as c"
                " where d.datname = current_database() and c.relid = 'workspace.changes'::regclass"
            ).fetchone()
        assert row
        return row

    def _number(self, query: LiteralString) -> int:
        with psycopg.connect(self.dsn) as conn:
            row = conn.execute(query).fetchone()
        assert row
        return int(row[0])

    def _run(
        self, script: str, seconds: int, clients: int, durable: bool
    ) -> tuple[list[float], int]:
        """How long each transaction took, without those in which a session makes its plans; and
        how many there were with them."""
        parts = conninfo_to_dict(self.dsn)
        settings = f"{parts.pop('options', '')} -c synchronous_commit={'on' if durable else 'off'}"
        options = (
            *("--no-vacuum", "--protocol=prepared", "--log", "--define=turn=0", "--file=-"),
            *(f"--client={clients}", f"--jobs={min(clients, os.cpu_count() or 1)}"),
            f"--time={seconds}",
        )
        dsn = " ".join(f"{name}={value}" for name, value in parts.items())
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [self.server.bin_dir / "pgbench", *options, f"--log-prefix={folder}/log", dsn],
                input="\n".join(line.strip() for line in script.splitlines()) + "\n",
                env=os.environ | {"PGOPTIONS": settings},
                capture_output=True,
                text=True,
            )
            # A refused call ends its client, and that is an error of pgbench's.
            if done.returncode:
                raise RuntimeError(f"pgbench failed:\n{done.stdout}\n{done.stderr}")
            lines = [
                line.split()
                for file in Path(folder).iterdir()
                for line in file.read_text().splitlines()
            ]
        # Its columns: the client, the number of its transaction, microseconds, ...
        times = [float(line[2]) for line in lines if int(line[1]) > WARM_UP]
        if not times:
            raise RuntimeError("the machine is too busy, or the time too short: take more SECONDS")
        return times, len(lines)
