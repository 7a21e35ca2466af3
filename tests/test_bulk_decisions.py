"""What fleet.move and fleet.reset_orphans do to many workspaces, against the single calls."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import (
    Conn,
    Json,
    call,
    create,
    load,
    make_unreadable,
    manifest,
    nothing_written,
    provider,
    rows,
    runtime,
    savepoint,
)

# Names that a careless memory of what was decided before could take for something else.
MODELS = ["a", "b", "c", "p-1", "none", "true", "false", "model a"]
RUNTIMES = ["r", "s", "t"]
KEYS = ["KEY", "TOKEN"]
Step = tuple[str, tuple[Any, ...], dict[str, Any]]
ANYTHING = manifest([], [runtime(name, model_policy="any") for name in RUNTIMES])


@st.composite
def manifests(draw: st.DrawFn) -> Json:
    """A registry of RUNTIMES; some are without models, some accept all."""
    providers = [
        provider(
            name,
            billed_to=draw(st.sampled_from(["tenant", "platform"])),
            auth_env=draw(st.lists(st.sampled_from(KEYS), unique=True)),
            model_prefixes=draw(st.sampled_from([[], [f"{name}-"]])),
        )
        for name in ("p", "q")
    ]
    runtimes = []
    for name in RUNTIMES:
        arms = [
            (of, draw(st.lists(st.sampled_from(MODELS), unique=True, max_size=3)))
            for of in draw(st.sampled_from([[], ["p"], ["q", "p"]]))
        ]
        policy = draw(st.sampled_from(["registered", "registered", "any"]))
        runtimes.append(runtime(name, *arms, model_policy=policy))
    known = sorted({model for each in runtimes for arm in each["arms"] for model in arm["models"]})
    twins = draw(st.lists(st.sampled_from(known), unique=True)) if known else []
    return manifest(providers, runtimes, equivalents=[twins] if len(twins) > 1 else [])


models, runtimes = st.sampled_from(MODELS), st.sampled_from(RUNTIMES)
steps = st.one_of(
    st.tuples(st.just("set_model"), st.tuples(models), st.just({})),
    st.tuples(st.just("set_model"), st.tuples(models), st.just({"request_id": "again"})),
    st.tuples(st.just("clear_model"), st.just(()), st.just({})),
    st.tuples(st.just("set_secret"), st.tuples(st.sampled_from(KEYS), st.just("x")), st.just({})),
    st.tuples(st.just("change_runtime"), st.tuples(runtimes), st.just({})),
    st.tuples(
        st.just("change_runtime"),
        st.tuples(runtimes),
        st.fixed_dictionaries({"request_id": st.just("again"), "restore": st.booleans()}),
    ),
)
lives = st.tuples(runtimes, st.lists(steps, max_size=5), st.sampled_from([False] * 7 + [True]))
"""Where a workspace begins, what is done to it, and whether its model is spoiled in the end."""


def live(conn: Conn, start: str, past: list[Step], spoiled: bool) -> UUID:
    """A workspace with this past."""
    ws = create(conn, start)
    for function, arguments, named in past:
        attempt(conn, ws, function, *arguments, **named)
    if spoiled and call(conn, "workspace.get_workspace", ws).model is not None:
        make_unreadable(conn, ws)
    return ws


def attempt(conn: Conn, ws: UUID, function: str, *arguments: object, **named: object) -> Any:
    """The answer of a call; of one that is refused, its code."""
    try:
        with conn.transaction():
            return call(conn, f"workspace.{function}", ws, *arguments, **named)
    except psycopg.Error as error:
        return json.loads(error.diag.message_detail or "")["code"]


def expected(conn: Conn, ws: UUID, target: str | None, **named: object) -> tuple[Any, ...]:
    """The row of fleet.move that a single call amounts to."""
    before = conn.execute(
        "select w.version, w.runtime,"
        " (select keyring.unseal(null, s.workspace_id, s.key, s.sealed, s.key_id)"
        "  from workspace.secrets s where s.workspace_id = w.id and s.key = 'MODEL'),"
        " exists (select from workspace.changes c"
        "  where c.workspace_id = w.id and c.request_id = %s)"
        " from workspace.workspaces w where w.id = %s",
        [named.get("request_id"), ws],
    ).fetchone()
    assert before
    version, at, model, is_recorded = before
    answer = attempt(conn, ws, "change_runtime", target or at, **named)
    if isinstance(answer, str):
        return ws, "refused", answer, version, at, at, model, model, None
    outcome = "recorded" if is_recorded else "changed" if answer.changed else "unchanged"
    return (
        ws,
        outcome,
        None,
        answer.version,
        answer.previous_runtime,
        answer.runtime,
        answer.previous_model,
        answer.model,
        answer.model_source,
    )


STORED = {
    "workspaces": "select w.id, w.runtime, w.version from workspace.workspaces w order by w.id",
    "secrets": """
        select s.workspace_id, s.key, keyring.unseal(k, s.workspace_id, s.key, s.sealed, s.key_id)
        from workspace.secrets s, keyring.active_key() k
        order by s.workspace_id, s.key
        """,
    "changes": """
        select
          to_jsonb(c) - array['changed_at', 'sealed', 'previous_sealed'],
          keyring.unseal(k, c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id),
          keyring.unseal(k, c.workspace_id, 'MODEL', c.sealed, c.key_id),
          c.sealed = c.previous_sealed,
          -- The newest says what is stored, to the byte.
          c.sealed = (
            select s.sealed
            from workspace.secrets s
            join workspace.workspaces w on w.id = s.workspace_id
            where s.workspace_id = c.workspace_id and s.key = 'MODEL' and w.version = c.version
          )
        from workspace.changes c, keyring.active_key() k order by c.workspace_id, c.version
        """,
}


def stored(conn: Conn) -> dict[str, list[Any]]:
    """Every row, with values unsealed: sealing twice gives other bytes."""
    return {name: conn.execute(query.encode()).fetchall() for name, query in STORED.items()}


def in_batches(conn: Conn, function: str, batch: int, **named: object) -> list[Any]:
    """All rows of fleet.move or fleet.reset_orphans."""
    found: list[Any] = []
    while True:
        after = found[-1].workspace_id if found else None
        page = rows(conn, function, **named, after=after, batch=batch)
        found += page
        if len(page) < batch:
            return found


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(lives, min_size=1, max_size=8),
    manifests(),
    st.permutations(RUNTIMES),
    st.booleans(),
    st.sampled_from([None, "again", "new"]),
    st.integers(1, 4),
)
def test_many_workspaces_get_what_single_calls_would_give_each(
    conn: Conn,
    pasts: list[tuple[str, list[Step], bool]],
    registry: Json,
    order: list[str],
    restore: bool,
    request_id: str | None,
    batch: int,
) -> None:
    source, target, _ = order
    with savepoint(conn):
        load(conn, ANYTHING)
        for past in pasts:
            live(conn, *past)
        load(conn, registry, on_orphan="keep")
        on_source = conn.execute(
            "select id from workspace.workspaces where runtime = %s order by id", [source]
        ).fetchall()
        orphans = [orphan.workspace_id for orphan in rows(conn, "fleet.orphans")]
        moving = {
            "from_runtime": source,
            "to_runtime": target,
            "restore": restore,
            "request_id": request_id,
        }
        for function, named, ids, goal in (
            ("fleet.move", moving, [ws for (ws,) in on_source], target),
            ("fleet.reset_orphans", {"request_id": request_id}, orphans, None),
        ):
            with savepoint(conn):
                asked = {"request_id": request_id, "restore": goal is not None and restore}
                singly = [expected(conn, ws, goal, **asked) for ws in ids]
                after_single_calls = stored(conn)
            with nothing_written(conn):
                dry = in_batches(conn, function, batch, **named, dry_run=True)
            with savepoint(conn):
                real = in_batches(conn, function, batch, **named)
                assert [tuple(entry) for entry in real] == singly
                assert stored(conn) == after_single_calls
            assert dry == real
