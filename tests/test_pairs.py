"""Every two public functions that write, at once, at every isolation level, driven by locks.

Two at once have to say and to leave what one after the other would have: that is tried, too, and
compared. Who has to wait for whom, and who passes by, is written down here.

RUNTIME_REGISTRY_PAIRS=all tries every ending at every level; else, above READ COMMITTED, only what
is special there: a snapshot that is older than what the other one did.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import product
from uuid import UUID

import psycopg
import pytest

import databases
import figures
import pyapi
from databases import Database
from keyrings import KEK, NEW_KEK, init, reseal, retire, rewrap, rotate, sealing_sessions
from sessions import LEVELS, Outcome, Sessions, in_turn, settle, waiting, without_waiting
from support import SCHEMAS, Conn, Json, manifest, one, provider, runtime

Action = Callable[[Conn], object]
WS, OTHER = UUID(int=1), UUID(int=2)
EVER = datetime(9999, 1, 1, tzinfo=UTC)


def registry(left: list[str], right: list[str]) -> Json:
    return manifest(
        [provider("house")], [runtime("left", ("house", left)), runtime("right", ("house", right))]
    )


OLD = registry(["lone", "goes"], ["first", "stays"])
NEW = registry(["lone"], ["second", "stays"])


def told(change: pyapi.Change) -> object:
    return change.version, change.changed, change.runtime, change.model, change.model_source


def outcomes(entries: list[pyapi.MoveEntry]) -> object:
    return [entry.outcome for entry in entries]


ON_WS: dict[str, Action] = {
    "change": lambda conn: told(pyapi.change_runtime(conn, WS, "right")),
    "set_model": lambda conn: told(pyapi.set_model(conn, WS, "goes")),
    "clear_model": lambda conn: told(pyapi.clear_model(conn, WS)),
    "rename": lambda conn: told(pyapi.rename_workspace(conn, WS, "renamed", runtime="right")),
    "set_secret": lambda conn: told(pyapi.set_secret(conn, WS, "TOKEN", "new")),
    "delete_secret": lambda conn: told(pyapi.delete_secret(conn, WS, "TOKEN")),
    "delete": lambda conn: told(pyapi.delete_workspace(conn, WS)),
}
CREATE: dict[str, Action] = {
    "create": lambda conn: told(
        pyapi.create_workspace(conn, "w", "right", model="first", id=OTHER)
    ),
}
LOADS: dict[str, Action] = {
    "load": lambda conn: pyapi.load_registry(conn, NEW).loaded,
    "restore": lambda conn: pyapi.restore_registry(conn, 2).loaded,  # NEW
}
# Ids of keys are not compared: what was rolled back has used some up.
KEYS: dict[str, Action] = {
    "init": lambda conn: init(conn) > 0,
    "rotate": lambda conn: rotate(conn) > 0,
    "rewrap": rewrap,
    "retire": lambda conn: retire(conn, 1),
    "retire_used": lambda conn: retire(conn, 2),
}
RESEAL: dict[str, Action] = {"reseal": lambda conn: reseal(conn)[2:]}
PRUNE: dict[str, Action] = {"prune": lambda conn: pyapi.prune_changes(conn, EVER).pruned}
BULK: dict[str, Action] = {
    "move": lambda conn: outcomes(pyapi.move(conn, "left", "right")),
    "reset_orphans": lambda conn: outcomes(pyapi.reset_orphans(conn)),
}
TOKENS: dict[str, Action] = {
    "create_token": lambda conn: pyapi.create_token(conn, "u", "admin", b"u" * 32).name,
    "revoke_token": lambda conn: pyapi.revoke_token(conn, "t").revoked_at is not None,
    "authenticate": lambda conn: pyapi.authenticate(conn, b"t" * 32),
}
ALL = os.environ.get("RUNTIME_REGISTRY_PAIRS") == "all"
ENDINGS = {
    level: ("commit", "rollback", "before") if ALL or level == "committed" else ("before",)
    for level in LEVELS
    if ALL or level != "serializable"
}
ACTIONS = ON_WS | CREATE | LOADS | KEYS | RESEAL | PRUNE | BULK | TOKENS
SKIPPED: dict[str, object] = {
    "reseal": (0, 1),
    "prune": 0,
    "move": ["skipped"],
    "reset_orphans": ["skipped"],
}
"""What they answer where they skipped what they could have done."""
AT_READ_COMMITTED_ONLY = {*LOADS, *KEYS, *BULK}


def start(first: str, second: str) -> str:
    """The state that a pair begins in."""
    if "init" in (first, second):
        return "plain"
    return "orphaned" if "reset_orphans" in (first, second) else "sealed"


# What is refused, alone, is no write that another one could meet.
REFUSED = {
    "plain": {"rotate", "retire", "retire_used"},
    "sealed": {"retire_used"},
    "orphaned": {"retire_used", "set_model", "create"},
}
PAIRS = [
    (first, second)
    for first, second in product(ACTIONS, repeat=2)
    if first not in REFUSED[start(first, second)]
    and (first in TOKENS) == (second in TOKENS)  # they have nothing in common
    and {first, second} != {"init", "reset_orphans"}  # of a workspace without an orphan
]


def meeting(first: str, second: str) -> str:
    """What the second does while the first is not over: waits for it, passes it, or skips it."""
    deciding, holding = {*ON_WS, *CREATE, *BULK}, {*ON_WS, *RESEAL, *BULK}
    if (first in holding and second in {*RESEAL, *BULK}) or (first in RESEAL and second in PRUNE):
        return "skips"
    groups: list[tuple[set[str], set[str]]] = [
        (holding, set(ON_WS)),
        (set(CREATE), set(CREATE)),
        ({*LOADS, "init"}, {*LOADS, "init"}),
        (set(LOADS), deciding),
        (deciding, set(LOADS)),
        (set(KEYS), {*deciding, *KEYS, *RESEAL}),
        ({*deciding, *RESEAL}, set(KEYS)),
        (set(PRUNE), {*PRUNE, *RESEAL}),
        ({"create_token"}, {"create_token"}),
        ({"revoke_token", "authenticate"}, {"revoke_token"}),
    ]
    waits = any(first in before and second in after for before, after in groups)
    return "waits" if waits else "passes"


@pytest.fixture(scope="module")
def raced(template: Database) -> Iterator[Database]:
    """One database for all that happens here."""
    with databases.create(template.server, template) as database:
        yield database


@pytest.fixture(scope="module")
def opened(raced: Database) -> Iterator[Sessions]:
    """The same sessions for all tests; they bring the old KEK and the new one."""
    with sealing_sessions(raced, KEK, NEW_KEK) as sessions:
        pyapi.load_registry(sessions.observer, NEW)
        yield sessions


@pytest.fixture
def sessions(opened: Sessions) -> Iterator[Sessions]:
    """Sessions as they are by default."""
    yield opened
    for conn in (opened.first, opened.second):
        conn.rollback()
        conn.isolation_level = None


def begin(conn: Conn, kind: str) -> None:
    """The same state each time: a workspace, a token and, unless it is plain, three keys."""
    conn.execute(
        """
        delete from workspace.secrets; delete from workspace.changes;
        delete from workspace.workspaces; delete from fleet.retention;
        delete from access.tokens; delete from keyring.keys;
        alter sequence keyring.key_ids restart
        """
    )
    newest = "select manifest from registry.revisions order by revision desc limit 1"
    if one(conn, newest) != OLD:
        pyapi.load_registry(conn, OLD)
    keys = "select keyring.init(), keyring.rotate();" if kind != "plain" else ""
    conn.execute(
        f"""
        {keys}
        select workspace.create_workspace('w', 'left', 'goes', '{WS}');
        select workspace.set_model('{WS}', 'lone');
        select workspace.set_secret('{WS}', 'TOKEN', 'old');
        select workspace.set_model('{WS}', '{"goes" if kind == "orphaned" else "lone"}');
        {"select keyring.rotate();" if keys else ""}
        select access.create_token('t', 'admin', decode(repeat('74', 32), 'hex'))
        """.encode()
    )
    if kind == "orphaned":
        # With one provider more, so that NEW is another manifest still.
        more = {**NEW, "providers": [*NEW["providers"], provider("unused")]}
        pyapi.load_registry(conn, more, on_orphan="keep")


def state(conn: Conn) -> object:
    """All that there is now, but for times, ids of keys and places in the feed."""
    return conn.execute(
        """
        with keys as (
          select k.id, dense_rank() over (order by k.id) as rank, k.state,
            (keyring.unwrap(k.id, k.wrapped, current_setting('runtime_registry.new_kek'))).key_id
              is not null as has_new_kek
          from keyring.keys as k
        )
        select
          (
            select array_agg(row(k.rank, k.state, k.has_new_kek)::text order by k.id)
            from keys as k
          ),
          (
            select array_agg(row(w.id, w.name, w.runtime, w.version)::text order by w.id)
            from workspace.workspaces as w
          ),
          (
            select array_agg(
              row(s.workspace_id, s.key, k.rank)::text order by s.workspace_id, s.key
            )
            from workspace.secrets as s left join keys as k on k.id = s.key_id
          ),
          (
            select array_agg(
              row(
                c.workspace_id, c.version, c.action, c.changed, c.previous_runtime, c.runtime,
                c.model_source, c.provider, c.secret, c.name, k.rank, p.rank
              )::text
              order by c.workspace_id, c.version
            )
            from workspace.changes as c
            left join keys as k on k.id = c.key_id
            left join keys as p on p.id = c.previous_key_id
          ),
          (select array_agg(keyring.unseal(null, s.workspace_id, s.key, s.sealed, s.key_id)
            order by s.workspace_id, s.key) from workspace.secrets as s),
          (select r.prunings from fleet.retention as r),
          (select array_agg(row(t.name, t.revoked_at is null)::text order by t.name)
            from access.tokens as t),
          (select r.manifest from registry.revisions as r order by r.revision desc limit 1)
        """
    ).fetchall()


def came(outcome: Outcome[object]) -> object:
    """The answer, or the code of the refusal."""
    return outcome.code or outcome.answer


@pytest.fixture(scope="module")
def serially(opened: Sessions) -> Callable[..., tuple[list[object], object]]:
    """What comes of actions that are done one after the other: the answers, and the state."""

    @cache
    def tried(*names: str, kind: str) -> tuple[list[object], object]:
        begin(opened.observer, kind)
        return [came(settle(opened.observer, ACTIONS[name])) for name in names], state(
            opened.observer
        )

    return tried


@pytest.fixture(scope="module")
def counts() -> Iterator[Counter[tuple[str, str, str]]]:
    """How many interleavings of each pair there were, and what the second did."""
    counted = Counter[tuple[str, str, str]]()
    yield counted
    did = Counter[str]()
    for (_, _, does), number in counted.items():
        did[f"where the second {does}"] += number
    figures.record(
        "pairs of writes at once",
        interleavings=counted.total(),
        pairs=len({(first, second) for first, second, _ in counted}),
        **did,
        lost=0,
        torn=0,
    )


@pytest.mark.parametrize("level", ENDINGS)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_at_once_are_as_one_after_the_other(
    sessions: Sessions,
    serially: Callable[..., tuple[list[object], object]],
    counts: Counter[tuple[str, str, str]],
    first: str,
    second: str,
    level: str,
) -> None:
    kind, does = start(first, second), meeting(first, second)
    levels = [
        LEVELS["committed" if name in AT_READ_COMMITTED_ONLY else level] for name in (first, second)
    ]
    sessions.first.isolation_level, sessions.second.isolation_level = levels
    (a, b), both = serially(first, second, kind=kind)
    (b_first, a_last), swapped = serially(second, first, kind=kind)
    (a_alone,), only_a = serially(first, kind=kind)
    (b_alone,), only_b = serially(second, kind=kind)
    assert a == a_alone

    for ending in ENDINGS[level]:
        begin(sessions.observer, kind)
        if ending == "before" or does == "waits":
            one, other = in_turn(sessions, ACTIONS[first], ACTIONS[second], ending)
        else:
            one = ACTIONS[first](sessions.first)
            other = settle(sessions.second, without_waiting(ACTIONS[second]))
            try:
                sessions.first.commit() if ending == "commit" else sessions.first.rollback()
            except psycopg.errors.SerializationFailure:  # now it has to come after the second
                one = came(settle(sessions.first, ACTIONS[first]))

        expected = [(a, b, both)]
        if does == "skips" and ending != "before":
            left = only_a if ending == "commit" else serially(kind=kind)[1]
            expected = [(a, SKIPPED[second], left)]
        elif ending == "rollback":
            expected = [(a, b_alone, only_b)]
        elif (does == "passes" and ending == "commit") or (
            level != "committed" and (does != "waits" or (first, second) == ("init", "reseal"))
        ):
            # The second did not see what the first did: it may as well have come before it.
            expected.append((a_last, b_first, swapped))
        assert (one, came(other), state(sessions.observer)) in expected, ending
        counts[first, second, does] += 1


HELD = (
    "select c.oid::regclass::text from pg_locks as l join pg_class as c on c.oid = l.relation"
    " where l.pid = %s and l.granted and l.mode <> 'AccessShareLock' and c.relkind = 'r'"
    " and c.relnamespace::regnamespace::text = any(%s)"
)
STATIONS = {
    "registry.state": "lock table registry.state in exclusive mode",
    "keyring.keys": "lock table keyring.keys in exclusive mode",
    "workspace.workspaces": "select from workspace.workspaces for update",
    "workspace.secrets": "lock table workspace.secrets in exclusive mode",
}
"""What is locked in this order, and how somebody else stops a call there."""


@pytest.mark.parametrize("name", [*ON_WS, *CREATE])
def test_locks_are_taken_in_one_order(sessions: Sessions, name: str) -> None:
    begin(sessions.observer, "sealed")
    stations = list(STATIONS) if name in ON_WS else list(STATIONS)[:2]
    for number, station in enumerate(stations):
        sessions.first.execute(STATIONS[station].encode())
        with waiting(sessions, sessions.second, ACTIONS[name], behind=sessions.first):
            pid = sessions.second.info.backend_pid
            held = {table for (table,) in sessions.observer.execute(HELD, [pid, SCHEMAS])}
            # At the workspace it has the lock of the table that goes with those of rows, and at its
            # secrets that of the history, which one statement writes with them.
            assert held - {station, "workspace.changes"} == set(stations[:number])
            sessions.observer.execute("select pg_cancel_backend(%s)", [pid])
