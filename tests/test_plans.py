"""A session's plans, made while everything was small, stay good when it has grown."""

from __future__ import annotations

from itertools import count

import pytest

import pyapi
from databases import Database
from support import Conn, Json, load, manifest, one, provider, runtime

CALLS = {
    "reset to the default": ("lone", "r2"),
    "reset to an equivalent": ("twin", "r2"),
    "kept": ("both", "r2"),
    "kept by a prefix": ("p-any", "r2"),
}


def pages(conn: Conn, name: str, target: str) -> int:
    """How many pages are looked at to decide about the workspace of this name."""
    (explained,) = one(
        conn,
        "explain (analyze, buffers, format json) select c.model from workspace.workspaces as w,"
        " lateral workspace.preview_runtime_change(w.id, %s) as c where w.name = %s",
        target,
        name,
    )
    found: int = explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
    return found


@pytest.mark.parametrize("name", CALLS)
def test_a_decision_looks_at_as_few_pages_in_a_large_registry(
    database: Database, name: str
) -> None:
    model, target = CALLS[name]

    def registry(size: int) -> Json:
        more = [f"m{number:06}" for number in range(size)]
        others = [f"{each}-alike" for each in more]
        return manifest(
            [provider("p", model_prefixes=["p-"]), provider("q")],
            [
                runtime("r1", ("p", ["lone", "twin", "both", *more])),
                runtime("r2", ("p", []), ("q", ["default", "both", "other-twin", *others])),
            ],
            equivalents=[["twin", "other-twin"], *map(list, zip(more, others, strict=True))],
        )

    conn, admin = database.connect(autocommit=True), database.connect(autocommit=True)
    load(admin, registry(1))
    pyapi.create_workspace(conn, name, "r1", model=model)
    for _ in range(10):  # to have everything planned, for good
        small = pages(conn, name, target)
    load(admin, registry(10_000))
    assert pages(conn, name, target) <= small + 30  # all of them would be hundreds


def test_who_serves_a_model_is_found_as_fast_by_a_session_that_asked_when_there_were_few(
    database: Database,
) -> None:
    def registry(size: int) -> Json:
        more = [f"m{number:06}" for number in range(size)]
        providers = [provider("p", auth_env=["A"]), provider("q", auth_env=["B"])]
        arms = ("p", ["both", *more]), ("q", ["both", *more])
        return manifest(providers, [runtime("r1", *arms), runtime("r2", *arms)])

    conn, admin = database.connect(autocommit=True), database.connect(autocommit=True)
    load(admin, registry(1))
    ws = pyapi.create_workspace(conn, "one", "r1", model="both").workspace_id
    pyapi.set_secret(conn, ws, "B", "value")
    admin.execute(
        "vacuum analyze"
    )  # so that Postgres knows how few they are, until it is told more
    for _ in range(12):  # to have everything planned, for good
        assert pyapi.resolve(conn, "r1", "both", auth_env=["B"]) == "q"
    small = pages(conn, "one", "r2")
    load(admin, registry(10_000))
    assert pages(conn, "one", "r2") <= small + 30  # all of them would be hundreds


ON_ONE = {
    "switched": "workspace.change_runtime(%(ws)s, %(odd)s)",
    "given a model": "workspace.set_model(%(ws)s, %(odd)s)",
    "given no model": "workspace.clear_model(%(ws)s, request_id => %(n)s)",
    "renamed": "workspace.rename_workspace(%(ws)s, %(n)s)",
    "given a credential": "workspace.set_secret(%(ws)s, 'TOKEN', %(n)s)",
    "without a credential": "workspace.delete_secret(%(ws)s, 'TOKEN')",
    "asked for a credential": "workspace.get_secret(%(ws)s, 'SAME')",
    "asked for its credentials": "workspace.list_secrets(%(ws)s)",
    "previewed": "workspace.preview_runtime_change(%(ws)s, 'b')",
    "read": "workspace.get_workspace(%(ws)s)",
    "replayed": "workspace.change_runtime(%(ws)s, 'a', request_id => 'same')",
}


@pytest.mark.parametrize("name", ON_ONE)
def test_a_call_looks_at_as_few_pages_among_many_workspaces(database: Database, name: str) -> None:
    conn, admin = database.connect(autocommit=True), database.connect(autocommit=True)
    menus = ("a", ["a", "b"]), ("b", ["b", "a"])
    load(admin, manifest([provider("p")], [runtime(name, ("p", menu)) for name, menu in menus]))
    ws = pyapi.create_workspace(conn, "one", "a", model="b").workspace_id
    pyapi.change_runtime(conn, ws, "a", request_id="same")
    pyapi.set_secret(conn, ws, "SAME", "value")
    admin.execute("vacuum analyze")
    numbers = count()

    def pages() -> int:
        n = next(numbers)
        values = {"ws": ws, "odd": "ab"[n % 2], "n": str(n)}
        query = f"explain (analyze, buffers, format json) select c from {ON_ONE[name]} as c"
        (((explained,),),) = conn.execute(query, values).fetchall()
        plan = explained["Plan"]
        found: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return found

    for _ in range(12):  # to have everything planned, for good
        small = pages()
    admin.execute(
        """
        begin;
        set local session_replication_role = replica;
        insert into workspace.workspaces
        select gen_random_uuid(), w.name, w.runtime, w.version, w.created_at, w.updated_at
        from workspace.workspaces as w, generate_series(1, 20000);
        insert into workspace.secrets
        select w.id, s.key, s.sealed, s.key_id, s.updated_at
        from workspace.workspaces as w, workspace.secrets as s where s.workspace_id <> w.id;
        insert into workspace.changes
        select (jsonb_populate_record(c, jsonb_build_object('workspace_id', w.id))).*
        from workspace.workspaces as w, workspace.changes as c
        where c.version = 1 and c.workspace_id <> w.id;
        commit
        """
    )
    assert pages() <= small + 40  # all of them would be hundreds
