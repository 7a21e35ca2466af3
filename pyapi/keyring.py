"""The keys that seal secrets, and how a session gets the key that opens them.

Secrets are sealed by data keys in the database. These are wrapped by one key-encryption key, the
KEK, which is nowhere in the database: a session brings it along, as the setting
`runtime_registry.kek`. There are three ways:

    options=startup_options(kek)           for a connection of your own: no statement carries the
                                           KEK, so no setting of the server logs it
    ConnectionPool(configure=configure(kek))
                                           for the connections of a pool, straight to Postgres
    with transaction(conn, kek): ...       for one transaction: behind PgBouncer in transaction
                                           mode, where the other two would give the KEK to whoever
                                           gets the server connection next

While the KEK is being changed, all three bring the new one along too, as `new_kek`: see `rewrap`.

The functions that manage the keys need the role runtime_registry_admin. Of all functions here only
`configure`'s hook, `transaction` and `reseal_all` commit. `pyapi.aio.keyring` has the same names
for async connections.
"""

from __future__ import annotations

import binascii
import os
import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from psycopg import AsyncConnection, Connection, Transaction
from psycopg.adapt import Dumper
from psycopg.pq import PipelineStatus, TransactionStatus

from .calls import Call, Statement, columns, each, one, scalar, send, sync
from .errors import InvalidArgument

ENVIRONMENT_VARIABLE = "RUNTIME_REGISTRY_KEK"


class Kek:
    """A key-encryption key: 32 random bytes, written as 64 hex digits or in base64.

    Nothing shows it but `reveal`: not repr, str, a format, a copy or a pickle. The text is the key:
    the same bytes in hex and in base64 are two keys. `bytes` stand for their hex digits.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, key: str | bytes | Kek, name: str = "kek") -> None:
        """Take a key from where it is kept; `name` is what the error calls it.

        White space around a text does not count. Raises: InvalidArgument.
        """
        if isinstance(key, Kek):
            text = key.reveal()
        else:
            text = key.hex() if isinstance(key, bytes) else key.strip()
        if not _is_key(text):
            del key, text  # it may be a key but for a slip, and tracebacks can show variables
            raise InvalidArgument.make(name, "must be 32 random bytes in hex or base64")
        object.__setattr__(self, "_text", text)

    @classmethod
    def generate(cls) -> Kek:
        """Make a new one."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_environment(cls, name: str = ENVIRONMENT_VARIABLE) -> Kek:
        """Read an environment variable. Raises: InvalidArgument."""
        if name not in os.environ:
            raise InvalidArgument.make(name, "is not set in the environment")
        return cls(os.environ[name], name)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Kek:
        """Read a file that holds the text of a key and nothing else.

        Raises: InvalidArgument, OSError.
        """
        return cls(Path(path).read_bytes().decode("ascii", "replace"), str(path))

    def reveal(self) -> str:
        """Return the key itself."""
        return self._text

    def __repr__(self) -> str:
        return "Kek(...)"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Kek cannot be altered")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Kek cannot be copied or pickled")


Source = Kek | Callable[[], Kek | str | bytes]
"""A KEK, or what fetches it each time that it is needed, from a key management service perhaps."""


def _is_key(text: str) -> bool:
    try:
        key = binascii.unhexlify(text) if len(text) == 64 else b64decode(text, validate=True)
    except ValueError:
        return False
    return len(key) == 32


def _obtain(source: Source) -> Kek:
    return source if isinstance(source, Kek) else Kek(source())


# How a session gets the KEK


class _KekDumper(Dumper):
    # psycopg is handed the Kek itself, so that its frames in a traceback have nothing to show.
    oid = 25  # text

    def dump(self, obj: Kek) -> bytes:
        return obj.reveal().encode()

    def quote(self, obj: Kek) -> NoReturn:
        raise TypeError("a Kek is sent as a parameter, never as a literal")


_DUMPERS = ((Kek, _KekDumper),)

# "is null": what set_config returns is not wanted back. A setting set to null is unset.
BRING: Statement[list[Any]] = Statement(
    """
    select
        pg_catalog.set_config('runtime_registry.kek', %(kek)s, %(local)s) is null,
        pg_catalog.set_config('runtime_registry.new_kek', %(new_kek)s, %(local)s) is null
    """,
    list,
    dumpers=_DUMPERS,
)


def startup_options(kek: Source, options: str = "", *, new_kek: Source | None = None) -> str:
    """Return libpq's `options` for a connection that has the KEK from its start.

    They go into `psycopg.connect(options=...)`, a pool's `kwargs` or `PGOPTIONS`. `options` are
    others to put before. The result holds the KEK: `conn.info.dsn` and `conn.info.options` show it.
    PgBouncer refuses such options, unless it is told to ignore them.
    """
    given = f"{options} -c runtime_registry.kek={_obtain(kek).reveal()}"
    if new_kek is not None:
        given += f" -c runtime_registry.new_kek={_obtain(new_kek).reveal()}"
    return given.lstrip()


def _bring(kek: Source, new_kek: Source | None, *, local: bool) -> Call[list[Any]]:
    new = None if new_kek is None else _obtain(new_kek)
    return Call(BRING, {"kek": _obtain(kek), "new_kek": new, "local": local})


def configure(kek: Source, *, new_kek: Source | None = None) -> Callable[[Connection[Any]], None]:
    """Make the `configure` of a psycopg_pool.ConnectionPool: each new connection gets the KEK.

    Only for pools that connect to Postgres itself: the setting stays for the whole session. A
    callable is asked once for each connection.
    """

    def hook(conn: Connection[Any]) -> None:
        send(conn, _bring(kek, new_kek, local=False))
        conn.commit()

    return hook


def _end_autocommit(conn: Connection[Any]) -> None:
    if not conn.closed:
        conn.autocommit = False


@contextmanager
def transaction(
    conn: Connection[Any], kek: Source, *, new_kek: Source | None = None
) -> Iterator[Transaction]:
    """Begin a transaction that has the KEK, as `conn.transaction()` does one that has not.

    The KEK travels along with the BEGIN, so this takes no round trip more than
    `conn.transaction()`. When the transaction ends it is gone from the session. A callable is asked
    once for each transaction. It takes a libpq with pipelines, which is version 14 or newer.
    """
    call = _bring(kek, new_kek, local=True)
    if conn.pgconn.pipeline_status != PipelineStatus.OFF:
        with conn.transaction() as block:
            send(conn, call)
            yield block
        return
    block = Transaction(conn)
    with ExitStack() as stack:
        if not conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
            # Or else psycopg sends a BEGIN of its own, and waits for it.
            conn.autocommit = True
            stack.callback(_end_autocommit, conn)
        with conn.pipeline():
            stack.enter_context(block)
            send(conn, call)
        yield block


# What the database does


@dataclass(frozen=True, slots=True)
class StatusEntry:
    """A key, and what it seals."""

    key_id: int | None
    """None: what is stored plain."""
    state: str
    """`active`, `retired`, `plain`, or `missing`: values refer to it and the keyring has it not."""
    created_at: datetime | None
    retired_at: datetime | None
    secrets: int
    """How many secrets it seals."""
    history: int
    """How many models in the history it seals."""
    unreadable: int | None
    """How many of them do not open; None: not tried."""


@dataclass(frozen=True, slots=True)
class ResealProgress:
    """What a batch of `reseal` did."""

    next_after: UUID | None
    """The workspace after which the next batch goes on; None: this was the last."""
    resealed: int
    """Values that the active key seals now."""
    unreadable: int
    """Values that nothing opens; they are left as they are."""
    skipped: int
    """Workspaces that somebody held."""


_INIT: Statement[int] = Statement("select keyring.init()", scalar)


def init_call() -> Call[int]:
    """Turn encryption on: make the first key, wrapped by the session's KEK; return its id.

    From now on what is set is sealed, and sessions need the KEK. What is stored plain stays
    readable until `reseal` seals it.

    Raises: EncryptionKeyMissing, InvalidArgument, KeyringExists, IsolationUnsupported.
    """
    return Call(_INIT, {})


_ROTATE: Statement[int] = Statement("select keyring.rotate()", scalar)


def rotate_call() -> Call[int]:
    """Make a new active key and retire the one before; return the new one's id.

    The retired key goes on opening what it sealed. `reseal` moves that to the new key, then
    `retire` removes the old one.

    Raises: EncryptionKeyMissing, KeyringEmpty, IsolationUnsupported.
    """
    return Call(_ROTATE, {})


# CASE, because the setting has to be there before the call.
_REWRAP: Statement[int] = Statement(
    """
    select case when
        pg_catalog.set_config('runtime_registry.new_kek', %(new_kek)s, true) is not null
    then keyring.rewrap() end
    """,
    scalar,
    dumpers=_DUMPERS,
)


def rewrap_call(new_kek: Kek) -> Call[int]:
    """Change the KEK from the session's to a new one; return how many keys there are.

    No secret is touched. Sessions that have both, the new one as `new_kek`, work before and after:
    give them both, rewrap, then give them the new one alone.

    Raises: EncryptionKeyMissing, InvalidArgument, IsolationUnsupported.
    """
    return Call(_REWRAP, {"new_kek": new_kek})


_RESEAL = Statement(
    f"""
    select {columns(ResealProgress)} from keyring.reseal(
        after => %(after)s::uuid, batch => %(batch)s::integer)
    """,
    one(ResealProgress),
)


def reseal_call(*, after: UUID | str | None = None, batch: int = 1000) -> Call[ResealProgress]:
    """Seal with the active key what is stored plain or under another, for a batch of workspaces.

    `after` is the `next_after` of the batch before. It waits for nobody: a workspace that somebody
    holds is skipped. `reseal_all` does all batches.

    Raises: InvalidArgument, EncryptionKeyMissing.
    """
    return Call(_RESEAL, {"after": after, "batch": batch})


_RETIRE: Statement[None] = Statement(
    "select keyring.retire(key_id => %(key_id)s::integer)", lambda rows: None
)


def retire_call(key_id: int) -> Call[None]:
    """Remove a key that seals nothing any more.

    A backup from before has its own keyring: it stays readable with the KEK it was made under.

    Raises: KeyNotFound, KeyInUse, IsolationUnsupported.
    """
    return Call(_RETIRE, {"key_id": key_id})


_STATUS = Statement(
    f"select {columns(StatusEntry)} from keyring.status(verify => %(verify)s::boolean)",
    each(StatusEntry),
    reads_only=True,
)


def status_call(*, verify: bool = False) -> Call[list[StatusEntry]]:
    """List the keys with what each seals, and what is stored plain.

    It reads everything that is stored. With `verify` it opens everything too, for which the session
    needs the KEK.

    Raises: EncryptionKeyMissing.
    """
    return Call(_STATUS, {"verify": verify})


_OPENS: Statement[bool] = Statement("select keyring.opens()", scalar, reads_only=True)


def opens_call() -> Call[bool]:
    """Tell whether this session can seal and open secrets: its KEK fits, or there is no key."""
    return Call(_OPENS, {})


init = sync(init_call)
rotate = sync(rotate_call)
rewrap = sync(rewrap_call)
reseal = sync(reseal_call)
retire = sync(retire_call)
status = sync(status_call)
opens = sync(opens_call)


def reseal_all(
    conn: Connection[Any],
    *,
    after: UUID | str | None = None,
    batch: int = 1000,
    kek: Source | None = None,
) -> Iterator[ResealProgress]:
    """Run `reseal` until nothing is left to do, each batch in a transaction of its own.

    Yields what each batch did. Workspaces that were skipped get another pass, which counts again
    what is unreadable. Everything stays usable meanwhile, and it can be stopped anywhere: what is
    done is not done twice. `kek` is for connections that do not have it, see `transaction`.

    Raises what `reseal` raises; InvalidArgument if the connection is in a transaction.
    """
    pauses = Pauses()
    while pauses.more:
        require_idle(conn)
        with conn.transaction() if kek is None else transaction(conn, kek):
            progress = reseal(conn, after=after, batch=batch)
        yield progress
        after = progress.next_after
        time.sleep(pauses.after(progress))


def require_idle(conn: Connection[Any] | AsyncConnection[Any]) -> None:
    """Refuse a connection in whose transaction the caller's would be nested."""
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise InvalidArgument.make("conn", "is in a transaction")


class Pauses:
    """When `reseal_all` is done, and how long it waits before it tries again what was skipped."""

    def __init__(self) -> None:
        self.more = True
        self._skipped = self._resealed = 0
        self._seconds = 0.05

    def after(self, progress: ResealProgress) -> float:
        """Take a batch into account; return the seconds to wait before the next one."""
        self._skipped += progress.skipped
        self._resealed += progress.resealed
        if progress.next_after is not None:
            return 0
        if not self._skipped:
            self.more = False
            return 0
        self._seconds = 0.05 if self._resealed else min(self._seconds * 2, 5)
        self._skipped = self._resealed = 0
        return self._seconds
