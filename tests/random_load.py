"""Clients that call whatever comes up while their connections, their server or its disk fail.

Each operation of a client is one transaction that can be repeated: its calls have request ids, what
it creates has an id, and only its own workspaces does it delete. After a lost connection the client
does it again, over a new one, until it is told something. Every try signs what it writes (as the
actor), so that in the end the tables say which try of which operation did what.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Set
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus

import pyapi
from databases import in_thread
from pyapi import Change, HistoryEntry, RegistryLoad
from pyapi.errors import translate
from sessions import SECONDS, Outcome, check_history, settle
from support import MANIFEST, Conn, runtime

T = TypeVar("T")
Connect = Callable[[random.Random], Conn]
Prepare = Callable[[Conn, random.Random], object]
Action = Callable[[Conn], list[Change]]

CLIENTS = 4
SHARED = 5
"""How many workspaces all clients use; each has some of its own too."""
MODELS = {
    made["name"]: [model for arm in made.get("arms", []) for model in arm.get("models", [])]
    for made in MANIFEST["runtimes"]
}
LISTED = [name for name, models in MODELS.items() if models]
REFUSALS = {
    "VERSION_CONFLICT",
    "RUNTIME_UNSUPPORTED",
    "MODEL_NOT_REGISTERED",
    "NO_DEFAULT_MODEL",
    "RUNTIME_IN_USE",
}
DONE_BEFORE = {"WORKSPACE_EXISTS", "WORKSPACE_NOT_FOUND"}
"""What a client is told whose earlier try is done while it creates or deletes again."""


@dataclass(slots=True)
class Load:
    """Clients at work; the counts are of what they were told, by code of error or `done`."""

    connect: Connect
    failures: Set[str]
    """Codes that are no refusals and yet to be expected; nothing was done then."""
    prepare: Prepare
    """What each try begins with."""
    shared: list[UUID] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    clients: list[Client] = field(default_factory=list)
    ended: bool = False
    _told: threading.Condition = field(default_factory=threading.Condition)

    def count(self, what: str) -> None:
        """Count what a client was told."""
        with self._told:
            self.counts[what] += 1
            self._told.notify_all()

    def wait_for(self, more: int) -> None:
        """Wait until so many operations more are done."""
        self.wait_until(self.counts["done"] + more, "done")

    def wait_until(self, times: int, what: str, seconds: float = SECONDS) -> None:
        """Wait until the clients were told something so many times."""
        with self._told:
            assert self._told.wait_for(lambda: self.ended or self.counts[what] >= times, seconds)

    def check(self, conn: Conn, may_be_late: bool = False) -> dict[str, int]:
        """Check what is in the tables against what the clients were told; the figures of it.

        `may_be_late`: a server that went on with a connection that was cut may have done what was
        lost there after its repetition was refused.
        """
        answers = defaultdict[UUID, list[Change]](list)
        for client in self.clients:
            for answer in client.answers:
                answers[answer.workspace_id].append(answer)
        written = defaultdict[str, list[HistoryEntry]](list)
        """What each operation wrote."""
        for (ws,) in conn.execute("select distinct workspace_id from workspace.changes").fetchall():
            for row in pyapi.history(conn, ws):
                written[row.actor.rpartition(".")[0]].append(row)
        versions = {(row.workspace_id, row.version) for rows in written.values() for row in rows}
        settled = Counter({"found done": 0, "done by repeating": 0, "refused": 0, "done late": 0})

        for client in self.clients:
            for operation in client.lost:
                tries = {row.actor for row in written.get(operation, [])}
                if operation in client.loaded:
                    how = (
                        "done by repeating" if client.loaded[operation][1].loaded else "found done"
                    )
                elif operation in client.told:
                    how = "done by repeating" if tries == {client.told[operation]} else "found done"
                elif not tries:
                    how = "refused"
                else:
                    assert may_be_late
                    how = "done late"
                    for row in written[operation]:
                        answers[row.workspace_id].append(as_told(row))
                settled[how] += 1
            done = {row.actor for rows in written.values() for row in rows}
            assert client.undone & done == set(), "done, and its client was told that it was not"
            check_loads(conn, list(client.loaded.values()))
        for rows in written.values():
            assert len({row.actor for row in rows}) == 1, "one transaction, done in parts"

        told = {
            (answer.workspace_id, answer.version) for given in answers.values() for answer in given
        }
        lost, torn_now = told - versions, torn(conn)
        assert (lost, torn_now) == (set(), [])
        assert set(answers) == {ws for ws, _ in versions}
        for ws, given in answers.items():
            check_history(conn, ws, given)
        return {
            "operations": sum(len(client.told) + len(client.loaded) for client in self.clients),
            "changes": len(versions),
            "unacknowledged": settled.total(),
            **{f"settled: {how}": number for how, number in sorted(settled.items())},
            "lost": len(lost),
            "torn": len(torn_now),
        }


@dataclass(slots=True)
class Client:
    """One session after the other, and what it was told."""

    load: Load
    name: str
    dice: random.Random
    own: list[UUID] = field(default_factory=list)
    answers: list[Change] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    """By operation: the try that was acknowledged."""
    loaded: dict[str, tuple[str, RegistryLoad]] = field(default_factory=dict)
    """By operation: what makes a registry known, and the answer."""
    undone: set[str] = field(default_factory=set)
    """Tries that failed in a way that means that nothing was done."""
    lost: set[str] = field(default_factory=set)
    """Operations with a try whose end is not known."""
    _operations: int = 0
    _conn: Conn | None = None

    def work(self) -> None:
        """Call whatever comes up until the load ends."""
        try:
            while not self.load.ended:
                if self.name == "0" and self.dice.random() < 0.05:
                    self._load_registry()
                else:
                    self._do_something()
        finally:
            self.load.ended = True  # also if this is an error, which nobody has to wait for
            self.load.count("ended")
            if self._conn:
                self._conn.close()

    def _do_something(self) -> None:
        single = self.dice.choice([self._change, self._change, self._change, self._other])
        action, autocommit = self._together() if self.dice.random() < 0.2 else (single(), True)
        outcome, operation, attempt = self._settle(action, autocommit and self.dice.random() < 0.5)
        if outcome.answer is not None:
            self.answers += outcome.answer
            self.told[operation] = attempt
            for answer in outcome.answer:
                if answer.previous_runtime is None:
                    self.own.append(answer.workspace_id)

    def _settle(self, action: Callable[[Conn], T], autocommit: bool) -> tuple[Outcome[T], str, str]:
        """Do an action until it is known how it ended; the operation and the last try of it."""
        self._operations += 1
        operation = f"{self.name}.{self._operations}"
        for number in count():
            attempt = f"{operation}.{number}"

            def signed(conn: Conn, attempt: str = attempt) -> T:
                sign = "select set_config('runtime_registry.actor', %s, false)"
                conn.execute(sign, [attempt])
                self.load.prepare(conn, self.dice)
                return action(conn)

            conn = self._connected()
            conn.autocommit = autocommit
            outcome = settle(conn, signed)
            self.load.count(outcome.code or "done")
            if outcome.error is not None:
                failures = {*self.load.failures, *(DONE_BEFORE if operation in self.lost else ())}
                if outcome.code not in {"CONNECTION_LOST", *REFUSALS, *failures}:
                    raise outcome.error
                # A server that dies of an error in a commit may still say so.
                if outcome.code == "CONNECTION_LOST" or conn.closed:
                    self.lost.add(operation)
                    continue
                self.undone.add(attempt)
                if outcome.code in failures:
                    continue
            return outcome, operation, attempt
        raise AssertionError("unreachable")

    def _connected(self) -> Conn:
        """The connection, or a new one as soon as there is a server."""
        deadline = time.monotonic() + SECONDS
        if self._conn and self._conn.info.transaction_status != TransactionStatus.IDLE:
            self._conn.close()  # its rollback was interrupted too
        while self._conn is None or self._conn.closed:
            try:
                self._conn = self.load.connect(self.dice)
            except psycopg.OperationalError as error:
                if translate(error).code != "CONNECTION_LOST" or time.monotonic() > deadline:
                    raise
                self.load.count("refused connections")
                threading.Event().wait(0.005)
        return self._conn

    def _request(self) -> str:
        return f"{self.name}.{self._operations + 1}.{self.dice.getrandbits(32)}"

    def _any(self) -> UUID:
        return self.dice.choice([*self.load.shared, *self.own[-3:]])

    def _change(self, ws: UUID | None = None) -> Action:
        ws, target = ws or self._any(), self.dice.choice([*LISTED * 4, *MODELS])
        model = self.dice.choice(MODELS[target]) if MODELS[target] else None
        model = model if self.dice.random() < 0.2 else None
        restore, request = self.dice.random() < 0.5, self._request()
        return lambda conn: [
            pyapi.change_runtime(conn, ws, target, model=model, restore=restore, request_id=request)
        ]

    def _other(self, ws: UUID | None = None) -> Action:
        ws, request = ws or self._any(), self._request()
        model = self.dice.choice(MODELS[self.dice.choice(LISTED)])
        match self.dice.choice(["set", "set", "clear", "create", "delete"]):
            case "set":
                return lambda conn: [pyapi.set_model(conn, ws, model, request_id=request)]
            case "delete" if self.own:
                victim = self.own.pop(0)
                return self._once(victim, lambda conn: [pyapi.delete_workspace(conn, victim)])
            case "create":
                new, name = UUID(int=self.dice.getrandbits(128)), self.dice.choice(LISTED)
                first = self.dice.choice([None, *MODELS[name]])
                return self._once(
                    new, lambda conn: [pyapi.create_workspace(conn, "w", name, model=first, id=new)]
                )
        return lambda conn: [pyapi.clear_model(conn, ws, request_id=request)]

    def _together(self) -> tuple[Action, bool]:
        """Some calls in one transaction; by id, or two sessions could deadlock."""
        chosen = sorted({self._any() for _ in range(3)})
        actions = [self._change(ws) for ws in chosen]
        return lambda conn: [answer for action in actions for answer in action(conn)], False

    def _once(self, ws: UUID, action: Action) -> Action:
        """The action; if it is refused because it was done by this operation, its answer."""
        operation = f"{self.name}.{self._operations + 1}."

        def call(conn: Conn) -> list[Change]:
            own = [row for row in recorded(conn, ws) if row.actor.startswith(operation)]
            return [as_told(row) for row in own] or action(conn)

        return call

    def _load_registry(self) -> None:
        name = f"passing-{self.dice.getrandbits(32)}"
        listed = [*MANIFEST["runtimes"], runtime(name)]
        manifest = {**MANIFEST, "runtimes": listed}
        outcome, operation, _ = self._settle(
            lambda conn: pyapi.load_registry(conn, manifest), self.dice.random() < 0.5
        )
        assert outcome.answer is not None
        self.loaded[operation] = name, outcome.answer


def recorded(conn: Conn, ws: UUID) -> list[HistoryEntry]:
    """What was written to a workspace; nothing if there never was one."""
    exists = conn.execute("select from workspace.changes where workspace_id = %s", [ws])
    return pyapi.history(conn, ws) if exists.rowcount else []


def as_told(row: HistoryEntry) -> Change:
    """The answer to a call, as far as its row has it; the rest of it is not compared."""
    known: dict[str, Any] = {told.name: getattr(row, told.name, None) for told in fields(Change)}
    return Change(**known)


def torn(conn: Conn) -> list[UUID]:
    """The workspaces whose row, secret and last change disagree, or whose versions have a gap."""
    found = conn.execute(
        """
        with last as (
          select distinct on (c.workspace_id) c.*,
            count(*) over (partition by c.workspace_id) as versions
          from workspace.changes as c
          order by c.workspace_id, c.version desc
        )
        select workspace_id
        from last
        full join workspace.workspaces as w on w.id = last.workspace_id
        full join (select * from workspace.secrets where key = 'MODEL') as s using (workspace_id)
        where last.versions is distinct from last.version
          or (w.id is null) <> (last.action = 'delete_workspace')
          or (w.runtime, w.version) <> (last.runtime, last.version)
          or (s.sealed, s.key_id) is distinct from (last.sealed, last.key_id)
        """
    )
    return [ws for (ws,) in found]


def check_loads(conn: Conn, loads: list[tuple[str, RegistryLoad]]) -> None:
    """Check that every registry that was loaded is there, once, under the number it got."""
    if loads:
        revisions = conn.execute(
            "select r.revision, r.manifest -> 'runtimes' -> -1 ->> 'name'"
            " from registry.revisions as r where r.revision > 1 order by 1"
        ).fetchall()
        assert revisions == [(answer.revision, name) for name, answer in loads]


@contextmanager
def random_load(
    conn: Conn,
    connect: Connect,
    seed: int,
    failures: Set[str] = frozenset(),
    prepare: Prepare = lambda conn, dice: None,
) -> Iterator[Load]:
    """Clients at work for the length of the block; `conn` (autocommit) is to prepare it."""
    load = Load(connect, failures, prepare)
    dice, names = random.Random(seed), map(str, range(CLIENTS))
    load.clients = [Client(load, name, random.Random(f"{seed}.{name}")) for name in names]
    for number in range(SHARED):
        made = pyapi.create_workspace(conn, f"shared {number}", dice.choice(LISTED))
        load.clients[0].answers.append(made)
        load.shared.append(made.workspace_id)
    working = [in_thread(client.work) for client in load.clients]
    try:
        yield load
    finally:
        load.ended = True
        wait(working, 2 * SECONDS)
    for work in working:
        work.result(0)
