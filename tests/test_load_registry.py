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
    return {"kind": kind, kind: name, "before": before, "after": after}


def order(before: list[str], of: str = "model", **names: str) -> Json:
    """Two members of a list that have changed places."""
    return {"kind": "order", "of": of, **names, "before": before, "after": before[::-1]}


def model(name: str, on: str, by: str, **said: Json) -> Json:
    return {"kind": "model", "runtime": on, "provider": by, "model": name, **said}


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


PLAIN = {
    "billed_to": "tenant",
    "auth_env": [],
    "model_prefixes": [],
    "model_aliases": [],
    "case_sensitive": True,
}
FACTS = [
    # what is loaded over BASE, and what that added, removed and changed
    (
        altered(providers=[P, Q, provider("x")]),
        [{"kind": "provider", "provider": "x", "after": PLAIN}],
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
            model("o", "t", "q"),
            {
                "kind": "runtime",
                "runtime": "t",
                "after": {"default_model": "o", "model_policy": "registered"},
            },
        ],
        [
            {"kind": "arm", "runtime": "r", "provider": "q"},
            {"kind": "arm", "runtime": "s", "provider": "q"},
            model("n", "r", "p"),
            model("o", "r", "q"),
            model("o", "s", "q"),
            {
                "kind": "runtime",
                "runtime": "s",
                "before": {"default_model": "o", "model_policy": "registered"},
            },
        ],
        [],
    ),
    (
        # What makes room for another has not moved; the default has.
        altered(
            runtimes=[
                runtime("r", ("p", ["new", "m", "n"]), ("q", ["o"])),
                runtime("s", ("q", ["o"])),
            ]
        ),
        [model("new", "r", "p")],
        [],
        [differs("runtime", "r", {"default_model": "m"}, {"default_model": "new"})],
    ),
    (
        altered(
            providers=[Q, P],
            runtimes=[
                runtime("s", ("q", ["o"])),
                runtime("r", ("q", ["o"]), ("p", ["n", "m"]), default_model="m"),
            ],
        ),
        [],
        [],
        [
            order(["m", "n"], runtime="r", provider="p"),
            order(["p", "q"], "provider"),
            order(["p", "q"], "provider", runtime="r"),
            order(["r", "s"], "runtime"),
        ],
    ),
    (
        altered(equivalents=[["n", "o"]]),
        [{"kind": "equivalent", "models": ["n", "o"]}],
        [{"kind": "equivalent", "models": ["m", "o"]}],
        [],
    ),
    (
        altered(
            deprecations=[
                {"model": "o", "runtimes": ["s"], "deprecated_at": "2026-03-01"},
                {
                    "model": "n",
                    "deprecated_at": "2026-03-01T12:00:00Z",
                    "sunset_at": "2026-09-01",
                    "successor": "m",
                },
            ]
        ),
        [],
        [],
        [
            model(
                "n", "r", "p",
                after={
                    "deprecated_at": "2026-03-01T12:00:00Z",
                    "sunset_at": "2026-09-01T00:00:00Z",
                    "successor": "m",
                },
            ),
            model("o", "s", "q", after={"deprecated_at": "2026-03-01T00:00:00Z"}),
        ],
    ),
    (
        # Said in other words.
        altered(
            providers=[{**P, "billed_to": "tenant", "case_sensitive": True}, Q],
            runtimes=[
                runtime("r", ("p", ["m", "n", "m"]), ("q", ["o"]), default_model="m"),
                runtime("s", ("q", ["o"])),
            ],
            equivalents=[["o", "m"]],
        ),
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
        assert said == [facts(added), facts(removed), facts(changed), []]


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
    reset = {"reset_model": "m", "reset_source": "default"}
    orphans = [
        {"workspace_id": str(ws), "runtime": "r", "model": named, **reset}
        for ws, named in sorted([(orphan, "n"), (by_prefix, "p-1")])
    ]
    told = [{key: each[key] for key in ("workspace_id", "runtime")} for each in orphans]
    with nothing_written(base):
        refusal = refused(base, "fleet.load_registry", Jsonb(new))
        dry = load(base, new, dry_run=True)
    assert (refusal.sqlstate, refusal.code) == ("PT409", "REGISTRY_ORPHANS")
    assert (refusal.detail["orphans"], refusal.detail["orphans_total"]) == (told, 2)
    assert "p-1" not in refusal.text
    assert (dry.loaded, dry.orphans) == (False, orphans)
    call(base, "workspace.change_runtime", orphan, "r", "m")
    call(base, "workspace.clear_model", by_prefix)
    assert load(base, new).loaded
    assert [pair(base, ws)[1] for ws in (stays, bare, orphan)] == ["o", None, "m"]


def test_kept_orphans_stay_as_they_are_show_and_are_replaced_by_the_next_switch(
    base: Conn,
) -> None:
    twin, lost, by_prefix = create(base, "r", "n"), create(base, "s", "o"), create(base, "r", "p-1")
    fine = create(base, "r", "m")
    # The id that r loses is still known on t, and with it what it is equivalent to.
    new = altered(
        providers=[provider("p"), Q],
        runtimes=[runtime("r", ("p", ["m", "n-2"])), {"name": "s"}, runtime("t", ("p", ["n"]))],
        equivalents=[["n", "n-2"]],
    )
    kept = [(twin, "r", "n"), (lost, "s", "o"), (by_prefix, "r", "p-1")]
    pairs = [pair(base, ws) for ws, *_ in kept]
    dry = load(base, new, on_orphan="keep", dry_run=True)
    answer = load(base, new, on_orphan="keep")
    assert (dry.loaded, answer.loaded, dry.orphans) == (False, True, answer.orphans)
    orphans = {each["workspace_id"]: each for each in answer.orphans}
    assert orphans == {
        str(ws): {
            "workspace_id": str(ws), "runtime": on, "model": named,
            "reset_model": model, "reset_source": source,
        }
        for (ws, on, named), (model, source) in zip(
            kept, [("n-2", "equivalent"), (None, None), ("m", "default")], strict=True
        )
    }  # fmt: skip

    # Nothing was written to them, and everybody can see what they are.
    assert [pair(base, ws) for ws, *_ in kept] == pairs
    for ws, *_ in kept:
        assert call(base, "workspace.get_workspace", ws).model_registered is False
    assert call(base, "workspace.get_workspace", fine).model_registered is True
    unroutable = {orphan.workspace_id for orphan in rows(base, "fleet.orphans")}
    assert unroutable == {ws for ws, *_ in kept}

    # What was orphaned before is nothing that the next load orphans.
    again = load(base, {**new, "providers": [provider("p", auth_env=["NEW"]), Q]})
    assert (again.loaded, again.orphans) == (True, [])
    for ws, on, _ in kept:
        chosen = orphans[str(ws)]
        if chosen["reset_model"] is None:
            refusal = refused(base, "workspace.change_runtime", ws, on)
            assert refusal.code == "NO_DEFAULT_MODEL"
        else:
            change = call(base, "workspace.change_runtime", ws, on)
            assert (change.model, change.model_source) == (
                chosen["reset_model"], chosen["reset_source"],
            )  # fmt: skip


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
    conn = database.connect(autocommit=True)
    with nothing_written(conn):
        for function, args in NEEDS_A_RUNTIME:
            refusal = refused(conn, function, *args)
            assert (refusal.sqlstate, refusal.code) == ("PT422", "REGISTRY_UNAVAILABLE"), function
            assert "load_registry" in refusal.hint
        assert rows(conn, "registry.list_runtimes") == []
    assert load(conn, manifest([], [])).revision == 1
    for function, args in NEEDS_A_RUNTIME:
        assert refused(conn, function, *args).code == "RUNTIME_UNSUPPORTED"


# Revisions.


def test_revisions_tell_who_loaded_what_and_when(conn: Conn) -> None:
    before = one(conn, "select clock_timestamp()")
    conn.execute("set local runtime_registry.actor = 'loader'")
    number = load(conn, BASE).revision
    load(conn, manifest([], []))
    restored = call(conn, "fleet.restore_registry", number)
    told = rows(conn, "fleet.revisions")
    assert [entry.revision for entry in told] == [number + 2, number + 1, number, 1]
    assert restored.revision == number + 2
    assert [entry.is_current for entry in told] == [True, False, False, False]
    assert [entry.restored_from for entry in told] == [number, None, None, None]
    assert [entry.loaded_by for entry in told[:3]] == ["loader"] * 3
    assert told[0].loaded_at >= told[1].loaded_at >= told[2].loaded_at >= before
    counts = [(entry.providers, entry.runtimes, entry.models) for entry in told]
    assert counts[:3] == [(2, 2, 4), (0, 0, 0), (2, 2, 4)]
    assert counts[3] == (
        len(MANIFEST["providers"]),
        len(MANIFEST["runtimes"]),
        sum(entry.models for entry in catalogue_runtimes(conn)),
    )


def catalogue_runtimes(conn: Conn) -> list[Any]:
    load(conn, MANIFEST)
    return rows(conn, "registry.list_runtimes")


def test_every_revision_keeps_its_manifest(base: Conn) -> None:
    number = one(base, "select revision from registry.state")
    load(base, SMALLER)
    manifests = [
        call(base, "fleet.revision_manifest", revision)[0]
        for revision in (1, number, number + 1, None)
    ]
    assert manifests == [MANIFEST, BASE, SMALLER, SMALLER]


def test_restoring_the_current_revision_changes_nothing(base: Conn) -> None:
    number = one(base, "select revision from registry.state")
    load(base, SMALLER)
    load(base, BASE)
    with nothing_written(base):
        for revision in (number, number + 2):
            answer = call(base, "fleet.restore_registry", revision)
            assert tuple(answer) == (number + 2, False, [], [], [], [])


def test_a_restore_orphans_like_a_load(base: Conn) -> None:
    number = load(base, SMALLER).revision
    load(base, BASE)
    ws = create(base, "s", "o")
    with nothing_written(base):
        refusal = refused(base, "fleet.restore_registry", number)
        dry = call(base, "fleet.restore_registry", number, dry_run=True)
    assert refusal.code == "REGISTRY_ORPHANS"
    kept = call(base, "fleet.restore_registry", number, on_orphan="keep")
    assert [each["workspace_id"] for each in kept.orphans] == [str(ws)]
    assert (dry.loaded, kept.loaded, dry.orphans) == (False, True, kept.orphans)


@pytest.mark.parametrize("revision", [0, -1, 4, 2**62])
@pytest.mark.parametrize("function", ["fleet.restore_registry", "fleet.revision_manifest"])
def test_a_revision_that_is_not_there_is_not_found(
    conn: Conn, function: str, revision: int
) -> None:
    refusal = refused(conn, function, revision)
    assert (refusal.sqlstate, refusal.code) == ("PT404", "REVISION_NOT_FOUND")
    assert refusal.detail["revision"] == revision


def test_a_restore_needs_a_number_and_good_arguments(conn: Conn) -> None:
    for args, argument in (
        ((None,), "revision"),
        ((1, "all"), "on_orphan"),
        ((1, "keep", None), "dry_run"),
    ):
        refusal = refused(conn, "fleet.restore_registry", *args)
        assert (refusal.code, refusal.detail["argument"]) == ("INVALID_ARGUMENT", argument)


def test_what_stays_in_a_registry_is_not_written_again(database: Database) -> None:
    conn = database.connect()
    places = "select ctid, model, runtime, arm_position from registry.models"
    load(conn, BASE)
    before = set(conn.execute(places.encode()))
    added = altered(runtimes=[runtime("r", ("p", ["m", "n"]), ("q", ["o"])),
                              runtime("s", ("q", ["o", "new"]))])  # fmt: skip
    load(conn, added)
    after = set(conn.execute(places.encode()))
    assert before < after
    assert [row[1] for row in after - before] == ["new"]
