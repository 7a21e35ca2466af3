"""The product's rules told again, in plain Python, for several sessions with open transactions.

The rows are kept by key, as values that never change: what is committed is one dictionary, a
transaction's own writes are another one before it, and a snapshot is a copy. A function here has
the name and the arguments of the one in `pyapi` that it stands for, and returns or refuses what
that has to.

Who waits, and for whom: each write holds the registry, the keys and its workspace to the end of its
transaction. A load of a registry holds the registry alone, a change of the keys the keys. Nobody
here waits: whoever would have to is refused with LOCK_TIMEOUT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pyapi import (
    Change,
    Deprecation,
    FeedEntry,
    HistoryEntry,
    MoveEntry,
    Orphan,
    RegistryLoad,
    Workspace,
    WorkspaceEntry,
)
from pyapi.keyring import Kek, ResealProgress, StatusEntry
from support import Json, claims
from test_registry_difference import difference

Key = tuple[Any, ...]
Rows = dict[Key, Any]
Place = tuple[int, UUID, int]

SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)
"""Stands for every time that the database's clock gives."""
COMMITTED, REPEATABLE, SERIALIZABLE = "read committed", "repeatable read", "serializable"
REGISTRY, KEYRING = ("registry",), ("keyring",)


class Refused(Exception):
    """A call is refused, with this code and DETAIL."""

    def __init__(self, code: str, **detail: Any) -> None:
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Registry:
    revision: int = 0
    manifest: Json = field(default_factory=lambda: {"providers": [], "runtimes": []})


@dataclass(frozen=True, slots=True)
class Keyring:
    keys: tuple[int, ...] = ()
    """The last one is active."""
    kek: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A value, and the key that seals it; None for a text: it cannot be read any more."""

    text: str | None
    key: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """A workspace's row."""

    name: str
    runtime: str
    version: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the history."""

    answer: Change
    action: str
    previous: Stored | None
    model: Stored | None
    place: Place
    tick: int
    restore: bool = False
    request_id: str | None = None
    secret: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """What a runtime does with a model."""

    routable: bool = False
    provider: str | None = None
    billed_to: str | None = None
    deprecated: bool = False
    sunset_at: datetime | None = None


@dataclass(slots=True)
class Transaction:
    """`snapshot` is None at READ COMMITTED, where each statement sees what is committed."""

    level: str = COMMITTED
    snapshot: Rows | None = None
    writes: Rows = field(default_factory=dict)
    holds: dict[Key, bool] = field(default_factory=dict)
    """What it has locked; True: alone."""
    xid: int | None = None
    """When it got its transaction id."""
    new_kek: str | None = None
    """What rewrap sets for the rest of the transaction."""
    met: bool = False
    """Another serializable transaction was open meanwhile: then it may fail with 40001 any time."""


@dataclass(slots=True)
class Session:
    kek: str | None = None
    new_kek: str | None = None
    transaction: Transaction | None = None


# The registry


def runtimes(manifest: Json) -> dict[str, Json]:
    return {each["name"]: each for each in manifest["runtimes"]}


def menu(manifest: Json, runtime: str) -> list[str]:
    arms = runtimes(manifest)[runtime].get("arms", [])
    return list(dict.fromkeys(model for arm in arms for model in arm.get("models", [])))


def default_of(manifest: Json, runtime: str) -> str | None:
    listed = menu(manifest, runtime)
    default: str | None = runtimes(manifest)[runtime].get("default_model")
    return default or (listed[0] if listed else None)


def moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=at.tzinfo or UTC)


def deprecation_of(manifest: Json, runtime: str, model: str) -> Json | None:
    """What the manifest says against a model of this runtime's menu."""
    for each in manifest.get("deprecations", []):
        if each["model"] == model and runtime in each.get("runtimes", [runtime]):
            return each if model in menu(manifest, runtime) else None
    return None


def route(manifest: Json, runtime: str, model: str | None, credentials: set[str]) -> Routing:
    of = runtimes(manifest).get(runtime)
    if of is None or model is None:
        return Routing()
    providers = {each["name"]: each for each in manifest["providers"]}
    arms = of.get("arms", [])
    listing = [arm["provider"] for arm in arms if model in arm.get("models", [])]
    usable = [name for name in listing if credentials & set(providers[name].get("auth_env", []))]
    claiming = [arm["provider"] for arm in arms if claims(providers[arm["provider"]], model)]
    chosen = (usable if len(usable) == 1 else listing) or claiming
    if not chosen:
        return Routing(routable=of.get("model_policy") == "any")
    payer = providers[chosen[0]].get("billed_to", "tenant")
    dated = deprecation_of(manifest, runtime, model) or {}
    deprecated = bool(dated) and moment(dated["deprecated_at"]) <= datetime.now(UTC)
    sunset_at = moment(dated["sunset_at"]) if "sunset_at" in dated else None
    return Routing(True, chosen[0], payer, deprecated, sunset_at)


def reset(manifest: Json, runtime: str, model: str) -> tuple[str | None, str]:
    """What replaces a model that is not registered for the runtime, and why."""
    same = {other for group in manifest.get("equivalents", []) if model in group for other in group}
    for listed in menu(manifest, runtime):
        if listed in same:
            return listed, "equivalent"
    return default_of(manifest, runtime), "default"


def valid_models(manifest: Json, runtime: str) -> Json:
    listed = menu(manifest, runtime)
    return {"valid_models": listed[:50], "valid_models_total": len(listed)}


def clean(argument: str, value: str) -> str:
    if not value.strip():
        raise Refused("INVALID_ARGUMENT", argument=argument)
    return value.strip()


def secret_name(value: str) -> str:
    if value.strip() == "MODEL":
        raise Refused("INVALID_ARGUMENT", argument="name")
    return clean("name", value)


class Model:
    """All that is committed, and the sessions."""

    def __init__(self, sessions: int) -> None:
        self.rows: Rows = {REGISTRY: Registry(), KEYRING: Keyring()}
        self.sessions = [Session() for _ in range(sessions)]
        self.tick = 0
        self.pruned: list[Place] = []
        """What was pruned, the last of each pruning."""

    # Transactions

    def open(self) -> Iterator[Transaction]:
        return (each.transaction for each in self.sessions if each.transaction is not None)

    def begin(self, session: Session, level: str) -> None:
        transaction = Transaction(level)
        if level != COMMITTED:
            transaction.snapshot = dict(self.rows)
        for other in self.open():
            if level == other.level == SERIALIZABLE:
                transaction.met = other.met = True
        session.transaction = transaction

    def commit(self, session: Session) -> None:
        assert session.transaction is not None
        for key, row in session.transaction.writes.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        session.transaction = None

    def rollback(self, session: Session) -> None:
        session.transaction = None

    def call(self, session: Session, name: str, *args: Any, **named: Any) -> Any:
        """Call a function in the session's transaction, or else in one of its own."""
        self.tick += 1
        own = session.transaction is None
        if own:
            self.begin(session, COMMITTED)
        now = Call(self, session)
        assert session.transaction is not None
        held = dict(session.transaction.holds)
        try:
            answer = getattr(now, name)(*args, **named)
        except Refused:
            session.transaction.holds = held
            if own:
                self.rollback(session)
            raise
        if own:
            self.commit(session)
        return answer

    # The feed

    def feed(self) -> list[Entry]:
        """What the feed gives, from its beginning."""
        running = [each.xid for each in self.open() if each.xid is not None]
        end = min(running, default=self.tick + 1)
        given = [row for key, row in self.rows.items() if key[0] == "change"]
        return sorted((each for each in given if each.place[0] < end), key=lambda each: each.place)

    def prune(self, before: int) -> int:
        """Take away what may go of what was written before a tick; how much that is."""
        going = []
        for entry in self.feed():
            of = self.history(entry.answer.workspace_id)
            later = [each for each in of if each.answer.version > entry.answer.version]
            restorable = (
                ("workspace", entry.answer.workspace_id) in self.rows
                and entry.model is not None
                and not any(
                    each.model is not None and each.answer.runtime == entry.answer.runtime
                    for each in later
                )
            )
            is_old = entry.tick < before and entry.request_id is None
            if is_old and entry.answer.version > 1 and later and not restorable:
                going.append(entry)
        for entry in going:
            del self.rows["change", entry.answer.workspace_id, entry.answer.version]
        self.pruned += [entry.place for entry in going]
        return len(going)

    def history(self, ws: UUID) -> list[Entry]:
        """What is committed of a workspace's."""
        found = [row for key, row in self.rows.items() if key[:2] == ("change", ws)]
        return sorted(found, key=lambda entry: entry.answer.version)


class Call:
    """The functions, as a session calls them at one moment."""

    def __init__(self, model: Model, session: Session) -> None:
        assert session.transaction is not None
        self.model, self.session, self.own = model, session, session.transaction
        base = model.rows if self.own.snapshot is None else self.own.snapshot
        self.rows = {
            key: row for key, row in {**base, **self.own.writes}.items() if row is not None
        }

    # What it sees

    @property
    def manifest(self) -> Json:
        registry: Registry = self.rows[REGISTRY]
        return registry.manifest

    def of(self, kind: str, ws: UUID | None = None) -> Rows:
        """The rows of a kind, and of a workspace."""
        return {
            key: row
            for key, row in self.rows.items()
            if key[0] == kind and (ws is None or key[1] == ws)
        }

    def entries(self, ws: UUID | None = None) -> list[Entry]:
        found: list[Entry] = list(self.of("change", ws).values())
        return sorted(found, key=lambda each: (each.answer.workspace_id, each.answer.version))

    def workspace(self, ws: UUID) -> Row:
        row: Row | None = self.rows.get(("workspace", ws))
        if row is None:
            raise Refused("WORKSPACE_NOT_FOUND", workspace_id=str(ws))
        return row

    def secret(self, ws: UUID, name: str = "MODEL") -> Stored | None:
        return self.rows.get(("secret", ws, name))

    def credentials(self, ws: UUID) -> set[str]:
        return {key[2] for key in self.of("secret", ws)} - {"MODEL"}

    def has_key(self) -> bool:
        """Whether the session can open the keys, if there are any."""
        keyring: Keyring = self.rows[KEYRING]
        keks = {self.session.kek, self.own.new_kek or self.session.new_kek}
        return not keyring.keys or keyring.kek in keks

    def need_key(self) -> None:
        if not self.has_key():
            raise Refused("ENCRYPTION_KEY_MISSING")

    def text(self, stored: Stored | None) -> str | None:
        """What a value says, if it can be read."""
        if stored is None or (stored.key is not None and not self.has_key()):
            return None
        return stored.text

    def need_runtime(self, runtime: str) -> None:
        if runtime in runtimes(self.manifest):
            return
        if self.rows[REGISTRY].revision == 0:
            raise Refused("REGISTRY_UNAVAILABLE")
        valid = list(runtimes(self.manifest))
        raise Refused("RUNTIME_UNSUPPORTED", runtime=runtime, valid_runtimes=valid)

    def need_committed(self) -> None:
        if self.own.level != COMMITTED:
            raise Refused("ISOLATION_UNSUPPORTED", isolation=self.own.level)

    # What it takes

    def hold(self, thing: Key, *, alone: bool = False) -> None:
        for other in self.model.open():
            if other is not self.own and thing in other.holds and (alone or other.holds[thing]):
                raise Refused("LOCK_TIMEOUT")
        self.own.holds[thing] = alone or self.own.holds.get(thing, False)

    def be_fresh(self, key: Key) -> None:
        """Refuse a snapshot that does not see the row as it is."""
        if self.own.snapshot is not None and key not in self.own.writes:
            now = self.model.rows.get(key)
            if now is not self.own.snapshot.get(key):
                raise Refused("SERIALIZATION_FAILURE")

    def take(self, thing: Key) -> bool:
        """Hold it alone, if nobody else holds it."""
        try:
            self.hold(thing, alone=True)
        except Refused:
            return False
        return True

    def hold_all(self) -> None:
        for thing in (REGISTRY, KEYRING):
            self.hold(thing)
            self.be_fresh(thing)

    def lock(self, ws: UUID, runtime: str | None = None) -> Row:
        if runtime is not None and ("workspace", ws) not in self.rows:
            self.need_runtime(runtime)
        row = self.workspace(ws)
        self.be_fresh(("workspace", ws))
        self.hold(("workspace", ws), alone=True)
        return row

    def expect(self, ws: UUID, row: Row, version: int | None) -> None:
        if version is not None and version != row.version:
            raise Refused(
                "VERSION_CONFLICT",
                workspace_id=str(ws),
                expected_version=version,
                version=row.version,
            )

    def put(self, key: Key, row: Any) -> None:
        self.be_fresh(key)
        self.own.writes[key] = row
        self.own.xid = self.own.xid or self.model.tick

    def seal(self, text: str) -> Stored:
        keyring: Keyring = self.rows[KEYRING]
        return Stored(text, keyring.keys[-1] if keyring.keys else None)

    # Workspaces

    def decide(
        self, ws: UUID, current: Stored | None, runtime: str, wanted: str | None, restore: bool
    ) -> tuple[str | None, str]:
        """The model that a workspace gets on a runtime, and why."""

        def routable(model: str | None) -> bool:
            return route(self.manifest, runtime, model, set()).routable

        if wanted is not None:
            if not routable(wanted):
                raise Refused(
                    "MODEL_NOT_REGISTERED", runtime=runtime, **valid_models(self.manifest, runtime)
                )
            return wanted, "requested"
        if current is None:
            return None, "none"
        if current.text is None:
            raise Refused("SECRET_UNREADABLE", workspace_id=str(ws))
        if routable(current.text):
            return current.text, "kept"
        if restore:
            there = [each for each in self.entries(ws) if each.answer.runtime == runtime]
            models = [each.model for each in there if each.model is not None]
            if models and routable(models[-1].text):
                return models[-1].text, "restored"
        model, source = reset(self.manifest, runtime, current.text)
        if model is None:
            raise Refused(
                "NO_DEFAULT_MODEL", runtime=runtime, **valid_models(self.manifest, runtime)
            )
        return model, source

    def describe(
        self,
        ws: UUID,
        was: Row | None,
        runtime: str | None,
        model: str | None,
        source: str,
    ) -> Change:
        """The answer to a call that gives a workspace a runtime and a model, before the write."""
        stored, having = self.secret(ws), self.credentials(ws)
        current = self.text(stored)
        unreadable = stored is not None and current is None
        previous_runtime = was.runtime if was else None
        changed = unreadable or (previous_runtime, current) != (runtime, model)
        then = route(self.manifest, previous_runtime or "", current, having)
        now = route(self.manifest, runtime or "", model, having)
        return Change(
            workspace_id=ws,
            version=was.version if was else 0,
            changed=changed,
            previous_runtime=previous_runtime,
            runtime=runtime,
            previous_model=current,
            model=model,
            model_source=source,
            model_was_reset=source in ("restored", "equivalent", "default"),
            provider=now.provider,
            billed_to=now.billed_to,
            billing_changed=changed and None not in (pays := {then.billed_to, now.billed_to})
            and len(pays) == 2,
            needs_restart=changed and was is not None and runtime is not None,
            model_deprecated=now.deprecated,
            model_sunset_at=now.sunset_at,
        )  # fmt: skip

    def record(self, answer: Change, action: str, previous: Stored | None, **said: Any) -> Change:
        """Write the next row of the history; the answer with its version."""
        ws, version = answer.workspace_id, answer.version + 1
        self.own.xid = self.own.xid or self.model.tick
        before = self.rows.get(("change", ws, version - 1))
        at = max(self.own.xid, before.place[0] if before else 0)
        answer = replace(answer, version=version)
        if self.text(previous) is None and "secret" not in said:
            previous = None  # What takes the place of an unreadable model.
        now = self.own.writes.get(key := ("secret", ws, "MODEL"), self.rows.get(key))
        place = (at, ws, version)
        entry = Entry(answer, action, previous, now, place, self.model.tick, **said)
        self.own.writes["change", ws, version] = entry
        return answer

    def write(
        self,
        answer: Change,
        action: str,
        row: Row,
        restore: bool,
        request_id: str | None,
        name: str | None = None,
    ) -> Change:
        """Do what was decided, if anything is to be done or to be recorded."""
        if name is not None and name != row.name:
            answer = replace(answer, changed=True)
        if not answer.changed and request_id is None:
            return answer
        ws, stored = answer.workspace_id, self.secret(answer.workspace_id)
        assert answer.runtime is not None
        if (answer.model is None) != (stored is None) or self.text(stored) != answer.model:
            sealed = None if answer.model is None else self.seal(answer.model)
            self.put(("secret", ws, "MODEL"), sealed)
        self.put(("workspace", ws), Row(name or row.name, answer.runtime, row.version + 1))
        return self.record(
            answer, action, stored, restore=restore, request_id=request_id, name=name
        )

    def recorded(
        self, ws: UUID, request_id: str | None, action: str, asked: tuple[object, ...]
    ) -> Change | None:
        """The recorded answer to a request: `asked` are its runtime, model, restore and name."""
        for entry in self.entries(ws) if request_id is not None else []:
            if entry.request_id == request_id:
                said, (runtime, *others) = entry.answer, asked
                model = said.model if said.model_source == "requested" else None
                done = (entry.action, said.runtime, model, entry.restore, entry.name)
                if done != (action, runtime or said.previous_runtime, *others):
                    raise Refused("REQUEST_ID_REUSED", workspace_id=str(ws))
                return replace(said, previous_model=self.text(entry.previous))
        return None

    def create_workspace(
        self,
        name: str,
        runtime: str,
        *,
        model: str | None = None,
        id: UUID,
        request_id: str | None = None,
    ) -> Change:
        model = None if model is None else clean("model", model)
        self.hold_all()
        self.need_key()
        asked = (runtime, model, False, name)
        if answer := self.recorded(id, request_id, "create_workspace", asked):
            return answer
        self.need_runtime(runtime)
        self.decide(id, None, runtime, model, False)
        if any(
            ("workspace", id) in each.writes for each in self.model.open() if each is not self.own
        ):
            raise Refused("LOCK_TIMEOUT")
        for rows in (self.model.rows, self.rows):
            if ("workspace", id) in rows or ("change", id, 1) in rows:
                raise Refused("WORKSPACE_EXISTS", workspace_id=str(id))
        source = "none" if model is None else "requested"
        answer = self.describe(id, None, runtime, model, source)
        self.put(("workspace", id), Row(name, runtime, 1))
        if model is not None:
            self.put(("secret", id, "MODEL"), self.seal(model))
        return self.record(answer, "create_workspace", None, name=name, request_id=request_id)

    def change_runtime(
        self,
        ws: UUID,
        runtime: str,
        *,
        model: str | None = None,
        restore: bool = False,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> Change:
        model = None if model is None else clean("model", model)
        self.hold_all()
        row = self.lock(ws, runtime)
        self.need_key()
        asked = (runtime, model, restore, None)
        if answer := self.recorded(ws, request_id, "change_runtime", asked):
            return answer
        self.need_runtime(runtime)
        self.expect(ws, row, expected_version)
        chosen, source = self.decide(ws, self.secret(ws), runtime, model, restore)
        answer = self.describe(ws, row, runtime, chosen, source)
        return self.write(answer, "change_runtime", row, restore, request_id)

    def set_model(
        self,
        ws: UUID,
        model: str,
        *,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> Change:
        model = clean("model", model)
        self.hold_all()
        row = self.lock(ws)
        self.need_key()
        if answer := self.recorded(ws, request_id, "set_model", (None, model, False, None)):
            return answer
        self.expect(ws, row, expected_version)
        self.decide(ws, None, row.runtime, model, False)
        answer = self.describe(ws, row, row.runtime, model, "requested")
        return self.write(answer, "set_model", row, False, request_id)

    def clear_model(
        self, ws: UUID, *, expected_version: int | None = None, request_id: str | None = None
    ) -> Change:
        self.hold_all()
        row = self.lock(ws)
        if answer := self.recorded(ws, request_id, "clear_model", (None, None, False, None)):
            return answer
        self.expect(ws, row, expected_version)
        answer = self.describe(ws, row, row.runtime, None, "none")
        return self.write(answer, "clear_model", row, False, request_id)

    def rename_workspace(
        self,
        ws: UUID,
        name: str,
        *,
        runtime: str | None = None,
        model: str | None = None,
        restore: bool = False,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> Change:
        name = clean("name", name)
        model = None if model is None else clean("model", model)
        if restore and runtime is None:
            raise Refused("INVALID_ARGUMENT", argument="restore")
        self.hold_all()
        row, stored = self.lock(ws), self.secret(ws)
        self.need_key()
        asked = (runtime, model, restore, name)
        if answer := self.recorded(ws, request_id, "rename_workspace", asked):
            return answer
        if runtime is not None:
            self.need_runtime(runtime)
        self.expect(ws, row, expected_version)
        target = runtime or row.runtime
        if runtime is not None or model is not None:
            chosen, source = self.decide(ws, stored, target, model, restore)
        elif stored is not None and stored.text is None:
            raise Refused("SECRET_UNREADABLE", workspace_id=str(ws))
        else:
            chosen, source = (stored.text, "kept") if stored else (None, "none")
        answer = self.describe(ws, row, target, chosen, source)
        return self.write(answer, "rename_workspace", row, restore, request_id, name)

    def delete_workspace(self, ws: UUID, *, expected_version: int | None = None) -> Change:
        self.hold_all()
        row = self.lock(ws)
        self.expect(ws, row, expected_version)
        answer, stored = self.describe(ws, row, None, None, "none"), self.secret(ws)
        for key in [*self.of("secret", ws), ("workspace", ws)]:
            self.put(key, None)
        return self.record(answer, "delete_workspace", stored)

    def get_workspace(self, ws: UUID) -> Workspace:
        row, stored = self.workspace(ws), self.secret(ws)
        self.need_key()
        if stored is not None and stored.text is None:
            raise Refused("SECRET_UNREADABLE", workspace_id=str(ws))
        model = stored.text if stored else None
        routing = route(self.manifest, row.runtime, model, self.credentials(ws))
        return Workspace(
            ws,
            row.name,
            row.runtime,
            model,
            routing.routable if stored else None,
            routing.provider,
            routing.billed_to,
            row.version,
            SOME_TIME,
            SOME_TIME,
            routing.deprecated,
            routing.sunset_at,
        )

    def preview_runtime_change(
        self, ws: UUID, runtime: str, *, model: str | None = None, restore: bool = False
    ) -> Change:
        model = None if model is None else clean("model", model)
        self.need_runtime(runtime)
        row = self.workspace(ws)
        self.need_key()
        chosen, source = self.decide(ws, self.secret(ws), runtime, model, restore)
        return self.describe(ws, row, runtime, chosen, source)

    def history(self, ws: UUID) -> list[HistoryEntry]:
        self.need_key()
        if not (entries := self.entries(ws)):
            raise Refused("WORKSPACE_NOT_FOUND", workspace_id=str(ws))
        return [as_history(entry) for entry in entries]

    def list_workspaces(self, *, after: UUID | None, max_entries: int) -> list[WorkspaceEntry]:
        there = [
            WorkspaceEntry(ws, row.name, row.runtime, row.version, SOME_TIME, SOME_TIME)
            for (_, ws), row in sorted(self.of("workspace").items())
            if after is None or ws > after
        ]
        return there[:max_entries]

    # Secrets

    def set_secret(
        self, ws: UUID, name: str, value: str, *, expected_version: int | None = None
    ) -> Change:
        name = secret_name(name)
        self.hold_all()
        row = self.lock(ws)
        self.need_key()
        self.expect(ws, row, expected_version)
        stored = self.secret(ws, name)
        same = stored is not None and stored.text == value
        after = None if same else self.seal(value)
        return self.write_secret(ws, row, "set_secret", name, None if same else (after,))

    def delete_secret(self, ws: UUID, name: str, *, expected_version: int | None = None) -> Change:
        name = secret_name(name)
        self.hold_all()
        row = self.lock(ws)
        self.expect(ws, row, expected_version)
        there = self.secret(ws, name) is not None
        return self.write_secret(ws, row, "delete_secret", name, (None,) if there else None)

    def write_secret(
        self, ws: UUID, row: Row, action: str, name: str, write: tuple[Stored | None] | None
    ) -> Change:
        """Write the secret, if there is something to write; the pair stays."""
        stored = self.secret(ws)
        model, having = self.text(stored), self.credentials(ws)
        then = route(self.manifest, row.runtime, model, having)
        having = having - {name} if action == "delete_secret" else having | {name}
        now = route(self.manifest, row.runtime, model, having)
        answer = replace(
            self.describe(ws, row, row.runtime, model, "kept" if stored else "none"),
            changed=write is not None,
            provider=now.provider,
            billed_to=now.billed_to,
            billing_changed=write is not None
            and None not in (then.billed_to, now.billed_to)
            and then.billed_to != now.billed_to,
            needs_restart=write is not None,
        )
        if write is None:
            return answer
        self.put(("secret", ws, name), write[0])
        self.put(("workspace", ws), replace(row, version=row.version + 1))
        return self.record(answer, action, stored, secret=name)

    def get_secret(self, ws: UUID, name: str) -> str:
        name = secret_name(name)
        stored = self.secret(ws, name)
        if stored is None:
            self.workspace(ws)
            raise Refused("SECRET_NOT_FOUND", workspace_id=str(ws), secret=name)
        self.need_key()
        assert stored.text is not None
        return stored.text

    def list_secrets(self, ws: UUID) -> list[str]:
        self.workspace(ws)
        return sorted(key[2] for key in self.of("secret", ws))

    # The registry

    def resolve(self, runtime: str, model: str, *, auth_env: list[str]) -> str | None:
        model = clean("model", model)
        self.need_runtime(runtime)
        return route(self.manifest, runtime, model, set(auth_env)).provider

    def menu(self, runtime: str) -> list[str]:
        self.need_runtime(runtime)
        return menu(self.manifest, runtime)

    def default_model(self, runtime: str) -> str | None:
        self.need_runtime(runtime)
        return default_of(self.manifest, runtime)

    def deprecations(self) -> list[Deprecation]:
        self.need_key()
        found = []
        for (_, ws), row in self.of("workspace").items():
            stored = self.secret(ws)
            if stored is None or stored.text is None:
                continue
            if said := deprecation_of(self.manifest, row.runtime, stored.text):
                end = moment(said["sunset_at"]) if "sunset_at" in said else None
                since, successor = moment(said["deprecated_at"]), said.get("successor")
                found.append(Deprecation(ws, row.runtime, stored.text, since, end, successor))
        never = datetime.max.replace(tzinfo=UTC)

        def order(each: Deprecation) -> tuple[object, ...]:
            end = each.sunset_at or never
            return end, each.deprecated_at, each.runtime, each.model, each.workspace_id

        return sorted(found, key=order)

    def load_registry(
        self, manifest: Json, *, on_orphan: str = "refuse", dry_run: bool = False
    ) -> RegistryLoad:
        self.need_committed()
        for number, each in enumerate(manifest["runtimes"]):
            if each.get("default_model", None) not in [None, *menu(manifest, each["name"])]:
                raise Refused("REGISTRY_INVALID", path=f"runtimes[{number}].default_model")
        old: Registry = self.rows[REGISTRY]
        answer = RegistryLoad(old.revision, False, [], [], [], [])
        if manifest == old.manifest:
            return answer
        self.hold(REGISTRY, alone=True)
        said: dict[str, Any] = difference(old.manifest, manifest)
        answer = replace(answer, **said)
        used = [row.runtime for row in self.of("workspace").values()]
        if gone := sorted(set(used) - set(runtimes(manifest))):
            in_use = [{"runtime": name, "workspaces": used.count(name)} for name in gone]
            raise Refused("RUNTIME_IN_USE", runtimes=in_use)
        self.need_key()
        orphans = []
        for (_, ws), row in sorted(self.of("workspace").items()):
            model = (self.secret(ws) or Stored(None, None)).text
            if (
                model is not None
                and route(old.manifest, row.runtime, model, set()).routable
                and not route(manifest, row.runtime, model, set()).routable
            ):
                becomes, source = reset(manifest, row.runtime, model)
                orphans.append(
                    {
                        "workspace_id": str(ws),
                        "runtime": row.runtime,
                        "model": model,
                        "reset_model": becomes,
                        "reset_source": source if becomes else None,
                    }
                )
        answer = replace(answer, orphans=orphans)
        if dry_run:
            return answer
        told = [
            {name: each[name] for name in ("workspace_id", "runtime")}
            for each in orphans
            if on_orphan == "refuse" or each["reset_model"] is None
        ]
        if told and on_orphan != "keep":
            raise Refused("REGISTRY_ORPHANS", orphans=told, orphans_total=len(told))
        if orphans and on_orphan == "reset":
            self.hold(KEYRING)
        revision = old.revision + 1
        self.put(REGISTRY, Registry(revision, manifest))
        self.put(("revision", revision), manifest)
        if on_orphan == "reset":
            after = Call(self.model, self.session)
            for each in orphans:
                ws = UUID(each["workspace_id"])
                after.switch(ws, after.lock(ws), None, False, None)
        return replace(answer, revision=revision, loaded=True)

    def restore_registry(
        self, revision: int, *, on_orphan: str = "refuse", dry_run: bool = False
    ) -> RegistryLoad:
        manifest = self.rows.get(("revision", revision))
        if manifest is None:
            raise Refused("REVISION_NOT_FOUND", revision=revision)
        return self.load_registry(manifest, on_orphan=on_orphan, dry_run=dry_run)

    # Many workspaces

    def switch(
        self, ws: UUID, row: Row, runtime: str | None, restore: bool, request_id: str | None
    ) -> tuple[str, Change]:
        """What change_runtime does once all is held; without a runtime it resets an orphan."""
        target = runtime or row.runtime
        asked = (target, None, restore, None)
        if answer := self.recorded(ws, request_id, "change_runtime", asked):
            return "recorded", answer
        model, source = self.decide(ws, self.secret(ws), target, None, restore)
        answer = self.describe(ws, row, target, model, source)
        outcome = "changed" if answer.changed else "unchanged"
        if runtime is None and not answer.changed:
            return outcome, answer  # Not recorded: it is no request to this workspace.
        return outcome, self.write(answer, "change_runtime", row, restore, request_id)

    def batch(
        self,
        ids: list[UUID],
        of: str | None,
        to: str | None,
        restore: bool,
        request_id: str | None,
        dry_run: bool,
    ) -> list[MoveEntry]:
        """Switch these workspaces, as far as they are on the runtime `of` and nobody holds them."""
        self.need_key()
        before, xid = dict(self.own.writes), self.own.xid
        entries = []
        for ws in ids:
            row: Row | None = self.rows.get(("workspace", ws))
            if row is None or of not in (None, row.runtime):
                entries.append(MoveEntry(ws, "gone", *[None] * 7))
                continue
            free = dry_run or self.take(("workspace", ws))
            as_it_is, model = (row.version, row.runtime, row.runtime), self.text(self.secret(ws))
            if not free:
                entries.append(MoveEntry(ws, "skipped", None, *as_it_is, None, None, None))
                continue
            try:
                outcome, said = self.switch(ws, row, to, restore, request_id)
            except Refused as refusal:
                now = (*as_it_is, model, model, None)
                entries.append(MoveEntry(ws, "refused", refusal.code, *now))
            else:
                pairs = said.previous_runtime, said.runtime, said.previous_model, said.model
                done = (said.version, *pairs, said.model_source)
                entries.append(MoveEntry(ws, outcome, None, *done))
        if dry_run:
            self.own.writes, self.own.xid = before, xid
        return entries

    def page(self, ids: list[UUID], after: UUID | None, batch: int) -> list[UUID]:
        return [ws for ws in sorted(set(ids)) if after is None or ws > after][:batch]

    def begin_batch(self, dry_run: bool) -> None:
        self.need_committed()
        if not dry_run:
            self.hold_all()

    def move(
        self,
        of: str,
        to: str,
        *,
        restore: bool,
        request_id: str | None,
        after: UUID | None,
        batch: int,
        among: list[UUID] | None,
        dry_run: bool,
    ) -> list[MoveEntry]:
        if of == to:
            raise Refused("INVALID_ARGUMENT", argument="to_runtime")
        self.begin_batch(dry_run)
        self.need_runtime(of)
        self.need_runtime(to)
        on = [ws for (_, ws), row in self.of("workspace").items() if row.runtime == of]
        ids = self.page(on if among is None else among, after, batch)
        return self.batch(ids, of, to, restore, request_id, dry_run)

    def reset_orphans(
        self,
        runtime: str | None,
        *,
        request_id: str | None,
        after: UUID | None,
        batch: int,
        among: list[UUID] | None,
        dry_run: bool,
    ) -> list[MoveEntry]:
        self.begin_batch(dry_run)
        if runtime is not None:
            self.need_runtime(runtime)
        self.need_key()
        if among is None:
            among = [each.workspace_id for each in self.orphans(runtime)]
        return self.batch(self.page(among, after, batch), runtime, None, False, request_id, dry_run)

    def orphans(self, runtime: str | None) -> list[Orphan]:
        if runtime is not None:
            self.need_runtime(runtime)
        self.need_key()
        found = []
        for (_, ws), row in sorted(self.of("workspace").items()):
            stored = self.secret(ws)
            if stored is None or runtime not in (None, row.runtime):
                continue
            if stored.text is None:
                found.append(Orphan(ws, row.runtime, None, "unreadable", None, None))
            elif not route(self.manifest, row.runtime, stored.text, set()).routable:
                becomes, source = reset(self.manifest, row.runtime, stored.text)
                why = source if becomes else None
                found.append(Orphan(ws, row.runtime, stored.text, "not registered", becomes, why))
        return found

    # The keys

    def change_keys(self) -> Keyring:
        self.need_committed()
        self.hold(KEYRING, alone=True)
        keyring: Keyring = self.rows[KEYRING]
        return keyring

    def need_kek(self, keyring: Keyring) -> None:
        """A change of the keys takes the session's KEK, not the one that it is going to have."""
        if self.session.kek is None or (keyring.keys and self.session.kek != keyring.kek):
            raise Refused("ENCRYPTION_KEY_MISSING")

    def init(self, key: int) -> int:
        self.need_kek(Keyring())
        self.need_committed()
        self.hold(REGISTRY)
        if self.change_keys().keys:
            raise Refused("KEYRING_EXISTS")
        self.put(REGISTRY, replace(self.rows[REGISTRY]))
        self.put(KEYRING, Keyring((key,), self.session.kek))
        return key

    def rotate(self, key: int) -> int:
        self.need_kek(Keyring())
        keyring = self.change_keys()
        if not keyring.keys:
            raise Refused("KEYRING_EMPTY")
        self.need_kek(keyring)
        self.put(KEYRING, replace(keyring, keys=(*keyring.keys, key)))
        return key

    def retire(self, key: int) -> None:
        keyring = self.change_keys()
        if key not in keyring.keys:
            raise Refused("KEY_NOT_FOUND", key_id=key)
        used = sum(each.key == key for each in self.stored())
        state = "active" if key == keyring.keys[-1] else "retired"
        if used or state == "active":
            raise Refused("KEY_IN_USE", key_id=key, state=state, values=used)
        keys = tuple(each for each in keyring.keys if each != key)
        self.put(KEYRING, replace(keyring, keys=keys))

    def rewrap(self, new: Kek) -> int:
        self.need_kek(Keyring())
        keyring = self.change_keys()
        self.need_kek(keyring)
        self.own.new_kek = new.reveal()
        if keyring.keys:
            self.put(KEYRING, replace(keyring, kek=new.reveal()))
        return len(keyring.keys)

    def stored(self) -> list[Stored]:
        """Every value that is stored, in secrets and in the history."""
        kept = [each for entry in self.entries() for each in (entry.previous, entry.model)]
        return [*self.of("secret").values(), *(each for each in kept if each is not None)]

    def reseal(self, *, after: UUID | None, batch: int) -> ResealProgress:
        self.hold(KEYRING)
        self.need_key()
        keyring: Keyring = self.rows[KEYRING]
        if not keyring.keys:
            return ResealProgress(None, 0, 0, 0)
        active = keyring.keys[-1]
        everyone = sorted({entry.answer.workspace_id for entry in self.entries()})
        chosen = [ws for ws in everyone if after is None or ws > after][:batch]
        done = {"resealed": 0, "unreadable": 0}
        skipped = 0

        def again(value: Stored | None) -> Stored | None:
            if value is None or value.key == active:
                return value
            done["unreadable" if value.text is None else "resealed"] += 1
            return value if value.text is None else Stored(value.text, active)

        for ws in chosen:
            held = ("workspace", ws)
            if any(held in each.holds for each in self.model.open()):
                skipped += 1
                continue
            for key, row in self.of("secret", ws).items():
                if (sealed := again(row)) is not row:
                    self.put(key, sealed)
            for entry in self.entries(ws):
                sealed, previous = again(entry.model), again(entry.previous)
                if (sealed, previous) != (entry.model, entry.previous):
                    key = ("change", ws, entry.answer.version)
                    self.put(key, replace(entry, model=sealed, previous=previous))
        more = chosen[-1] if len(chosen) == batch else None
        return ResealProgress(more, **done, skipped=skipped)

    def key_status(self) -> list[StatusEntry]:
        keyring: Keyring = self.rows[KEYRING]
        secrets = [each.key for each in self.of("secret").values()]
        everything = [each.key for each in self.stored()]
        entries = []
        for key in [None, *keyring.keys]:
            state = "plain" if key is None else "retired"
            if keyring.keys and key == keyring.keys[-1]:
                state = "active"
            if key is not None or key in everything:
                uses = secrets.count(key), everything.count(key) - secrets.count(key)
                entries.append(StatusEntry(key, state, None, None, *uses, None))
        return entries


def as_history(entry: Entry) -> HistoryEntry:
    """A row of the history as it is read; the actor is left out."""
    said = entry.answer
    return HistoryEntry(
        workspace_id=said.workspace_id,
        version=said.version,
        action=entry.action,
        changed=said.changed,
        previous_runtime=said.previous_runtime,
        runtime=said.runtime,
        previous_model=entry.previous.text if entry.previous else None,
        model=entry.model.text if entry.model else None,
        model_source=said.model_source,
        provider=said.provider,
        billed_to=said.billed_to,
        actor="",
        request_id=entry.request_id,
        changed_at=SOME_TIME,
        secret=entry.secret,
        name=entry.name,
    )


def as_fed(entry: Entry) -> FeedEntry:
    """A row of the history as the feed gives it; cursor and actor are left out."""
    said = as_history(entry)
    shared = {each.name: getattr(said, each.name) for each in fields(HistoryEntry)}
    return FeedEntry(cursor="", needs_restart=entry.answer.needs_restart, **shared)
