"""Tokens: what is kept of them, whose they are, and when they end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from databases import Database, in_thread, wait_until_blocked
from pyapi import Caller, aio, authenticate, create_token, list_tokens, revoke_token
from pyapi.access import new_token, token_hash
from pyapi.errors import InvalidArgument, RegistryError, TokenExists, TokenNotFound
from support import Conn, one

HASH = token_hash("t")


def used(conn: Conn) -> Any:
    return list_tokens(conn)[0].last_used_at


def test_a_token_is_32_random_bytes_and_no_two_are_the_same() -> None:
    made = {new_token() for _ in range(1000)}
    assert len(made) == 1000
    assert {len(token) for token in made} == {46}
    assert all(token.startswith("rr_") for token in made)


def test_a_token_is_known_by_its_hash_and_kept_nowhere(database: Database) -> None:
    conn = database.connect(autocommit=True)
    secret, ws = new_token(), uuid4()
    made = create_token(conn, "deploy", "workspace", token_hash(secret), workspace_id=ws)
    assert (made.name, made.role, made.workspace_id) == ("deploy", "workspace", ws)
    assert (made.expires_at, made.last_used_at, made.revoked_at) == (None, None, None)
    assert authenticate(conn, token_hash(secret)) == Caller("deploy", "workspace", ws)
    assert authenticate(conn, token_hash(secret + "x")) is None
    assert authenticate(conn, secret.encode()) is None
    row = one(conn, "select t::text from access.tokens as t")
    assert secret not in row
    assert secret.encode().hex() not in row


def test_a_revoked_token_is_nobodys_from_then_on_and_stays_on_record(conn: Conn) -> None:
    create_token(conn, "deploy", "operator", HASH)
    revoked = revoke_token(conn, " deploy ")
    assert revoked.revoked_at
    assert authenticate(conn, HASH) is None
    assert revoke_token(conn, "deploy") == revoked
    assert list_tokens(conn) == [revoked]


def test_an_expired_token_is_nobodys(conn: Conn) -> None:
    create_token(conn, "t", "admin", HASH, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert authenticate(conn, HASH)
    conn.execute("update access.tokens set expires_at = clock_timestamp()")
    assert authenticate(conn, HASH) is None


@pytest.mark.parametrize("name", ["deploy", "gone"])
def test_a_name_is_never_used_again(conn: Conn, name: str) -> None:
    create_token(conn, name, "operator", HASH)
    if name == "gone":
        revoke_token(conn, name)
    with pytest.raises(TokenExists) as caught, conn.transaction():
        create_token(conn, name, "admin", token_hash("other"))
    assert caught.value.name == name
    with pytest.raises(TokenNotFound):
        revoke_token(conn, "another")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"role": "root"}, "role"),
    ({"role": "ADMIN"}, "role"),
    ({"role": "workspace"}, "workspace_id"),
    ({"role": "admin", "workspace_id": uuid4()}, "workspace_id"),
    ({"role": "operator", "workspace_id": uuid4()}, "workspace_id"),
    ({"hash": b""}, "hash"),
    ({"hash": b"x" * 31}, "hash"),
    ({"hash": b"x" * 33}, "hash"),
    ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expires_at"),
]


@pytest.mark.parametrize(("given", "argument"), REFUSED)
def test_a_token_that_makes_no_sense_is_refused(
    conn: Conn, given: dict[str, Any], argument: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        create_token(conn, **{"name": "t", "role": "admin", "hash": HASH, **given})
    assert caught.value.argument == argument


def test_its_use_is_written_once_a_minute(conn: Conn) -> None:
    create_token(conn, "t", "admin", HASH)
    assert used(conn) is None
    authenticate(conn, HASH)
    first = used(conn)
    assert first
    authenticate(conn, HASH)
    assert used(conn) == first
    conn.execute("update access.tokens set last_used_at = last_used_at - interval '61 seconds'")
    authenticate(conn, HASH)
    assert used(conn) >= first


def test_nobody_waits_to_note_a_use_and_a_standby_needs_not(database: Database) -> None:
    holder, other = database.connect(), database.connect(autocommit=True)
    create_token(other, "t", "admin", HASH)
    assert authenticate(holder, HASH)  # which holds the row until it commits
    other.execute("set lock_timeout = '1ms'")
    assert authenticate(other, HASH)
    holder.rollback()
    other.execute("set default_transaction_read_only = on")
    assert authenticate(other, HASH)
    assert used(other) is None


def test_a_revocation_waits_for_a_use_that_is_being_noted(database: Database) -> None:
    holder, other = database.connect(), database.connect(autocommit=True)
    observer = database.connect(autocommit=True)
    create_token(other, "t", "admin", HASH)
    authenticate(holder, HASH)
    revoking = in_thread(revoke_token, other, "t")
    wait_until_blocked(observer, other.info.backend_pid)
    holder.commit()
    assert revoking.result(30).last_used_at
    assert authenticate(holder, HASH) is None


def test_a_hundred_at_once_are_all_let_in(database: Database) -> None:
    create_token(database.connect(autocommit=True), "t", "admin", HASH)

    async def crowd() -> list[Caller | None]:
        conns = [await database.aconnect(autocommit=True) for _ in range(10)]
        return await asyncio.gather(
            *(aio.authenticate(conn, HASH) for conn in conns for _ in range(10))
        )

    assert asyncio.run(crowd()) == [Caller("t", "admin", None)] * 100


def test_a_service_needs_no_more_than_the_operators_rights(database: Database) -> None:
    owner = database.connect(autocommit=True)
    create_token(owner, "t", "admin", HASH)
    service = database.connect_as("runtime_registry_operator", autocommit=True)
    assert authenticate(service, HASH)
    for refuse in (
        lambda: list_tokens(service),
        lambda: revoke_token(service, "t"),
        lambda: create_token(service, "u", "admin", token_hash("u")),
    ):
        with pytest.raises(RegistryError) as caught:
            refuse()
        assert caught.value.code == "PERMISSION_DENIED"
