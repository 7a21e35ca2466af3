"""Loading a registry: revisions, what the answer says, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

import databases
from databases import Database
from support import (
    MANIFEST,
    Conn,
    Json,
    call,
    create,
    fingerprint,
    load,
    make_unreadable,
    manifest,
    nothing_written,
    one,
    pair,
    provider,
    refused,
    rows,
    runtime,
)

P = provider("p", model_prefixes=["p-"], auth_env=["KEY"])
Q = provider("q", billed_to="platform")
BASE = manifest(
    [P, Q],
    [runtime("r", ("p", ["m", "n"]), ("q", ["o"])), runtime("s", ("q", ["o"]))],
    equivalents=[["m", "o"]],
)


def altered(**keys: object) -> Json:
    return {**BASE, **keys}


SMALLER = altered(runtimes=[runtime("r", ("p", ["m"])), runtime("s")], equivalents=[])


def differs(kind: str, name: str, before: Json, after: Json) -> Json:
    return {"kind": kind, kind: name, "from": before, "to": after}


def facts(listed: list[Json]) -> list[Json]:
    """In a fixed order."""
    return sorted(listed, key=lambda fact: json.dumps(fact, sort_keys=True))


@pytest.fixture
def base(conn: Conn) -> Conn:
    """The transaction, with BASE loaded and no workspaces."""
    load(conn, BASE)
    return conn


def test_each_load_is_a_new_revision_and_keeps_the_manifest(base: Conn) -> None:
    before = one(base, "select revision from registry.state")
    base.execute("set local runtime_registry.actor = 'loader'")
    loaded = load(base, manifest([], []))
    assert (loaded.revision, loaded.loaded, loaded.orphans) == (before + 1, True, [])
    kept = "select manifest, loaded_by from registry.revisions where revision = %s"
    assert base.execute(kept, [before]).fetchone() == (BASE, one(base, "select session_user"))
    assert base.execute(kept, [before + 1]).fetchone() == (manifest([], []), "loader")
    again = load(base, BASE)
    assert (again.revision, again.loaded) == (before + 2, True)


def test_the_same_manifest_again_is_no_new_revision(base: Conn) -> None:
    shuffled = dict(reversed(BASE.items()))
    with nothing_written(base):
        again = load(base, shuffled)
    assert tuple(again) == (one(base, "select revision from registry.state"), False, [], [], [], [])


def test_what_is_decided_next_is_decided_by_the_new_registry(base: Conn) -> None:
    load(base, altered(runtimes=[runtime("r", ("q", ["o"])), runtime("new", ("p", ["n", "m"]))]))
    assert [entry.runtime for entry in rows(base, "registry.list_runtimes")] == ["r", "new"]
    assert call(base, "registry.resolve", "r", "p-1")[0] is None
    assert call(base, "registry.default_model", "new")[0] == "n"
    assert refused(base, "registry.menu", "s").detail["valid_runtimes"] == ["r", "new"]


def test_an_empty_registry_has_no_valid_runtimes(conn: Conn) -> None:
    load(conn, manifest([], []))
    refusal = refused(conn, "registry.menu", "r")
    assert refusal.code == "RUNTIME_UNSUPPORTED"
    assert refusal.detail["valid_runtimes"] == []


FACTS = [
    # what is loaded over BASE, and what that added, removed and changed
    (
        altered(providers=[P, Q, provider("x")]),
        [{"kind": "provider", "provider": "x"}],
        [],
        [],
    ),
    (
        altered(providers=[provider("p", model_prefixes=["p-"], auth_env=["NEW"]), Q]),
        [],
        [],
        [differs("provider", "p", {"auth_env": ["KEY"]}, {"auth_env": ["NEW"]})],
    ),
    (
        altered(
            runtimes=[
                runtime("r", ("p", ["m", "n"]), ("q", ["o"]), default_model="n"),
                runtime("s", ("q", ["o"]), model_policy="any"),
            ]
        ),
        [],
        [],
        [
            differs("runtime", "r", {"default_model": "m"}, {"default_model": "n"}),
            differs("runtime", "s", {"model_policy": "registered"}, {"model_policy": "any"}),
        ],
    ),
    (
        altered(runtimes=[runtime("r", ("p", ["m"])), runtime("t", ("q", ["o"]))]),
        [
            {"kind": "arm", "runtime": "t", "provider": "q"},
            {"kind": "model", "runtime": "t", "provider": "q", "model": "o"},
            {"kind": "runtime", "runtime": "t"},
        ],
        [
            {"kind": "arm", "runtime": "r", "provider": "q"},
            {"kind": "arm", "runtime": "s", "provider": "q"},
            {"kind": "model", "runtime": "r", "provider": "p", "model": "n"},
            {"kind": "model", "runtime": "r", "provider": "q", "model": "o"},
            {"kind": "model", "runtime": "s", "provider": "q", "model": "o"},
            {"kind": "runtime", "runtime": "s"},
        ],
        [
            differs("runtime", "r", {"arms": ["p", "q"]}, {"arms": ["p"]}),
            {
                **differs("provider", "p", {"models": ["m", "n"]}, {"models": ["m"]}),
                "kind": "arm",
                "runtime": "r",
            },
        ],
    ),
    (
        altered(equivalents=[["n", "o"]]),
        [{"kind": "equivalent", "models": ["n", "o"]}],
        [{"kind": "equivalent", "models": ["m", "o"]}],
        [],
    ),
    (
        altered(providers=[{**P, "billed_to": "tenant", "case_sensitive": True}, Q]),
        [],
        [],
        [],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("new", "added", "removed", "changed"), FACTS)
def test_the_answer_and_a_dry_run_say_what_changes(
    base: Conn, new: Json, added: list[Json], removed: list[Json], changed: list[Json]
) -> None:
    before = one(base, "select revision from registry.state")
    with nothing_written(base):
        dry = load(base, new, dry_run=True)
    real = load(base, new)
    assert (dry.revision, dry.loaded) == (before, False)
    assert (real.revision, real.loaded) == (before + 1, True)
    for answer in (dry, real):
        said = [facts(answer.added), facts(answer.removed), facts(answer.changed), answer.orphans]
        assert said == [added, removed, changed, []]


def test_reordered_models_are_a_change(base: Conn) -> None:
    pinned = altered(
        runtimes=[
            runtime("r", ("p", ["m", "n", "o"]), default_model="m"),
            runtime("s", ("q", ["o"])),
        ]
    )
    swapped = altered(
        runtimes=[
            runtime("r", ("p", ["m", "o", "n"]), default_model="m"),
            runtime("s", ("q", ["o"])),
        ]
    )
    load(base, pinned)
    answer = load(base, swapped)
    assert [entry[0] for entry in rows(base, "registry.menu", "r")] == ["m", "o", "n"]
    assert answer.loaded
    assert answer.changed, "the menu is another one, and the answer says nothing of it"


def test_a_load_that_orphans_a_model_is_refused_and_a_dry_run_names_the_workspaces(
    base: Conn,
) -> None:
    stays, bare = create(base, "r", "o"), create(base, "r")
    orphan, by_prefix = create(base, "r", "n"), create(base, "r", "p-1")
    new = altered(
        providers=[provider("p"), Q],
        runtimes=[runtime("r", ("p", ["m"]), ("q", ["o"])), runtime("s")],
        equivalents=[],
    )
    orphans = [{"workspace_id": str(ws), "runtime": "r"} for ws in sorted([orphan, by_prefix])]
    with nothing_written(base):
        refusal = refused(base, "fleet.load_registry", Jsonb(new))
        dry = load(base, new, dry_run=True)
    assert (refusal.sqlstate, refusal.code) == ("PT409", "REGISTRY_ORPHANS")
    assert (refusal.detail["orphans"], refusal.detail["orphans_total"]) == (orphans, 2)
    assert (dry.loaded, dry.orphans) == (False, orphans)
    call(base, "workspace.change_runtime", orphan, "r", "m")
    call(base, "workspace.clear_model", by_prefix)
    assert load(base, new).loaded
    assert [pair(base, ws)[1] for ws in (stays, bare, orphan)] == ["o", None, "m"]


def test_of_many_orphans_fifty_are_named_and_all_counted(base: Conn) -> None:
    base.execute("select workspace.create_workspace('w', 's', 'o') from generate_series(1, 60)")
    detail = refused(
        base,
        "fleet.load_registry",
        Jsonb(SMALLER),
    ).detail
    ids = [entry["workspace_id"] for entry in detail["orphans"]]
    assert (len(set(ids)), detail["orphans_total"]) == (50, 60)
    assert ids == sorted(ids)


def test_a_runtime_in_use_cannot_be_removed(base: Conn) -> None:
    for name in ("s", "s", "r"):
        create(base, name)
    for new in (
        altered(runtimes=[]),
        altered(runtimes=[{"name": "R"}, {"name": "S"}], equivalents=[]),
    ):
        with nothing_written(base):
            for dry_run in (False, True):
                refusal = refused(
                    base, "fleet.load_registry", Jsonb({**new, "equivalents": []}), dry_run=dry_run
                )
                assert (refusal.sqlstate, refusal.code) == ("PT409", "RUNTIME_IN_USE")
                assert refusal.detail["runtimes"] == [
                    {"runtime": "r", "workspaces": 1},
                    {"runtime": "s", "workspaces": 2},
                ]


def test_a_runtime_left_and_a_runtime_of_deleted_workspaces_can_be_removed(base: Conn) -> None:
    moved, deleted = create(base, "s", "o"), create(base, "s")
    call(base, "workspace.change_runtime", moved, "r")
    call(base, "workspace.delete_workspace", deleted)
    assert load(base, altered(runtimes=[runtime("r", ("p", ["m"]), ("q", ["o"]))])).loaded
    assert [entry.runtime for entry in rows(base, "workspace.history", deleted)] == ["s", None]


def test_a_model_whose_runtime_takes_any_is_no_orphan(base: Conn) -> None:
    create(base, "s", "o")
    new = altered(
        runtimes=[runtime("r", ("p", ["m"])), {"name": "s", "model_policy": "any"}], equivalents=[]
    )
    assert load(base, new).orphans == []


def test_a_model_that_cannot_be_read_does_not_keep_a_registry_from_loading(base: Conn) -> None:
    make_unreadable(base, create(base, "s", "o"))
    assert load(base, SMALLER).loaded


ARGUMENTS: list[tuple[Json, str]] = [
    ({"manifest": None}, "manifest"),
    ({"on_orphan": None}, "on_orphan"),
    ({"on_orphan": ""}, "on_orphan"),
    ({"on_orphan": "REFUSE"}, "on_orphan"),
    ({"on_orphan": " refuse"}, "on_orphan"),
    ({"on_orphan": "'; drop table registry.state; --"}, "on_orphan"),
    ({"on_orphan": "keep"}, "on_orphan"),
    ({"on_orphan": "reset"}, "on_orphan"),
    ({"dry_run": None}, "dry_run"),
]


@pytest.mark.parametrize(("named", "argument"), ARGUMENTS)
def test_bad_arguments_are_refused(base: Conn, named: Json, argument: str) -> None:
    with nothing_written(base):
        refusal = refused(base, "fleet.load_registry", **{"manifest": Jsonb(MANIFEST), **named})
    assert (refusal.sqlstate, refusal.code) == ("PT400", "INVALID_ARGUMENT")
    assert refusal.detail["argument"] == argument


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_registry_cannot_be_loaded_on_an_old_snapshot(database: Database, level: str) -> None:
    conn = database.connect()
    conn.execute(f"begin isolation level {level}")
    with nothing_written(conn):
        refusal = refused(conn, "fleet.load_registry", Jsonb(BASE))
    assert (refusal.sqlstate, refusal.code) == ("PT400", "ISOLATION_UNSUPPORTED")


def test_a_load_that_is_rolled_back_leaves_the_registry_as_it_was(conn: Conn) -> None:
    before = fingerprint(conn)
    with conn.transaction(force_rollback=True):
        load(conn, BASE)
        assert fingerprint(conn) != before
    assert fingerprint(conn) == before


NEEDS_A_RUNTIME: list[tuple[str, tuple[Any, ...]]] = [
    ("registry.resolve", ("r", "m")),
    ("registry.default_model", ("r",)),
    ("registry.menu", ("r",)),
    ("registry.list_models", ("r",)),
    ("workspace.create_workspace", ("w", "r")),
    ("workspace.change_runtime", (UUID(int=1), "r")),
    ("workspace.preview_runtime_change", (UUID(int=1), "r")),
]


def test_before_the_first_load_everything_that_needs_a_registry_is_refused(
    empty_database: Callable[[], Database],
) -> None:
    database = empty_database()
    database.psql("-q", "-1", "-f", databases.SQL / "install.sql")
    conn = database.connect()
    with nothing_written(conn):
        for function, args in NEEDS_A_RUNTIME:
            refusal = refused(conn, function, *args)
            assert (refusal.sqlstate, refusal.code) == ("PT422", "REGISTRY_UNAVAILABLE"), function
            assert "load_registry" in refusal.hint
        assert rows(conn, "registry.list_runtimes") == []
    assert load(conn, manifest([], [])).revision == 1
    for function, args in NEEDS_A_RUNTIME:
        assert refused(conn, function, *args).code == "RUNTIME_UNSUPPORTED"
