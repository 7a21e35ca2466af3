"""The same change made by a Python client that keeps its logic to itself, as a good engineer would
write it: one connection, prepared statements, AES-GCM with a key at hand, the registry in memory.

Each does what workspace.change_runtime does on the reset path: lock and read the pair, open the
model, see that the target cannot run it, seal the target's default and store it, the runtime, the
version and the row of history.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import psycopg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import sql
from sqlalchemy import MetaData, Text, create_engine, func
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import pyapi

KEY_ID = 1


@dataclass(frozen=True, slots=True)
class Vault:
    """Seals models; whose they are is authenticated with them."""

    cipher: AESGCM = field(default_factory=lambda: AESGCM(AESGCM.generate_key(256)))

    def seal(self, ws: UUID, model: str) -> bytes:
        """The bytes to store."""
        nonce = os.urandom(12)
        return nonce + self.cipher.encrypt(nonce, model.encode(), ws.bytes)

    def open(self, ws: UUID, sealed: bytes) -> str:
        """The model."""
        return self.cipher.decrypt(sealed[:12], sealed[12:], ws.bytes).decode()


@dataclass(frozen=True, slots=True)
class Routes:
    """The registry as a client would keep it: per runtime its default, per (runtime, model) who
    serves it and who pays."""

    defaults: dict[str, str | None]
    served_by: dict[tuple[str, str], tuple[str, str]]

    @classmethod
    def read(cls, conn: psycopg.Connection[Any]) -> Routes:
        """Read it off the database."""
        runtimes = pyapi.list_runtimes(conn)
        return cls(
            {runtime.runtime: runtime.default_model for runtime in runtimes},
            {
                (runtime.runtime, entry.model): (entry.provider, entry.billed_to)
                for runtime in runtimes
                for entry in pyapi.list_models(conn, runtime.runtime)
            },
        )

    def replace(self, model: str, before: str, after: str) -> tuple[str, str, str, bool]:
        """For a model orphaned by a change of runtime: the default, who serves it, who pays, and
        whether somebody else paid before."""
        assert (after, model) not in self.served_by
        default = self.defaults[after]
        assert default is not None
        provider, billed_to = self.served_by[after, default]
        return default, provider, billed_to, self.served_by[before, model][1] != billed_to


class Peer(Protocol):
    """Something that switches workspaces."""

    def switch(self, ws: UUID, runtime: str) -> None:
        """Give a workspace a runtime and the model it has there."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The project's own call."""

    conn: psycopg.Connection[Any]

    def switch(self, ws: UUID, runtime: str) -> None:
        """One statement, its own transaction."""
        pyapi.change_runtime(self.conn, ws, runtime)


@dataclass(frozen=True, slots=True)
class Bare:
    """A query of a workspace and a runtime, with nothing around it."""

    conn: psycopg.Connection[Any]
    query: sql.SQL

    def switch(self, ws: UUID, runtime: str) -> None:
        """Its own transaction."""
        self.conn.execute(self.query, [ws, runtime]).fetchone()


READ = """
    select w.runtime, w.version, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where w.id = %s
    for no key update of w"""
STORE = """
    insert into workspace.secrets (workspace_id, key, sealed, key_id, updated_at)
    values (%s, 'MODEL', %s, %s, clock_timestamp())
    on conflict (workspace_id, key) do update set
      sealed = excluded.sealed, key_id = excluded.key_id, updated_at = excluded.updated_at"""
UPDATE = """
    update workspace.workspaces set runtime = %s, version = %s, updated_at = clock_timestamp()
    where id = %s"""
RECORD = """
    insert into workspace.changes (
      workspace_id, version, action, changed, previous_runtime, runtime,
      previous_sealed, previous_key_id, sealed, key_id,
      model_source, provider, billed_to, billing_changed,
      restore, actor, request_id, changed_at, txid
    )
    values (
      %s, %s, 'change_runtime', true, %s, %s, %s, %s, %s, %s,
      'default', %s, %s, %s, false, session_user, null, clock_timestamp(), pg_current_xact_id()
    )"""


@dataclass(frozen=True, slots=True)
class Client:
    """Psycopg, a statement after the other; the connection is in autocommit mode."""

    conn: psycopg.Connection[Any]
    routes: Routes
    vault: Vault

    def switch(self, ws: UUID, runtime: str) -> None:
        """BEGIN, read, upsert, update, insert, COMMIT: six round trips."""
        with self.conn.transaction():
            self.change(ws, runtime)

    def change(self, ws: UUID, runtime: str) -> None:
        """What stands between BEGIN and COMMIT."""
        execute = self.conn.execute
        row = execute(READ, [ws]).fetchone()
        assert row
        before, version, old, old_key = row
        model, provider, billed_to, billing_changed = self.routes.replace(
            self.vault.open(ws, old), before, runtime
        )
        sealed = self.vault.seal(ws, model)
        execute(STORE, [ws, sealed, KEY_ID])
        execute(UPDATE, [runtime, version + 1, ws])
        change = [ws, version + 1, before, runtime, old, old_key, sealed, KEY_ID]
        execute(RECORD, [*change, provider, billed_to, billing_changed])


@dataclass(frozen=True, slots=True)
class PipelinedClient:
    """The same in pipeline mode: BEGIN goes with the read, and all the rest in one go. Not by
    psycopg's transaction(), which waits for each end of it."""

    client: Client

    def switch(self, ws: UUID, runtime: str) -> None:
        """Two round trips; it is not prepared for errors."""
        with self.client.conn.pipeline():
            self.client.conn.execute("begin")
            self.client.change(ws, runtime)
            self.client.conn.execute("commit")


class Base(DeclarativeBase):
    """The mapped tables."""

    metadata = MetaData(schema="workspace")


class WorkspaceRow(Base):
    """A row of workspace.workspaces."""

    __tablename__ = "workspaces"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    runtime: Mapped[str]
    version: Mapped[int]
    updated_at: Mapped[datetime]


class SecretRow(Base):
    """A row of workspace.secrets."""

    __tablename__ = "secrets"
    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    sealed: Mapped[bytes]
    key_id: Mapped[int]
    updated_at: Mapped[datetime]


class ChangeRow(Base):
    """A row of workspace.changes."""

    __tablename__ = "changes"
    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    action: Mapped[str]
    changed: Mapped[bool]
    previous_runtime: Mapped[str]
    runtime: Mapped[str]
    previous_sealed: Mapped[bytes]
    previous_key_id: Mapped[int]
    sealed: Mapped[bytes]
    key_id: Mapped[int]
    model_source: Mapped[str]
    provider: Mapped[str]
    billed_to: Mapped[str]
    billing_changed: Mapped[bool]
    restore: Mapped[bool]
    actor: Mapped[str]
    changed_at: Mapped[datetime]
    txid: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True, slots=True)
class Orm:
    """SQLAlchemy's unit of work."""

    new_session: Callable[[], Session]
    routes: Routes
    vault: Vault

    def switch(self, ws: UUID, runtime: str) -> None:
        """Get both rows, change them, add the row of history."""
        with self.new_session() as session, session.begin():
            workspace = session.get_one(WorkspaceRow, ws, with_for_update={"key_share": True})
            secret = session.get_one(SecretRow, (ws, "MODEL"))
            before, old, old_key = workspace.runtime, secret.sealed, secret.key_id
            model, provider, billed_to, billing_changed = self.routes.replace(
                self.vault.open(ws, old), before, runtime
            )
            moment = datetime.now(UTC)
            secret.sealed, secret.key_id = self.vault.seal(ws, model), KEY_ID
            workspace.runtime, workspace.version = runtime, workspace.version + 1
            workspace.updated_at = secret.updated_at = moment
            session.add(
                ChangeRow(
                    workspace_id=ws,
                    version=workspace.version,
                    action="change_runtime",
                    changed=True,
                    previous_runtime=before,
                    runtime=runtime,
                    previous_sealed=old,
                    previous_key_id=old_key,
                    sealed=secret.sealed,
                    key_id=KEY_ID,
                    model_source="default",
                    provider=provider,
                    billed_to=billed_to,
                    billing_changed=billing_changed,
                    restore=False,
                    actor="postgres",
                    changed_at=moment,
                    txid=func.pg_current_xact_id(),
                )
            )


def seal_all(conn: psycopg.Connection[Any], vault: Vault, model: str) -> None:
    """Seal all workspaces' models as the peers do; the project could not open them any more."""
    ids = conn.execute("select workspace_id from workspace.secrets").fetchall()
    with conn.cursor() as cursor:
        cursor.executemany(
            "update workspace.secrets set sealed = %s, key_id = %s where workspace_id = %s",
            [(vault.seal(ws, model), KEY_ID, ws) for (ws,) in ids],
        )


@contextmanager
def connected(dsn: str, theirs: str, vault: Vault) -> Iterator[dict[str, Peer]]:
    """All of them by name: ours on one database, the others on another one."""

    def connect(dsn: str) -> psycopg.Connection[Any]:
        return psycopg.connect(dsn, autocommit=True, prepare_threshold=0)

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(theirs))
    with connect(dsn) as conn, connect(theirs) as other, connect(theirs) as piped:
        routes = Routes.read(other)
        yield {
            "ours": Ours(conn),
            "client": Client(other, routes, vault),
            "pipelined client": PipelinedClient(Client(piped, routes, vault)),
            "SQLAlchemy ORM": Orm(lambda: Session(engine, expire_on_commit=False), routes, vault),
        }
    engine.dispose()
