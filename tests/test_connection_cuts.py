"""A connection that is cut anywhere leaves nothing half done, and a repeated request settles it.

RUNTIME_REGISTRY_CUTS says how often the last test cuts (60 if unset), RUNTIME_REGISTRY_SEED where.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import psycopg
import pytest

import figures
import pyapi
from databases import Database
from own_server import wait_until
from proxy import Cut, Proxy
from pyapi import Change, RegistryLoad
from pyapi.errors import ConnectionLost, translate
from random_load import as_told, check_loads, random_load, torn
from sessions import Outcome, check_history, on, settle
from support import MANIFEST, Conn, one, runtime

CUTS = int(os.environ.get("RUNTIME_REGISTRY_CUTS", "60"))
SEED = int(os.environ.get("RUNTIME_REGISTRY_SEED", "1"))
T = TypeVar("T")
KIMI = "moonshot/kimi-k2.6"


@dataclass(frozen=True, slots=True)
class Case:
    """What a client does to a workspace that has claude-code and KIMI."""

    call: Callable[[Conn, UUID], list[Change]]
    autocommit: bool
    repeatable: bool = True


def switch(conn: Conn, ws: UUID) -> list[Change]:
    return [pyapi.change_runtime(conn, ws, "google-adk", request_id="r-1")]


def unnamed(conn: Conn, ws: UUID) -> list[Change]:
    return [pyapi.change_runtime(conn, ws, "google-adk")]


def several(conn: Conn, ws: UUID) -> list[Change]:
    chosen = pyapi.set_model(conn, ws, "gemini-2.5-pro", request_id="r-2")
    return [chosen, pyapi.clear_model(conn, ws, request_id="r-3")]


ALONE = (
    "select count(*) = 0 from pg_stat_activity as a"
    " where a.datname = current_database() and a.backend_type = 'client backend'"
    " and a.pid <> pg_backend_pid()"
)
"""Nobody else is connected."""

CASES = {
    "alone": Case(switch, autocommit=True),
    "in-a-block": Case(switch, autocommit=False),
    "several": Case(lambda conn, ws: [*switch(conn, ws), *several(conn, ws)], autocommit=False),
    "alone-without-request-id": Case(unnamed, autocommit=True, repeatable=False),
    "in-a-block-without-request-id": Case(unnamed, autocommit=False, repeatable=False),
}


def through(proxy: Proxy, autocommit: bool, action: Callable[[Conn], T]) -> Outcome[T]:
    """Connect through a proxy and settle an action."""
    try:
        conn = proxy.connect(autocommit)
    except psycopg.OperationalError as error:
        return Outcome(None, translate(error), 1)
    with closing(conn):
        return settle(conn, action)


def cuts(dsn: str, exchange: Callable[[Proxy], Outcome[T]]) -> Iterator[Cut]:
    """Every place before a message of an exchange."""
    whole = Proxy(dsn)
    assert exchange(whole).answer is not None
    whole.wait()
    assert min(whole.passed["client"], whole.passed["server"]) > 5
    for sender, messages in sorted(whole.passed.items()):
        yield from (Cut(sender, number) for number in range(messages))


def wait_until_alone(conn: Conn) -> None:
    """Wait until the server has ended what it still did for connections that were cut."""
    query = (
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    wait_until(lambda: one(conn, query) == 0)


@pytest.mark.parametrize("name", CASES)
def test_a_call_is_done_or_not_wherever_the_connection_is_cut(
    database: Database, name: str
) -> None:
    case, counts = CASES[name], Counter[str]()
    with database.connect(autocommit=True) as conn:

        def create() -> Change:
            return pyapi.create_workspace(conn, "w", "claude-code", model=KIMI)

        def exchange(proxy: Proxy, ws: UUID) -> Outcome[list[Change]]:
            return through(proxy, case.autocommit, on(ws, case.call))

        spare = create().workspace_id
        for cut in cuts(database.dsn, lambda proxy: exchange(proxy, spare)):
            created, proxy = create(), Proxy(database.dsn, cut)
            ws = created.workspace_id
            outcome = exchange(proxy, ws)
            proxy.wait()
            counts["cuts"] += proxy.was_cut
            if outcome.answer is None:
                assert isinstance(outcome.error, ConnectionLost), cut
                counts["unacknowledged"] += 1
            if case.repeatable:  # at once: the server may be at the first try yet
                answers = settle(conn, on(ws, case.call)).answer
                assert answers is not None
                assert outcome.answer in (None, answers)
            else:
                wait_until_alone(conn)
                done = len(pyapi.history(conn, ws)) > 1
                assert done or outcome.answer is None, cut
                if isinstance(outcome.error, ConnectionLost):
                    assert not (done and outcome.error.safe_to_retry), cut
                    safe = "safe" if outcome.error.safe_to_retry else "unsafe"
                    counts[f"{safe}, {'done' if done else 'not done'}"] += 1
                answers = outcome.answer or ([] if done else case.call(conn, ws))
                if not answers:
                    answers = [as_told(row) for row in pyapi.history(conn, ws)[1:]]
            check_history(conn, ws, [created, *answers])
        assert torn(conn) == []
    assert counts["unacknowledged"] > 20
    if not case.repeatable:
        assert counts["unsafe, done"] > 0
    if not case.autocommit and not case.repeatable:
        assert counts["safe, not done"] > 0
    figures.record(f"cuts, {name}", **counts, lost=0, torn=0)


@pytest.mark.parametrize("autocommit", [True, False], ids=["alone", "in-a-block"])
def test_a_registry_is_loaded_or_not_wherever_the_connection_is_cut(
    database: Database, autocommit: bool
) -> None:
    counts = Counter[str]()
    with database.connect(autocommit=True) as conn:

        def loading(name: str) -> Callable[[Conn], RegistryLoad]:
            manifest = {**MANIFEST, "runtimes": [*MANIFEST["runtimes"], runtime(name)]}
            return lambda conn: pyapi.load_registry(conn, manifest)

        loads = list[tuple[str, RegistryLoad]]()

        def exchange(proxy: Proxy, name: str) -> Outcome[RegistryLoad]:
            outcome = through(proxy, autocommit, loading(name))
            if outcome.answer is not None:
                loads.append((name, outcome.answer))
            return outcome

        places = cuts(database.dsn, lambda proxy: exchange(proxy, "whole"))
        for number, cut in enumerate(places):
            name, proxy = f"cut-{number}", Proxy(database.dsn, cut)
            outcome = exchange(proxy, name)
            proxy.wait()
            counts["cuts"] += proxy.was_cut
            if outcome.answer is None:
                assert isinstance(outcome.error, ConnectionLost), cut
                counts["unacknowledged"] += 1
            again = settle(conn, loading(name)).answer
            assert again is not None
            assert outcome.answer is None or outcome.answer.revision == again.revision
            if outcome.answer is None:
                counts["done by repeating" if again.loaded else "found done"] += 1
                loads.append((name, again))
            # What was cut may still be at work: it finds its manifest loaded, or the next one.
            wait_until(lambda: one(conn, ALONE) is True)
        check_loads(conn, loads)
        listed = {entry.runtime for entry in pyapi.list_runtimes(conn)}
        assert listed == {loads[-1][0], *(made["name"] for made in MANIFEST["runtimes"])}
    assert counts["found done"] > 0
    assert counts["done by repeating"] > 0
    figures.record("cuts, load_registry", **counts, lost=0, torn=0)


@pytest.mark.timeout(120 + CUTS)
def test_random_calls_over_connections_that_are_cut_are_settled(database: Database) -> None:
    def connect(dice: random.Random) -> Conn:
        sender = dice.choice(["client", "server", "server"])
        cut = Cut(sender, dice.randrange(120), bytes=dice.choice([0, 0, 1, 3, 30]))
        return Proxy(database.dsn, cut, lambda: load.count("cuts")).connect()

    with database.connect(autocommit=True) as conn:
        with random_load(conn, connect, SEED) as load:
            load.wait_until(CUTS, "cuts", 60 + CUTS)
        wait_until_alone(conn)
        done = load.check(conn, may_be_late=True)
    assert done["unacknowledged"] > CUTS / 10
    assert min(done["settled: found done"], done["settled: done by repeating"]) > 0
    figures.record("cuts, random calls", cuts=load.counts["cuts"], **done)
