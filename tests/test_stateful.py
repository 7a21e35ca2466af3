"""Random registries and random calls by several sessions at once, each step compared with a model.

The sessions have transactions open, at any isolation level, while the others call. Nobody waits:
with a lock_timeout of a millisecond a call that would have to is refused, and the model knows when.
What an example leaves behind is deleted; the same seed gives the same examples.

RUNTIME_REGISTRY_OPERATIONS says how many operations at least (2000 if unset),
RUNTIME_REGISTRY_SEED what comes up.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import figures
import model as told
import pyapi
from databases import Database
from model import COMMITTED, REPEATABLE, SERIALIZABLE, SOME_TIME, Model, Place, Refused, Stored
from own_server import wait_until
from pyapi import Change, FeedEntry, HistoryEntry, RegistryLoad, Workspace, WorkspaceEntry, keyring
from pyapi.errors import RegistryError, translate
from pyapi.keyring import Kek, StatusEntry
from support import Conn, Json, manifest, provider, runtime
from test_registry_difference import ENDS, PROVIDERS, RUNTIMES, TIMES, manifests, ordered
from test_registry_difference import MODELS as LISTED

OPERATIONS = int(os.environ.get("RUNTIME_REGISTRY_OPERATIONS", "2000"))
SEED = int(os.environ.get("RUNTIME_REGISTRY_SEED", "1"))
SESSIONS = 3
DEAD = 20
"""How many examples share their dead rows."""
KEKS = [Kek(bytes([number]) * 32) for number in (1, 2)]
IDS = [UUID(int=number) for number in range(1, 40)]
NOBODY = UUID(int=99)
UNREADABLE = b"\xff\xfe\x00"

MODELS = [
    *LISTED * 2,
    *("p-1", "P-1", "p-long-2", "q-1", "Q-long", "x-1", "p1", "Q1", "x1", " model-1\n", " "),
]
NAMES = ["KEY", "TOKEN", "OTHER", " KEY ", "MODEL", " "]


def listed(table: str, columns: str, order: str) -> str:
    return (
        f"(select coalesce(jsonb_agg(jsonb_build_array({columns}) order by {order}), '[]')"
        f" from workspace.{table} as t)"
    )


def stored(which: str) -> str:
    """Whether there is a value, its key, and what it says if it is plain."""
    text = f"case when t.{which}key_id is null then encode(t.{which}sealed, 'escape') end"
    return f"t.{which}sealed is not null, t.{which}key_id, {text}"


ROWS = ", ".join(
    [
        "select (select s.revision from registry.state as s)",
        listed("workspaces", "t.id, t.name, t.runtime, t.version", "t.id"),
        listed("secrets", f"t.workspace_id, t.key, {stored('')}", "t.workspace_id, t.key"),
        listed(
            "changes",
            "t.workspace_id, t.version, t.action, t.changed, t.previous_runtime, t.runtime,"
            " t.model_source, t.provider, t.billed_to, t.billing_changed, t.restore, t.request_id,"
            f" t.secret, t.name, t.model_deprecated, {stored('')}, {stored('previous_')}",
            "t.workspace_id, t.version",
        ),
    ]
)
"""The query of all that is stored, but for times and what is sealed."""
TABLES = [
    *("workspace.secrets", "workspace.changes", "workspace.workspaces", "keyring.keys"),
    *("fleet.retention", "registry.equivalents", "registry.claims", "registry.models"),
    *("registry.arms", "registry.runtimes", "registry.providers", "registry.revisions"),
    "registry.state",
]
"""What an example fills, in an order in which it can be emptied."""
EXPECTED = {
    *("done", "LOCK_TIMEOUT", "SERIALIZATION_FAILURE", "INVALID_ARGUMENT", "VERSION_CONFLICT"),
    *("RUNTIME_UNSUPPORTED", "MODEL_NOT_REGISTERED", "WORKSPACE_NOT_FOUND", "WORKSPACE_EXISTS"),
    *("REQUEST_ID_REUSED", "ISOLATION_UNSUPPORTED", "ENCRYPTION_KEY_MISSING", "KEYRING_EXISTS"),
    *("source requested", "source kept", "source equivalent", "source default", "source none"),
}
"""What comes up in any run, or else it shows little."""
SETTINGS = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=[*HealthCheck],
)


def timeless(answer: Any) -> Any:
    """An answer without what a model cannot know: times, and who did it."""
    match answer:
        case Workspace() | WorkspaceEntry():
            return replace(answer, created_at=SOME_TIME, updated_at=SOME_TIME)
        case HistoryEntry() | FeedEntry():
            return replace(answer, changed_at=SOME_TIME, actor="")
        case StatusEntry():
            return replace(answer, created_at=None, retired_at=None)
        case pyapi.SecretEntry():
            return answer.name
        case RegistryLoad():
            lists: Json = {
                name: ordered(getattr(answer, name)) for name in ("added", "removed", "changed")
            }
            return replace(answer, **lists)
        case list():
            return [timeless(each) for each in answer]
    return answer


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """What a call came to: its answer, or the code and DETAIL of the refusal."""
    try:
        return "done", timeless(call())
    except Refused as refusal:
        return refusal.code, refusal.detail
    except RegistryError as error:
        detail = {name: value for name, value in error.detail.items() if name != "code"}
        match error.code:
            case "MODEL_NOT_REGISTERED":
                del detail["model"]  # what the Python layer adds from its own argument
            case "INVALID_ARGUMENT":
                del detail["problem"]
            case "REGISTRY_INVALID":
                (problem,) = detail["problems"]
                detail = {"path": problem["path"]}
            case "SECRET_UNREADABLE" if detail.get("secret") is None:
                detail.pop("secret", None)
            case "LOCK_TIMEOUT" | "SERIALIZATION_FAILURE":
                detail = {}
        return error.code, detail


@dataclass(slots=True)
class Reader:
    """Who follows the feed: the cursor, and the place that the model has for it."""

    cursor: str | None = None
    place: Place = (0, UUID(int=0), 0)
    pruned: int = 0
    """How much had been pruned when it got the cursor."""


@dataclass(slots=True)
class World:
    """The connections that all examples use, and the counts of what they did."""

    sessions: list[Conn]
    observer: Conn
    counts: Counter[str] = field(default_factory=Counter)
    examples: int = 0

    def forget(self) -> None:
        """Leave the database as it was when nothing had been loaded yet."""
        for conn in self.sessions:
            conn.execute("rollback")
            bring(conn, None, None)
        statements = [f"delete from {table};" for table in TABLES]
        statements.append("insert into registry.state (revision) values (0)")
        self.observer.execute("".join(statements).encode())
        if self.examples % DEAD == 0:
            for table in TABLES:
                self.observer.execute(f"vacuum {table}".encode())
        self.examples += 1


def execute(conn: Conn, statement: str) -> None:
    """Execute it; raises RegistryError."""
    try:
        conn.execute(statement.encode())
    except psycopg.Error as error:
        raise translate(error) from error


def bring(conn: Conn, kek: Kek | None, new_kek: Kek | None) -> None:
    """Have a session bring these keys, until it is told otherwise."""
    conn.execute(
        "select set_config('runtime_registry.kek', %s, false),"
        " set_config('runtime_registry.new_kek', %s, false)",
        [each.reveal() if each else "" for each in (kek, new_kek)],
    )


ANY_SESSION = st.integers(0, SESSIONS - 1)
NUMBER = st.integers(0, 100)
ANY_RUNTIME = st.sampled_from([*RUNTIMES * 3, "nope"])
LEVEL = st.sampled_from([COMMITTED, REPEATABLE, SERIALIZABLE])
ANY_MODEL = st.sampled_from(MODELS)
VERSION = st.sampled_from([None, None, None, 0, 0, 1, -1])
"""An expected version, counted from the one that the workspace has."""
REQUEST = st.sampled_from([None, None, "a", "b", "c"])
BATCH = st.sampled_from([1, 2, 1000])
AMONG = st.none() | NUMBER


def rich(number: int) -> Json:
    """A manifest that has much of everything, unlike those that Hypothesis begins with."""
    dice = random.Random(number)

    def some(of: list[str], least: int = 0) -> list[str]:
        return dice.sample(of, dice.randint(least, len(of)))

    providers = [
        provider(
            name,
            billed_to=dice.choice(["tenant", "platform"]),
            auth_env=some(["KEY", "TOKEN"]),
            model_prefixes=some([f"{name}-", f"{name}-long"]),
            model_aliases=some([f"{name}1"]),
            case_sensitive=dice.random() < 0.5,
        )
        for name in PROVIDERS
    ]
    listed: list[Json] = []
    for name in RUNTIMES:
        arms = [(each, some(LISTED)[:3]) for each in some(PROVIDERS, least=dice.randint(0, 1))]
        of = runtime(name, *arms, model_policy=dice.choice(["registered"] * 4 + ["any"]))
        menu = told.menu({"runtimes": [of]}, name)
        if menu and dice.random() < 0.5:
            of["default_model"] = dice.choice(menu)
        listed.append(of)
    known = sorted({model for of in listed for arm in of["arms"] for model in arm["models"]})
    dice.shuffle(known)
    middle = dice.randint(0, len(known))
    dated = [
        {"model": model, "deprecated_at": dice.choice(TIMES), "sunset_at": dice.choice(ENDS)}
        for model in some(known)[:2]
    ]
    groups = [group for group in (known[:middle], known[middle:]) if len(group) > 1]
    return manifest(providers, listed, equivalents=groups, deprecations=dated)


MANIFEST = st.integers(0, 10_000).map(rich) | st.integers(0, 10).map(rich) | manifests()


class Machine(RuleBasedStateMachine):
    """What may come next."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        world.forget()
        self.model = Model(SESSIONS)
        self.reader = Reader()
        self.requests: list[tuple[str, tuple[Any, ...], Json]] = []
        self.marks: list[tuple[int, datetime]] = []
        self.last_key = 0

    # What every step does

    def step(self, number: int, name: str, *args: Any, **named: Any) -> None:
        """Have a session call a function, and compare."""
        session, conn = self.model.sessions[number], self.world.sessions[number]
        function = {"key_status": keyring.status}.get(name)
        function = function or getattr(pyapi, name, None) or getattr(keyring, name)
        transaction = session.transaction
        if transaction is not None:
            conn.execute("savepoint before")
        code, answer = actual = outcome(lambda: function(conn, *args, **named))
        if transaction is not None:
            conn.execute("release before" if code == "done" else "rollback to before")
        if name in ("init", "rotate"):
            args = (self.new_key(answer) if code == "done" else 0,)
        expected = outcome(lambda: self.model.call(session, name, *args, **named))

        self.count(name, code)
        if isinstance(answer, Change):
            self.world.counts[f"source {answer.model_source}"] += 1
        serializable = transaction if transaction and transaction.level == SERIALIZABLE else None
        if serializable and code == "SERIALIZATION_FAILURE":
            assert serializable.met or expected[0] == code, f"{name} {args} {named}: {expected}"
            self.end(number, "rollback")  # It could do nothing else any more.
        else:
            assert actual == expected, f"{name} {args} {named}"
            self.look(number)

    def new_key(self, key: int) -> int:
        """Check that a key's id was never given before."""
        assert key > self.last_key
        self.last_key = key
        return key

    def count(self, name: str, code: str) -> None:
        """Count a call and what it came to."""
        self.world.counts.update(["operations", code, f"call {name}"])

    def look(self, number: int) -> None:
        """Compare what a session sees, row by row."""
        session, conn = self.model.sessions[number], self.world.sessions[number]
        transaction = session.transaction
        if transaction is not None:
            query = b"select pg_current_xact_id_if_assigned() is not null"
            if conn.execute(query).fetchone() == (True,):
                transaction.xid = transaction.xid or self.model.tick
            if transaction.level == SERIALIZABLE:
                return  # To read so much would make it fail more often.
        assert conn.execute(ROWS.encode()).fetchone() == self.seen(session)

    def seen(self, session: told.Session) -> tuple[Any, ...]:
        """The rows that a session has to see."""
        own = session.transaction is None
        if own:
            self.model.begin(session, COMMITTED)
        call = told.Call(self.model, session)
        if own:
            self.model.rollback(session)

        def value(of: Stored | None) -> list[Any]:
            if of is None:
                return [False, None, None]
            plain = r"\377\376\000" if of.text is None else of.text
            return [True, of.key, plain if of.key is None else None]

        workspaces = [
            [str(ws), row.name, row.runtime, row.version]
            for (_, ws), row in sorted(call.of("workspace").items())
        ]
        secrets = [
            [str(ws), name, *value(call.secret(ws, name))]
            for _, ws, name in sorted(call.of("secret"))
        ]
        changes = []
        for each in call.entries():
            said = each.answer
            changes.append(
                [
                    *(str(said.workspace_id), said.version, each.action, said.changed),
                    *(said.previous_runtime, said.runtime, said.model_source, said.provider),
                    *(said.billed_to, said.billing_changed, each.restore, each.request_id),
                    *(each.secret, each.name, said.model_deprecated),
                    *(*value(each.model), *value(each.previous)),
                ]
            )
        return call.rows[told.REGISTRY].revision, workspaces, secrets, changes

    def some(self, pick: int) -> UUID:
        """A workspace that is there, or perhaps a deleted one or none."""
        there = [key[1] for key in self.model.rows if key[0] == "workspace"]
        written = [key for each in self.model.open() for key in each.writes]
        known = sorted({*there, *(key[1] for key in written if key[0] == "workspace")})
        gone = {key[1] for key in self.model.rows if key[0] == "change"} - {*known}
        choice = [*known * 3, *sorted(gone)[:1], NOBODY]
        ws: UUID = choice[pick % len(choice)]
        return ws

    def expected(self, number: int, ws: UUID, version: int | None) -> int | None:
        transaction = self.model.sessions[number].transaction
        writes = transaction.writes if transaction else {}
        row = writes.get(("workspace", ws)) or self.model.rows.get(("workspace", ws))
        return None if version is None else version + (row.version if row else 1)

    # Transactions

    @initialize(
        loaded=st.sampled_from([True] * 12 + [False]),
        manifest=MANIFEST,
        keyed=st.booleans(),
        levels=st.tuples(*[st.none() | LEVEL] * (SESSIONS - 1)),
    )
    def start(
        self, loaded: bool, manifest: Json, keyed: bool, levels: tuple[str | None, ...]
    ) -> None:
        """Load a registry (but once in a while there is none), make workspaces, begin."""
        for number in range(SESSIONS):
            self.bring(number, (0, 1))
        if keyed:
            self.step(0, "init")
        if loaded:
            self.step(0, "load_registry", manifest)
            for number, name in enumerate(told.runtimes(manifest)):
                model = told.default_of(manifest, name)
                self.step(0, "create_workspace", "w", name, model=model, id=IDS[number])
        for number, level in enumerate(levels):
            if level:
                self.begin(number, level)

    @rule(
        number=ANY_SESSION,
        level=LEVEL,
        how=st.sampled_from(["commit", "commit", "rollback"]),
    )
    def turn(self, number: int, level: str, how: str) -> None:
        """Begin a transaction, with its snapshot, or end it."""
        session = self.model.sessions[number]
        if session.transaction is not None:
            self.end(number, how)
        else:
            self.begin(number, level)

    def begin(self, number: int, level: str) -> None:
        conn = self.world.sessions[number]
        conn.execute(f"begin isolation level {level}".encode())
        conn.execute("select")
        self.model.begin(self.model.sessions[number], level)

    def end(self, number: int, how: str) -> None:
        """End a transaction."""
        session, conn = self.model.sessions[number], self.world.sessions[number]
        transaction = session.transaction
        assert transaction
        code, _ = outcome(lambda: execute(conn, how))
        self.count(how, code)
        if code != "done":
            assert (code, transaction.met) == ("SERIALIZATION_FAILURE", True)
            how = "rollback"
        (self.model.commit if how == "commit" else self.model.rollback)(session)
        self.look(number)

    @rule(number=ANY_SESSION, keks=st.sampled_from([(0, 1), (1, 0), (0, 1), (0, None), (None, 1)]))
    def bring(self, number: int, keks: tuple[int | None, int | None]) -> None:
        """Give a session other key-encryption keys."""
        session = self.model.sessions[number]
        if session.transaction is None:
            kek, new_kek = (None if each is None else KEKS[each] for each in keks)
            bring(self.world.sessions[number], kek, new_kek)
            session.kek = kek.reveal() if kek else None
            session.new_kek = new_kek.reveal() if new_kek else None

    # Workspaces

    @rule(
        number=ANY_SESSION,
        runtime=ANY_RUNTIME,
        model=st.none() | ANY_MODEL,
        pick=NUMBER,
        request=REQUEST,
    )
    def create(
        self, number: int, runtime: str, model: str | None, pick: int, request: str | None
    ) -> None:
        used = {key[1] for key in self.model.rows if key[0] == "change"}
        new = next(ws for ws in IDS if ws not in used) if pick % 4 else self.some(pick)
        self.ask(
            number,
            "create_workspace",
            None,
            None,
            "w",
            runtime,
            model=model,
            id=new,
            request_id=request,
        )

    @rule(
        number=ANY_SESSION,
        pick=NUMBER,
        runtime=ANY_RUNTIME,
        model=st.none() | st.none() | ANY_MODEL,
        restore=st.booleans(),
        version=VERSION,
        request=REQUEST,
    )
    def change_runtime(
        self,
        number: int,
        pick: int,
        runtime: str,
        model: str | None,
        restore: bool,
        version: int | None,
        request: str | None,
    ) -> None:
        ws = self.some(pick)
        named = {"model": model, "restore": restore, "request_id": request}
        self.ask(number, "change_runtime", ws, version, runtime, **named)

    @rule(number=ANY_SESSION, pick=NUMBER, runtime=ANY_RUNTIME, restore=st.booleans())
    def switch(self, number: int, pick: int, runtime: str, restore: bool) -> None:
        """The plain call, which most often has something to do."""
        self.step(number, "change_runtime", self.some(pick), runtime, restore=restore)

    def ask(
        self, number: int, name: str, ws: UUID | None, version: int | None, *args: Any, **named: Any
    ) -> None:
        """Make a request that may be repeated; only a creation has no workspace yet."""
        if ws is not None:
            named["expected_version"] = self.expected(number, ws, version)
            args = (ws, *args)
        if named.get("request_id"):
            self.requests.append((name, args, named))
        self.step(number, name, *args, **named)

    @rule(
        number=ANY_SESSION,
        pick=NUMBER,
        name=st.sampled_from(["w", "v", "v "]),
        runtime=st.none() | ANY_RUNTIME,
        model=st.none() | st.none() | ANY_MODEL,
        restore=st.booleans(),
        version=VERSION,
        request=REQUEST,
    )
    def rename(
        self,
        number: int,
        pick: int,
        name: str,
        runtime: str | None,
        model: str | None,
        restore: bool,
        version: int | None,
        request: str | None,
    ) -> None:
        ws = self.some(pick)
        named = {"runtime": runtime, "model": model, "restore": restore, "request_id": request}
        self.ask(number, "rename_workspace", ws, version, name, **named)

    @rule(number=ANY_SESSION, pick=NUMBER, model=ANY_MODEL, version=VERSION, request=REQUEST)
    def set_model(
        self, number: int, pick: int, model: str, version: int | None, request: str | None
    ) -> None:
        self.ask(number, "set_model", self.some(pick), version, model, request_id=request)

    @precondition(lambda self: self.requests)
    @rule(number=ANY_SESSION, pick=NUMBER)
    def again(self, number: int, pick: int) -> None:
        """Repeat an earlier request."""
        name, args, named = self.requests[pick % len(self.requests)]
        self.step(number, name, *args, **named)

    @rule(
        number=ANY_SESSION,
        what=st.sampled_from(["clear_model", "clear_model", "delete_workspace"]),
        pick=NUMBER,
        version=VERSION,
        request=REQUEST,
    )
    def take_away(
        self, number: int, what: str, pick: int, version: int | None, request: str | None
    ) -> None:
        ws = self.some(pick)
        if what == "clear_model":
            self.ask(number, what, ws, version, request_id=request)
        elif len([key for key in self.model.rows if key[0] == "workspace"]) > 2:
            self.step(number, what, ws, expected_version=self.expected(number, ws, version))

    @rule(
        number=ANY_SESSION,
        pick=NUMBER,
        name=st.sampled_from(NAMES),
        value=st.sampled_from([None, "1", "2"]),
        version=VERSION,
    )
    def secret(
        self, number: int, pick: int, name: str, value: str | None, version: int | None
    ) -> None:
        ws = self.some(pick)
        named = {"expected_version": self.expected(number, ws, version)}
        if value is None:
            self.step(number, "delete_secret", ws, name, **named)
        else:
            self.step(number, "set_secret", ws, name, value, **named)

    @rule(
        number=ANY_SESSION,
        pick=NUMBER,
        what=st.sampled_from(["get_workspace", "history", "list_secrets", "get_secret"]),
        name=st.sampled_from(NAMES),
    )
    def read(self, number: int, pick: int, what: str, name: str) -> None:
        more = [name] if what == "get_secret" else []
        self.step(number, what, self.some(pick), *more)

    @rule(number=ANY_SESSION, pick=NUMBER, max_entries=st.sampled_from([1, 2, 100]))
    def page(self, number: int, pick: int, max_entries: int) -> None:
        after = self.some(pick) if pick % 2 else None
        self.step(number, "list_workspaces", after=after, max_entries=max_entries)

    @rule(
        number=ANY_SESSION,
        pick=NUMBER,
        runtime=ANY_RUNTIME,
        model=st.none() | st.none() | ANY_MODEL,
        restore=st.booleans(),
    )
    def preview(
        self, number: int, pick: int, runtime: str, model: str | None, restore: bool
    ) -> None:
        named = {"model": model, "restore": restore}
        self.step(number, "preview_runtime_change", self.some(pick), runtime, **named)

    # Many workspaces

    @rule(
        number=ANY_SESSION,
        of=ANY_RUNTIME,
        to=ANY_RUNTIME,
        restore=st.booleans(),
        request=REQUEST,
        batch=BATCH,
        among=AMONG,
        dry_run=st.booleans(),
    )
    def move(self, number: int, of: str, to: str, among: int | None, **named: Any) -> None:
        self.many(number, "move", of, to, among=among, **named)

    @rule(
        number=ANY_SESSION,
        of=st.none() | ANY_RUNTIME,
        request=REQUEST,
        batch=BATCH,
        among=AMONG,
        dry_run=st.booleans(),
    )
    def reset(self, number: int, of: str | None, among: int | None, **named: Any) -> None:
        self.many(number, "reset_orphans", of, among=among, **named)

    def many(
        self,
        number: int,
        name: str,
        *runtimes: str | None,
        among: int | None,
        request: str | None,
        **named: Any,
    ) -> None:
        """Change a batch of workspaces; `among`: some that are there, or not, or the same."""
        ids = None if among is None else [self.some(among), self.some(among + 1), NOBODY]
        after = self.some(among) if among and among % 5 == 0 else None
        named |= {"request_id": request, "among": ids, "after": after}
        if request:
            self.requests.append((name, runtimes, named))
        self.step(number, name, *runtimes, **named)

    # The registry

    @rule(
        number=ANY_SESSION,
        what=st.sampled_from(
            ["resolve", "menu", "default_model", "deprecations", "key_status", "orphans"]
        ),
        runtime=ANY_RUNTIME,
        model=ANY_MODEL,
        auth_env=st.lists(st.sampled_from(NAMES[:2])),
    )
    def read_registry(
        self, number: int, what: str, runtime: str, model: str, auth_env: list[str]
    ) -> None:
        if what == "resolve":
            self.step(number, what, runtime, model, auth_env=auth_env)
        else:
            self.step(number, what, *([] if what in ("deprecations", "key_status") else [runtime]))

    @rule(
        number=ANY_SESSION,
        manifest=MANIFEST,
        on_orphan=st.sampled_from(["refuse", "keep", "reset"]),
        dry_run=st.sampled_from([False, False, True]),
        spoil=st.sampled_from([False, False, False, True]),
        complete=st.sampled_from([True, True, False]),
    )
    def load(
        self,
        number: int,
        manifest: Json,
        on_orphan: str,
        dry_run: bool,
        spoil: bool,
        complete: bool,
    ) -> None:
        if complete:  # Or else there is nearly always a runtime in use that it lacks.
            named = {each["name"] for each in manifest["runtimes"]}
            missing = [{"name": name} for name in RUNTIMES if name not in named]
            manifest = {**manifest, "runtimes": [*manifest["runtimes"], *missing]}
        if spoil and manifest["runtimes"]:
            first, *others = manifest["runtimes"]
            spoilt = {**first, "default_model": "on no menu"}
            manifest = {**manifest, "runtimes": [spoilt, *others]}
        self.step(number, "load_registry", manifest, on_orphan=on_orphan, dry_run=dry_run)

    @rule(
        number=ANY_SESSION,
        pick=NUMBER,
        on_orphan=st.sampled_from(["refuse", "keep", "reset"]),
        dry_run=st.sampled_from([False, False, True]),
    )
    def restore(self, number: int, pick: int, on_orphan: str, dry_run: bool) -> None:
        revision = 1 + pick % (self.model.rows[told.REGISTRY].revision + 1)
        self.step(number, "restore_registry", revision, on_orphan=on_orphan, dry_run=dry_run)

    # The keys

    @rule(
        number=ANY_SESSION,
        what=st.sampled_from(["init", "init", "rotate", "retire", "rewrap"]),
        pick=NUMBER,
    )
    def change_keys(self, number: int, what: str, pick: int) -> None:
        keys = [*self.model.rows[told.KEYRING].keys, 0]
        match what:
            case "retire":
                self.step(number, "retire", keys[pick % len(keys)])
            case "rewrap":
                self.step(number, "rewrap", KEKS[pick % 2])
            case _:
                self.step(number, what)

    @rule(number=ANY_SESSION, batch=st.sampled_from([1, 2, 1000]), pick=NUMBER)
    def reseal(self, number: int, batch: int, pick: int) -> None:
        if self.model.sessions[number].transaction is None:
            after = self.some(pick) if pick % 3 == 0 else None
            self.step(number, "reseal", after=after, batch=batch)

    @rule(pick=NUMBER)
    def damage(self, pick: int) -> None:
        """Make a model unreadable."""
        key = ("secret", self.some(pick), "MODEL")
        if key in self.model.rows and not any(self.model.open()):
            self.world.observer.execute(
                "update workspace.secrets set sealed = %s where workspace_id = %s and key = %s",
                [UNREADABLE, *key[1:]],
            )
            self.model.rows[key] = Stored(None, self.model.rows[key].key)

    # The feed

    @rule(batch=BATCH)
    def follow(self, batch: int) -> None:
        """Read on in the feed."""
        reader, observer = self.reader, self.world.observer
        behind = [each for each in self.model.feed() if each.place > reader.place]
        expected = [told.as_fed(each) for each in behind[:batch]]
        # A cursor counts the prunings that were over when it was given.
        new = self.model.pruned[reader.pruned :] if reader.cursor else []

        def read() -> tuple[str, Any]:
            return outcome(lambda: pyapi.changes_after(observer, reader.cursor, batch=batch))

        # Whatever else runs on the server, such as an autoanalyze, can hold the feed up.
        wait_until(lambda: read()[0] != "done" or len(read()[1]) >= len(expected))
        code, entries = read()
        self.count("changes_after", code)
        if code == "done":
            assert max(new, default=reader.place) <= reader.place, "a reader missed what was pruned"
            assert [replace(each, cursor="") for each in entries] == expected
            if entries:
                place, pruned = behind[:batch][-1].place, len(self.model.pruned)
                self.reader = Reader(entries[-1].cursor, place, pruned)
        else:
            assert (code, entries) == ("INVALID_ARGUMENT", {"argument": "cursor"})
            assert new
            assert max(self.model.pruned) > reader.place
            self.reader = Reader()

    @rule()
    def mark(self) -> None:
        """Remember a time, for pruning."""
        row = self.world.observer.execute("select clock_timestamp()").fetchone()
        assert row
        self.model.tick += 1
        self.marks.append((self.model.tick, row[0]))

    @precondition(lambda self: self.marks)
    @rule(pick=NUMBER, batch=st.sampled_from([1, 4, 1000]))
    def prune(self, pick: int, batch: int) -> None:
        """Prune to the end."""
        before, moment = self.marks[pick % len(self.marks)]
        pruned, cursor, finished = 0, None, False
        while not finished:
            done = pyapi.prune_changes(self.world.observer, moment, batch=batch, cursor=cursor)
            pruned, cursor, finished = pruned + done.pruned, done.cursor, done.finished
            self.count("prune_changes", "done")
        assert pruned == self.model.prune(before)

    def teardown(self) -> None:
        """What is left, once all transactions are over."""
        for number in range(SESSIONS):
            if self.model.sessions[number].transaction is not None:
                self.end(number, "rollback")
        self.follow(1000)
        self.follow(1000)  # The first may have been refused.
        last = [entry.place for entry in self.model.feed()[-1:]]
        assert not last or self.reader.place == last[0]


@pytest.fixture
def world(keyless: Database) -> World:
    """The connections; no autovacuum, which can be in the way of a lock for a moment."""
    options = "-c lock_timeout=1ms"
    sessions = [keyless.connect(autocommit=True, options=options) for _ in range(SESSIONS)]
    both = keyring.startup_options(KEKS[0], new_kek=KEKS[1])
    observer = keyless.connect(autocommit=True, options=both)
    for table in TABLES:
        observer.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
    return World(sessions, observer)


@pytest.mark.timeout(600 + OPERATIONS // 10)
def test_what_sessions_do_at_once_is_what_the_rules_say(world: World) -> None:
    machine: Any = partial(Machine, world)
    for run in count(SEED * 1000):
        run_state_machine_as_test(seed(run)(machine), settings=SETTINGS)
        if world.counts["operations"] >= OPERATIONS:
            break
    assert EXPECTED - world.counts.keys() == set()
    figures.record(
        "random calls, compared with the rules",
        operations=world.counts["operations"],
        examples=world.examples,
        done=world.counts["done"],
        refused=world.counts["operations"] - world.counts["done"],
        **{"different calls": sum(name.startswith("call ") for name in world.counts)},
        **{"different refusals": sum(name.isupper() for name in world.counts)},
        deviations=0,
    )
