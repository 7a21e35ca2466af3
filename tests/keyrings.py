"""What the tests of the keyring share: key-encryption keys, and sessions that bring them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from databases import Database
from sessions import OPTIONS, Sessions
from support import Conn, call, one

KEK, NEW_KEK, WRONG_KEK = (secrets.token_hex(32) for _ in range(3))


def options(kek: str = KEK, new_kek: str = "") -> str:
    """For a connection: a session that brings these keys; an empty one is none."""
    return f"{OPTIONS} -c runtime_registry.kek={kek} -c runtime_registry.new_kek={new_kek}"


def bring(conn: Conn, kek: str, new_kek: str = "") -> None:
    """Let the session bring these keys until its transaction ends."""
    for name, value in (("kek", kek), ("new_kek", new_kek)):
        conn.execute("select set_config('runtime_registry.' || %s, %s, true)", [name, value])


@contextmanager
def sealing_sessions(database: Database, kek: str = KEK, new_kek: str = "") -> Iterator[Sessions]:
    """Sessions that bring a key-encryption key, on a database whose keyring has no key yet."""
    brought = options(kek, new_kek)
    with (
        database.connect(options=brought) as first,
        database.connect(options=brought) as second,
        database.connect(options=brought, autocommit=True) as observer,
    ):
        empty(observer)
        yield Sessions(first, second, observer)


def empty(conn: Conn) -> None:
    """Take all keys out of a keyring, and let the next one be number 1."""
    conn.execute("delete from keyring.keys; alter sequence keyring.key_ids restart")


def init(conn: Conn) -> int:
    return int(call(conn, "keyring.init").init)


def rotate(conn: Conn) -> int:
    return int(call(conn, "keyring.rotate").rotate)


def rewrap(conn: Conn) -> int:
    return int(call(conn, "keyring.rewrap").rewrap)


def retire(conn: Conn, key_id: int) -> None:
    call(conn, "keyring.retire", key_id)


def reseal(conn: Conn, **named: object) -> tuple[UUID | None, int, int, int]:
    """One batch; next_after, resealed, unreadable and skipped."""
    done = call(conn, "keyring.reseal", **named)
    return done.next_after, done.resealed, done.unreadable, done.skipped


def data_key(conn: Conn) -> str:
    """The active data key."""
    return str(one(conn, "select (keyring.active_key()).secret"))


def key_ids(conn: Conn) -> set[int | None]:
    """The keys that all that is stored is sealed with; None: something is stored plain."""
    found = conn.execute(
        "select key_id from workspace.secrets"
        " union select key_id from workspace.changes where sealed is not null"
        " union select previous_key_id from workspace.changes where previous_sealed is not null"
    )
    return {key for (key,) in found}


def status(conn: Conn, verify: bool = False) -> list[tuple[Any, ...]]:
    """The keyring's status, without the times."""
    found = conn.execute(
        "select key_id, state, secrets, history, unreadable from keyring.status(%s)", [verify]
    )
    return found.fetchall()
