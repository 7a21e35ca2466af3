"""The measurements, a function for each group of rows; all of them measure by turns."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, LiteralString, TypeVar
from uuid import UUID

import psycopg
from psycopg import sql

import pyapi
from pyapi import embedded
from pyapi.batches import BATCH

from . import fill, memory, peers, proxy, server
from .fill import CATALOGUE_PAIR, MADE_PAIR, Pair
from .pgbench import Bench
from .table import Goal, Growth, Report, Row, Share

INSTALLED = "installed"
WORKSPACES = 1000
CLIENTS = 8
ROUND_TRIP = 0.001
MOVED = 100_000
LARGE_REGISTRY = 100_000
MANY = 1_000_000
OURS = "workspace.change_runtime"

T = TypeVar("T")
Side = TypeVar("Side")


@dataclass(slots=True)
class Run:
    """What a run measures with, and what it has found."""

    server: embedded.Server
    rounds: int
    seconds: int
    report: Report

    def by_turns(
        self, sides: Mapping[Side, Callable[[], T]], rounds: int | None = None
    ) -> dict[Side, list[T]]:
        """Measure all sides in each round, every other round in reverse."""
        found: dict[Side, list[T]] = {side: [] for side in sides}
        for number in range(rounds or self.rounds):
            for side in list(sides)[:: -1 if number % 2 else 1]:
                found[side].append(sides[side]())
        return found

    def database(
        self, name: str, manifest: dict[str, Any], pair: Pair, workspaces: int = WORKSPACES
    ) -> str:
        """A database with a registry and workspaces: its conninfo."""
        dsn = server.create_database(self.server, name, INSTALLED)
        fill.load(dsn, manifest, name)
        fill.fill(dsn, pair, workspaces)
        return dsn

    def add(self, name: str, times: dict[str, list[float]], goals: dict[str, Goal | None]) -> None:
        """A row for each side that ours is compared with."""
        for against, goal in goals.items():
            self.report.rows.append(Row(name, times["ours"], against, times[against], goal))


def server_side(run: Run, manifest: dict[str, Any]) -> None:
    """Against the floor, and under contention."""
    dsn = run.database("server", manifest, CATALOGUE_PAIR, 2 * WORKSPACES)
    fill.add_floor(dsn, CATALOGUE_PAIR)
    fill.add_lean(dsn)
    # The same tables, but what the floor leaves in a workspace was not sealed for it.
    sides = {
        "ours": Bench(run.server, dsn, OURS, CATALOGUE_PAIR, WORKSPACES),
        "floor": Bench(run.server, dsn, "bench.floor", CATALOGUE_PAIR, WORKSPACES, WORKSPACES),
    }
    leanest = {"lean": Bench(run.server, dsn, "bench.lean", CATALOGUE_PAIR, WORKSPACES)}

    def add(name: str, times: dict[str, list[float]], goal: Goal | None) -> None:
        run.add(name, times, {"floor": goal})
        # How near to the floor a call can come that leaves out all that can be left out.
        run.report.rows.append(Row(f"{name}: the leanest", times["lean"], "floor", times["floor"]))

    for name, clients, durable, goal in (
        ("1 client, durable", 1, True, 0.85),
        (f"{CLIENTS} clients, synchronous_commit off", CLIENTS, False, 0.60),
    ):
        times = run.by_turns(
            {
                side: partial(bench.time, run.seconds, clients, durable=durable)
                for side, bench in (sides | leanest).items()
            }
        )
        add(name, times, Goal(goal))
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as conn:
        conn.execute("set synchronous_commit = off")
        cpu = {
            side: partial(processor_time, conn, bench) for side, bench in (sides | leanest).items()
        }
        add("the backend's CPU time alone", run.by_turns(cpu), None)
    for bench in sides.values():
        run.report.shares += shares(bench)
    for name, shared in (("64 clients on 8 workspaces", 8), ("64 clients on one runtime", None)):
        run.report.tails += [
            bench.tail(name, side, 3 * run.seconds, shared=shared) for side, bench in sides.items()
        ]


def shares(bench: Bench) -> list[Share]:
    """What the functions of a call take. Counting costs, too: little functions look too dear."""
    counted = """
        select f.schemaname || '.' || f.funcname, f.calls, f.self_time * 1000
        from pg_stat_user_functions as f"""
    with psycopg.connect(bench.dsn, autocommit=True, prepare_threshold=0) as conn:
        conn.execute("set synchronous_commit = off")
        conn.execute("set track_functions = 'all'")
        calls = calls_of(bench, 1000)
        found: list[dict[str, tuple[int, float]]] = []
        for part in (calls[:20], calls):  # the first to have everything planned
            for call in part:
                conn.execute(*call)
            conn.execute("select pg_stat_force_next_flush()")
            conn.execute("select 1")
            rows = conn.execute(counted).fetchall()
            found.append({name: (number, own) for name, number, own in rows})
    before, after = found
    took = [
        Share(
            name,
            (number - before.get(name, (0, 0))[0]) / len(calls),
            (own - before.get(name, (0, 0))[1]) / len(calls),
        )
        for name, (number, own) in after.items()
    ]
    return sorted((s for s in took if s.calls >= 1), key=lambda share: -share.own)


def calls_of(bench: Bench, workspaces: int) -> list[tuple[sql.Composed, tuple[UUID, str]]]:
    """Calls that switch so many workspaces there and back."""
    query = sql.SQL("select * from {}(%s, %s)").format(sql.Identifier(*bench.call.split(".")))
    return [
        (query, (fill.workspace_id(bench.first + number), runtime))
        for number in range(workspaces)
        for runtime in (bench.pair.there, bench.pair.home)
    ]


def processor_time(conn: psycopg.Connection[Any], bench: Bench) -> float:
    """Microseconds of the backend's CPU a call; a busy machine disturbs that least."""
    spent = Path(f"/proc/{conn.info.backend_pid}/schedstat")  # the first number, in nanoseconds
    calls = calls_of(bench, 250)
    for call in calls[:20]:  # to have everything planned
        conn.execute(*call)
    before = int(spent.read_text().split()[0])
    for call in calls:
        conn.execute(*call)
    return (int(spent.read_text().split()[0]) - before) / len(calls) / 1000


def client_side(run: Run, manifest: dict[str, Any]) -> None:
    """Against the same steps from Python, nearby and over a network."""
    dsn, vault = run.database("client", manifest, CATALOGUE_PAIR, 2 * WORKSPACES), peers.Vault()
    fill.add_floor(dsn, CATALOGUE_PAIR)
    theirs = run.database("peers", manifest, CATALOGUE_PAIR)
    with psycopg.connect(theirs) as conn:
        model = pyapi.default_model(conn, CATALOGUE_PAIR.home)
        assert model
        peers.seal_all(conn, vault, model)

    def measure(name: str, near: str, other: str, goal: float) -> None:
        with peers.connected(near, other, vault) as switchers:
            sides = {
                side: partial(switch_for, run.seconds, peer) for side, peer in switchers.items()
            }
            with psycopg.connect(near, autocommit=True, prepare_threshold=0) as conn:
                bare = peers.Bare(conn, sql.SQL("select * from bench.floor(%s, %s)"))
                times = run.by_turns(
                    sides | {"floor": partial(switch_for, run.seconds, bare, first=WORKSPACES)}
                )
        goals = {"client": Goal(goal), "pipelined client": None, "SQLAlchemy ORM": None}
        run.add(name, times, goals)
        # How much faster than the client a call can be that does nothing but write.
        run.report.rows.append(Row(f"{name}: the floor", times["floor"], "client", times["client"]))

    measure("Python, local socket, durable", dsn, theirs, 3)
    with proxy.delayed(dsn, ROUND_TRIP) as far, proxy.delayed(theirs, ROUND_TRIP) as other:
        added = round_trip(far) - round_trip(dsn)
        run.report.notes.append(f"1 ms away: the proxy adds {added * 1000:.2f} ms a round trip.")
        measure("Python, 1 ms away, durable", far, other, 6)


def round_trip(dsn: str) -> float:
    """The seconds that a round trip takes, the median of many."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as conn:
        conn.execute("select 1")

        def once() -> float:
            started = time.perf_counter()
            conn.execute("select 1")
            return time.perf_counter() - started

        return median(once() for _ in range(101))


def switch_for(seconds: float, peer: peers.Peer, first: int = 0) -> float:
    """Switch workspaces there and back; microseconds that half of the calls stay below."""
    return switch_together(seconds, {"": peer}, first)[""]


def switch_together(
    seconds: float, sides: Mapping[str, peers.Peer], first: int = 0
) -> dict[str, float]:
    """`switch_for`, but the sides take turns at the workspaces, every other time in reverse: sides
    that differ by a few microseconds have to meet the same moments of a machine."""
    pair = CATALOGUE_PAIR
    ids = [fill.workspace_id(first + number) for number in range(WORKSPACES)]
    random.Random(0).shuffle(ids)
    for peer in sides.values():  # to have everything prepared and planned
        for ws in ids[:5]:
            peer.switch(ws, pair.there)
            peer.switch(ws, pair.home)
    times: dict[str, list[float]] = {side: [] for side in sides}
    turns = itertools.cycle((list(sides), list(sides)[::-1]))
    until = time.perf_counter() + seconds
    for ws, turn in zip(itertools.cycle(ids), turns, strict=False):
        for side in turn:
            for runtime in (pair.there, pair.home):
                started = time.perf_counter()
                sides[side].switch(ws, runtime)
                times[side].append(time.perf_counter() - started)
        if started > until:
            break
    return {side: median(found) * 1e6 for side, found in times.items()}


def python_layer(run: Run, manifest: dict[str, Any]) -> None:
    """What pyapi adds to psycopg. Commits are not waited for: they would hide it."""
    dsn = run.database("python", manifest, CATALOGUE_PAIR)
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as conn:
        conn.execute("set synchronous_commit = off")
        bare = peers.Bare(conn, sql.SQL("select * from workspace.change_runtime(%s, %s)"))
        sides: dict[str, peers.Peer] = {"ours": peers.Ours(conn), "bare psycopg": bare}
        seconds = run.seconds * len(sides)
        rounds = [switch_together(seconds, sides) for _ in range(run.rounds)]
    times = {side: [found[side] for found in rounds] for side in sides}
    run.add("pyapi, synchronous_commit off", times, {"bare psycopg": Goal(0.95)})


def growth(
    run: Run, manifest: dict[str, Any], models: Sequence[int], workspaces: Sequence[int]
) -> None:
    """With larger registries, and with more workspaces; one client that waits for no commit."""
    registries: dict[tuple[int, str], Bench] = {}
    for size in models:
        dsn = server.create_database(run.server, f"models_{size}", INSTALLED)
        loaded = fill.load(dsn, fill.made_manifest(size), f"load of {size:,} models")
        if size == LARGE_REGISTRY:
            run.report.memory.append(loaded)
        fill.fill(dsn, MADE_PAIR, WORKSPACES)
        registries[size, "ours"] = Bench(run.server, dsn, OURS, MADE_PAIR, WORKSPACES)
    grow(run, "models", registries, 100, LARGE_REGISTRY, Goal(1.1, at_most=True))

    # Those that are larger than the memory come after the others, which they would push out of it.
    for sizes in ([n for n in workspaces if n <= MANY], [n for n in workspaces if n > MANY]):
        fleets: dict[tuple[int, str], Bench] = {}
        for size in sizes:
            dsn = run.database(f"workspaces_{size}", manifest, CATALOGUE_PAIR, size)
            fill.add_floor(dsn, CATALOGUE_PAIR)
            # Each side on its half: what the floor leaves in a workspace was not sealed for it.
            half = size // 2
            ours = Bench(run.server, dsn, OURS, CATALOGUE_PAIR, half)
            floor = Bench(run.server, dsn, "bench.floor", CATALOGUE_PAIR, half, half)
            fleets |= {(size, "ours"): ours, (size, "floor"): floor}
        grow(run, "workspaces", fleets, WORKSPACES, MANY, Goal(1.3, at_most=True))
    if MANY in workspaces:
        dsn = run.database("many", manifest, CATALOGUE_PAIR, MANY)
        with (
            psycopg.connect(dsn, autocommit=True) as conn,
            memory.watched(conn, f"fleet.move of {MANY:,} workspaces") as taken,
        ):
            move(conn, CATALOGUE_PAIR.home, CATALOGUE_PAIR.there)
        run.report.memory.append(taken.result())


def grow(
    run: Run, of: str, benches: dict[tuple[int, str], Bench], small: int, large: int, goal: Goal
) -> None:
    """Measure a call at each of the sizes; a row for two of them."""
    costs = run.by_turns(
        {at: partial(bench.cost, run.seconds, durable=False) for at, bench in benches.items()}
    )
    grown = {
        (size, side): Growth(of, size, side, *zip(*map(astuple, found), strict=True))
        for (size, side), found in costs.items()
    }
    run.report.growth += grown.values()
    if {(small, "ours"), (large, "ours")} <= set(grown):
        ours, theirs = grown[large, "ours"].times, grown[small, "ours"].times
        run.report.rows.append(Row(f"{large:,} {of}", ours, f"{small:,} {of}", theirs, goal))


def fleet(run: Run, manifest: dict[str, Any]) -> None:
    """A whole fleet there and back, against statements that only write the same pairs."""
    dsn = run.database("moved", manifest, CATALOGUE_PAIR, MOVED)
    there, home = CATALOGUE_PAIR.there, CATALOGUE_PAIR.home
    with psycopg.connect(dsn) as conn:
        fill.add_lean_move(conn)
        fill.add_raw_move(conn)
        models = {runtime: pyapi.default_model(conn, runtime) for runtime in (there, home)}

    def move_raw(conn: psycopg.Connection[Any], source: str, target: str) -> None:
        conn.execute("select bench.move(%s, %s, %s)", [source, target, models[target]])

    def move_lean(conn: psycopg.Connection[Any], source: str, target: str) -> None:
        batches(conn, "bench.lean_move(%s, %s, %s,", [source, target, models[target]])

    def move_ours(conn: psycopg.Connection[Any], source: str, target: str) -> None:
        batches(conn, "fleet.move(%s, %s,", [source, target])

    def timed(action: Callable[[psycopg.Connection[Any], str, str], None]) -> float:
        # A fleet is moved rarely. Moved again and again by the raw statement, the tables are twice
        # as large, and from then on it finds room in them.
        with (
            server.copy_database(run.server, "moved") as copied,
            psycopg.connect(copied, autocommit=True) as conn,
        ):
            conn.execute("vacuum analyze")
            conn.execute("checkpoint")
            started = time.perf_counter()
            action(conn, home, there)
            action(conn, there, home)
            took = time.perf_counter() - started
            counted = conn.execute(
                "select count(*) from workspace.workspaces where runtime = %s and version = 3",
                [home],
            ).fetchone()
            assert counted == (MOVED,), "not every workspace went there and back"
            return took / (2 * MOVED) * 1e6

    sides = {"ours": move_ours, "pyapi": move, "lean": move_lean, "raw": move_raw}
    times = run.by_turns(
        {side: partial(timed, action) for side, action in sides.items()}, min(run.rounds, 5)
    )
    name = f"fleet.move of {MOVED:,}, a workspace"
    run.add(name, times, {"raw": Goal(0.5)})
    # How near to it a move by batches can come that leaves out all that can be left out.
    run.report.rows.append(Row(f"{name}: the leanest", times["lean"], "raw", times["raw"]))
    name = f"pyapi.move_all of {MOVED:,}, a workspace"
    run.report.rows.append(Row(name, times["pyapi"], "raw", times["raw"]))


def batches(conn: psycopg.Connection[Any], call: LiteralString, params: list[object]) -> None:
    """Call a function that moves a batch until all are moved, as in psql: each call commits."""
    query = f"select * from {call} after => %s, batch => %s)"
    after, more = None, True
    while more:
        rows = conn.execute(query, [*params, after, BATCH]).fetchall()
        if more := len(rows) == BATCH:
            after = rows[-1][0]


def move(conn: psycopg.Connection[Any], source: str, target: str) -> None:
    """Move all workspaces of a runtime to another one."""
    for _ in pyapi.move_all(conn, source, target):
        pass
