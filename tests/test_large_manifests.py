"""Very large manifests, and those made to be slow, take time and memory in proportion.

RUNTIME_REGISTRY_MEGABYTES is how large (5 if unset). A load that would take too long is ended by
the statement_timeout that every session can have, and changes nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.types.json import Jsonb

import figures
from databases import Database
from support import (
    Conn,
    Json,
    claims,
    load,
    manifest,
    nothing_written,
    one,
    provider,
    refused,
    runtime,
)

MEGABYTES = int(os.environ.get("RUNTIME_REGISTRY_MEGABYTES", "5"))
SIZE = MEGABYTES * 10**6
SECONDS = 30 + 3 * MEGABYTES
MOST_MEMORY = 500 + 40 * MEGABYTES
"""In megabytes, for the server's process."""


def ids(size: int) -> list[str]:
    """Ids of 250 bytes that begin alike; together they take that many bytes."""
    return [f"{'x' * 242}{number:08}" for number in range(size // 254)]


@dataclass(frozen=True, slots=True)
class Large:
    """A manifest, and how its load ends: loaded (None) or with one of these codes."""

    make: Callable[[], Json]
    codes: set[str | None]


LARGE = {
    "one id": Large(lambda: manifest([provider("x" * SIZE)], []), {"REGISTRY_INVALID"}),
    "one key": Large(lambda: manifest([], [], **{"x" * SIZE: 1}), {"REGISTRY_INVALID"}),
    "bad ids": Large(
        lambda: manifest([provider("p")], [runtime("r", ("p", ["\x01"] * (SIZE // 10)))]),
        {"REGISTRY_INVALID"},
    ),
    "models": Large(lambda: manifest([provider("p")], [runtime("r", ("p", ids(SIZE)))]), {None}),
    "prefixes": Large(
        lambda: manifest([provider("p", model_prefixes=ids(SIZE))], [runtime("r", ("p", []))]),
        {None},
    ),
}


def most_memory(conn: Conn) -> int:
    """What the server's process has had at most, in megabytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", one(conn, "select pg_read_file('/proc/self/status')"))
    assert found
    return int(found[1]) // 1024


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("name", LARGE)
def test_a_very_large_manifest_is_loaded_or_refused(database: Database, name: str) -> None:
    text, told = json.dumps(LARGE[name].make()), None
    assert len(text) > 0.9 * SIZE
    conn = database.connect(options=f"-c statement_timeout={SECONDS}s")
    with database.connect(autocommit=True) as observer, nothing_written(observer):
        began = time.monotonic()
        said = ""
        try:
            conn.execute("select fleet.load_registry(%s::jsonb)", [text])
        except psycopg.Error as error:
            told = json.loads(error.diag.message_detail or "{}").get("code", error.sqlstate)
            said = str(error)
        seconds = time.monotonic() - began
        conn.rollback()
    memory = most_memory(conn)
    figures.record(
        f"a manifest of {MEGABYTES} MB: {name}",
        ending=told or "loaded",
        seconds=round(seconds),
        **{"MB of memory": memory},
    )
    assert told in LARGE[name].codes
    assert len(said) < 50_000
    assert memory < MOST_MEMORY


def of_every_length(count: int) -> list[str]:
    return [f"{number:06}{'x' * (number % 240)}" for number in range(count)]


def in_every_case(first: str) -> list[str]:
    tails = itertools.product("xX", repeat=13)
    return [first + "".join(tail) for tail in tails]


def deprecated(names: Iterable[list[str] | None]) -> list[Json]:
    """Deprecations of m for each of these lists of runtimes; None: for all."""
    entry = {"model": "m", "deprecated_at": "2026-03-01"}
    return [entry if each is None else {**entry, "runtimes": each} for each in names]


def having(count: int) -> list[Json]:
    """So many runtimes that have m."""
    return [runtime(f"r{number}", ("p", ["m"])) for number in range(count)]


ALONE = [runtime("r", ("p", []))]
BOTH = [runtime("r", ("p", []), ("q", []))]
# Where each thing meets every other one, if it is not prevented: that took minutes.
SQUARES = {
    "prefixes of every length": manifest(
        [provider("p", model_prefixes=of_every_length(100_000))], ALONE
    ),
    "aliases of every length": manifest(
        [provider("p", model_aliases=of_every_length(100_000))], ALONE
    ),
    "a prefix again and again": manifest([provider("p", model_prefixes=["x"] * 100_000)], ALONE),
    "an alias again and again": manifest([provider("p", model_aliases=["x"] * 100_000)], ALONE),
    "prefixes that differ in case": manifest(
        [
            provider("p", model_prefixes=in_every_case("a")),
            provider("q", model_prefixes=in_every_case("A")),
        ],
        BOTH,
    ),
    "one model, deprecated for each runtime alone": manifest(
        [provider("p")],
        having(15_000),
        deprecations=deprecated([f"r{number}"] for number in range(15_000)),
    ),
}
BROKEN_SQUARES = {
    "one prefix of many providers": manifest(
        [provider(f"p{number}", model_prefixes=["x"]) for number in range(10_000)],
        [runtime("r", *((f"p{number}", []) for number in range(10_000)))],
    ),
    "prefixes of two providers, again and again": manifest(
        [provider(name, model_prefixes=["x"] * 50_000) for name in "pq"], BOTH
    ),
    "one model, deprecated everywhere again and again": manifest(
        [provider("p")], having(8_000), deprecations=deprecated([None] * 8_000)
    ),
}


@pytest.mark.parametrize("name", SQUARES | BROKEN_SQUARES)
def test_no_content_makes_the_work_grow_with_its_square(conn: Conn, name: str) -> None:
    conn.execute("set local statement_timeout = '40s'")  # alone, some seconds
    if name in SQUARES:
        assert load(conn, SQUARES[name]).loaded
    else:
        refusal = refused(conn, "fleet.load_registry", Jsonb(BROKEN_SQUARES[name]))
        assert refusal.code == "REGISTRY_INVALID"
        assert refusal.detail["problems_total"] > 1000


def test_prefixes_for_too_many_runtimes_are_refused(conn: Conn) -> None:
    many = [provider("p", model_prefixes=of_every_length(1001))]
    refusal = refused(conn, "fleet.load_registry", Jsonb(manifest(many, having(2000))))
    assert (refusal.code, refusal.detail["problems_total"]) == ("REGISTRY_INVALID", 1)
    (problem,) = refusal.detail["problems"]
    assert problem["path"] == "runtimes"
    assert "2002000 prefixes and aliases" in problem["problem"]


MANY = [f"{'x' * 240}{number:05}" for number in range(20_000)]
SLOW = {
    "alike": provider("p", model_prefixes=MANY),
    "in any case": provider("p", model_prefixes=MANY, case_sensitive=False),
    "aliases": provider("p", model_aliases=MANY),
    "nested": provider("p", model_prefixes=["x" * length for length in range(3, 256)]),
    "beside each other": provider(
        "p", model_prefixes=[f"{'x' * length}{end}" for length in range(250) for end in "abc"]
    ),
}
ASKED = ["x" * 255, "x" * 2, f"{'x' * 240}19999", f"{'X' * 240}19999z", f"{'x' * 249}c", "zz"]


@pytest.mark.parametrize("name", SLOW)
def test_patterns_made_to_be_slow_are_looked_up_in_a_few_pages(
    database: Database, name: str
) -> None:
    conn = database.connect(autocommit=True, options="-c statement_timeout=10s")
    assert load(conn, manifest([SLOW[name]], [runtime("r", ("p", []))])).loaded
    query = "select registry.resolve('r', %s)"
    for model in ASKED * 2:  # after some calls, none is planned any more
        assert (one(conn, query, model) is not None) == claims(SLOW[name], model)
    for model in ASKED:
        (explained,) = one(conn, f"explain (analyze, buffers, format json) {query}", model)
        pages = explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
        assert 0 < pages < 40  # all of them would be hundreds
