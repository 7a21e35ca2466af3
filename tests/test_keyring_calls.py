"""The Python functions that manage the keys: what they return, and how they fail."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from psycopg.pq import TransactionStatus

from databases import Database
from pyapi import (
    aio,
    clear_model,
    create_workspace,
    get_secret,
    get_workspace,
    history,
    keyring,
    set_model,
    set_secret,
)
from pyapi.aio import keyring as akeyring
from pyapi.errors import (
    EncryptionKeyMissing,
    InvalidArgument,
    KeyInUse,
    KeyNotFound,
    KeyringEmpty,
    KeyringExists,
    PermissionDenied,
    RegistryError,
    SecretUnreadable,
)
from pyapi.keyring import Kek, ResealProgress, StatusEntry
from support import Conn, one

PUBLIC = ["init", "opens", "reseal", "retire", "rewrap", "rotate", "status"]


@pytest.fixture
def kek() -> Kek:
    return Kek.generate()


@pytest.fixture
def keyed(keyless: Database, kek: Kek) -> Conn:
    """A connection that has the KEK, to a database whose keyring has no key yet."""
    return keyless.connect(autocommit=True, options=keyring.startup_options(kek))


def workspaces(conn: Conn, count: int) -> list[UUID]:
    """Workspaces with a model each: three values each, with those in the history."""
    return [
        create_workspace(conn, "w", "claude-code", model="opus").workspace_id for _ in range(count)
    ]


def uses(entries: list[StatusEntry]) -> dict[str, tuple[int, int]]:
    return {entry.state: (entry.secrets, entry.history) for entry in entries}


def refusal(call: Callable[[], object]) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        call()
    return caught.value


def test_the_keys_from_the_first_to_the_last(keyed: Conn) -> None:
    assert keyring.status(keyed) == []
    (ws,) = workspaces(keyed, 1)
    assert uses(keyring.status(keyed)) == {"plain": (1, 1)}
    assert isinstance(refusal(lambda: keyring.rotate(keyed)), KeyringEmpty)

    first = keyring.init(keyed)
    assert isinstance(refusal(lambda: keyring.init(keyed)), KeyringExists)
    set_secret(keyed, ws, "A", "1")
    before = uses(keyring.status(keyed))
    assert (before["plain"][0], before["active"][0]) == (1, 1)
    done = keyring.reseal(keyed)
    assert done == ResealProgress(None, resealed=sum(before["plain"]), unreadable=0, skipped=0)
    assert get_secret(keyed, ws, "A") == "1"

    second = keyring.rotate(keyed)
    in_use = refusal(lambda: keyring.retire(keyed, first))
    assert isinstance(in_use, KeyInUse)
    assert (in_use.key_id, in_use.state, in_use.status) == (first, "retired", 409)
    assert [done.resealed for done in keyring.reseal_all(keyed)] == [
        sum(sum(pair) for pair in uses(keyring.status(keyed)).values())
    ]
    keyring.retire(keyed, first)
    missing = refusal(lambda: keyring.retire(keyed, first))
    assert isinstance(missing, KeyNotFound)
    assert (missing.key_id, missing.status) == (first, 404)

    (entry,) = keyring.status(keyed, verify=True)
    assert (entry.key_id, entry.state, entry.retired_at) == (second, "active", None)
    assert entry.created_at is not None
    assert entry.unreadable == 0
    assert [each.secret for each in history(keyed, ws)] == [None, "A"]


def test_a_new_kek_takes_the_place_of_the_old_one(keyless: Database, keyed: Conn) -> None:
    keyring.init(keyed)
    keyring.rotate(keyed)
    (ws,) = workspaces(keyed, 1)
    new = Kek.generate()
    with keyed.transaction(force_rollback=True):
        assert keyring.rewrap(keyed, new) == 2
    assert get_workspace(keyed, ws).model == "opus"
    assert keyring.rewrap(keyed, new) == 2
    assert (
        one(keyed, "select coalesce(current_setting('runtime_registry.new_kek', true), '')") == ""
    )
    assert isinstance(refusal(lambda: get_workspace(keyed, ws)), EncryptionKeyMissing)
    assert isinstance(refusal(lambda: keyring.rewrap(keyed, new)), EncryptionKeyMissing)
    with keyring.transaction(keyed, new):
        assert get_workspace(keyed, ws).model == "opus"


def test_sessions_with_both_keks_work_before_and_after(keyless: Database, keyed: Conn) -> None:
    old, new, no = (Kek.generate() for _ in range(3))
    with keyring.transaction(keyed, old):
        keyring.init(keyed)
        (ws,) = workspaces(keyed, 1)
    with_both = [
        keyless.connect(autocommit=True, options=keyring.startup_options(old, new_kek=new)),
        keyless.connect(autocommit=True),
    ]
    keyring.configure(lambda: old, new_kek=lambda: new)(with_both[1])

    def check() -> None:
        for conn in with_both:
            assert get_workspace(conn, ws).model == "opus"
        with keyring.transaction(keyed, old, new_kek=new):
            assert get_workspace(keyed, ws).model == "opus"
        with keyring.transaction(with_both[1], no, new_kek=old if not rewrapped else new):
            assert get_workspace(with_both[1], ws).model == "opus"
        # What a transaction brings is all that it has.
        with pytest.raises(EncryptionKeyMissing), keyring.transaction(with_both[1], no):
            get_workspace(with_both[1], ws)

    async def check_async() -> None:
        conn = await keyless.aconnect()
        await akeyring.configure(old, new_kek=new)(conn)
        assert (await aio.get_workspace(conn, ws)).model == "opus"
        await conn.rollback()
        async with akeyring.transaction(conn, no, new_kek=new if rewrapped else old):
            assert (await aio.get_workspace(conn, ws)).model == "opus"

    for rewrapped in (False, True):
        check()
        asyncio.run(check_async())
        if not rewrapped:
            keyring.rewrap(with_both[0], new)


def test_without_the_kek_one_can_start_over_and_loses_only_what_it_sealed(
    keyless: Database, keyed: Conn
) -> None:
    keyring.init(keyed)
    ws, other = workspaces(keyed, 2)
    set_secret(keyed, ws, "A", "1")
    options = keyring.startup_options(Kek.generate())
    conn = keyless.connect(autocommit=True, options=options)
    clear_model(conn, other)
    assert isinstance(refusal(lambda: set_model(conn, ws, "opus")), EncryptionKeyMissing)
    conn.execute("delete from keyring.keys")
    keyring.init(conn)
    assert isinstance(refusal(lambda: get_workspace(conn, ws)), SecretUnreadable)
    assert isinstance(refusal(lambda: get_secret(conn, ws, "A")), SecretUnreadable)
    assert set_model(conn, ws, "sonnet").previous_model is None
    assert set_secret(conn, ws, "A", "2").changed is True
    assert (get_workspace(conn, ws).model, get_secret(conn, ws, "A")) == ("sonnet", "2")
    lost, now = keyring.status(conn, verify=True)
    assert (now.state, now.secrets, now.unreadable) == ("active", 2, 0)
    assert (lost.state, lost.secrets, lost.history) == ("missing", 0, lost.unreadable)


def test_only_admins_manage_the_keys(keyless: Database) -> None:
    for role in ("runtime_registry_reader", "runtime_registry_operator"):
        conn = keyless.connect_as(role, autocommit=True)
        calls: list[Callable[[Conn], object]]
        calls = [keyring.init, keyring.rotate, keyring.reseal, keyring.status]
        for call in calls:
            assert isinstance(refusal(partial(call, conn)), PermissionDenied)
    admin = keyless.connect_as("runtime_registry_admin", autocommit=True)
    assert keyring.status(admin) == []


# reseal_all


@pytest.fixture
def unsealed(keyed: Conn) -> list[UUID]:
    """Workspaces with two values each, in the order of their ids, whose values are stored plain."""
    found = workspaces(keyed, 5)
    keyring.init(keyed)
    return sorted(found)


def test_batches_are_transactions_of_their_own(
    keyless: Database, kek: Kek, keyed: Conn, unsealed: list[UUID]
) -> None:
    observer = keyless.connect(autocommit=True)
    for autocommit in (True, False):
        conn = keyless.connect(autocommit=autocommit, options=keyring.startup_options(kek))
        keyring.rotate(conn)
        conn.commit()
        left = 10
        for done in keyring.reseal_all(conn, batch=2):
            assert conn.info.transaction_status == TransactionStatus.IDLE
            left -= done.resealed
            active = uses(keyring.status(observer))["active"]
            assert sum(active) == 10 - left
        assert left == 0
        assert [done.resealed for done in keyring.reseal_all(conn, batch=2)] == [0, 0, 0]


def test_it_can_be_stopped_and_goes_on(keyed: Conn, unsealed: list[UUID]) -> None:
    first = next(keyring.reseal_all(keyed, batch=2))
    assert first == ResealProgress(unsealed[1], resealed=4, unreadable=0, skipped=0)
    rest = list(keyring.reseal_all(keyed, batch=2, after=first.next_after))
    assert [done.resealed for done in rest] == [4, 2]


def test_what_was_skipped_gets_another_pass(
    keyless: Database, keyed: Conn, unsealed: list[UUID]
) -> None:
    holder = keyless.connect()
    holder.execute("select from workspace.workspaces where id = %s for update", [unsealed[1]])
    passes = keyring.reseal_all(keyed)
    assert next(passes) == ResealProgress(None, resealed=8, unreadable=0, skipped=1)
    assert next(passes) == ResealProgress(None, resealed=0, unreadable=0, skipped=1)
    holder.rollback()
    assert list(passes) == [ResealProgress(None, resealed=2, unreadable=0, skipped=0)]


def test_what_cannot_be_read_is_counted_and_left(keyed: Conn, unsealed: list[UUID]) -> None:
    list(keyring.reseal_all(keyed))
    keyed.execute(
        "update workspace.secrets set sealed = '\\x00' where workspace_id = %s", [unsealed[0]]
    )
    keyring.rotate(keyed)
    (done,) = keyring.reseal_all(keyed)
    assert (done.resealed, done.unreadable) == (9, 1)
    retired, active = keyring.status(keyed, verify=True)
    assert (retired.secrets, retired.unreadable, active.unreadable) == (1, 1, 0)


def test_pauses_between_passes_grow_until_something_is_done() -> None:
    def batch(resealed: int, skipped: int, more: bool = False) -> ResealProgress:
        return ResealProgress(UUID(int=1) if more else None, resealed, 0, skipped)

    pauses = keyring.Pauses()
    assert pauses.after(batch(5, 1, more=True)) == 0
    waits = [pauses.after(batch(0, 0)), *(pauses.after(batch(0, 1)) for _ in range(9))]
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert pauses.after(batch(1, 1)) == 0.05
    assert pauses.more
    assert pauses.after(batch(1, 0)) == 0
    assert not pauses.more


def test_it_needs_a_connection_that_is_in_no_transaction(keyed: Conn, unsealed: list[UUID]) -> None:
    with keyed.transaction():
        error = refusal(lambda: next(keyring.reseal_all(keyed)))
    assert isinstance(error, InvalidArgument)
    assert error.argument == "conn"


def test_it_brings_the_key_along_for_a_connection_without(
    keyless: Database, kek: Kek, keyed: Conn, unsealed: list[UUID]
) -> None:
    conn = keyless.connect()
    assert isinstance(refusal(lambda: list(keyring.reseal_all(conn))), EncryptionKeyMissing)
    fetched: list[int] = []

    def fetch() -> Kek:
        fetched.append(1)
        return kek

    assert sum(done.resealed for done in keyring.reseal_all(conn, kek=fetch, batch=2)) == 10
    assert len(fetched) == 3


# How they are described


@pytest.mark.parametrize(
    ("composite", "row_type"),
    [("keyring.status_entry", StatusEntry), ("keyring.reseal_progress", ResealProgress)],
)
def test_a_result_has_the_fields_of_its_sql_type(
    conn: Conn, composite: str, row_type: type[Any]
) -> None:
    columns = conn.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
        " and not attisdropped order by attnum",
        [composite],
    ).fetchall()
    assert [name for (name,) in columns] == [field.name for field in fields(row_type)]


def test_every_public_function_of_the_keyring_has_its_python_functions(conn: Conn) -> None:
    granted = conn.execute(
        """
        select p.proname, p.proargnames[1:p.pronargs] from pg_proc p
        where p.pronamespace = 'keyring'::regnamespace
          and has_function_privilege('runtime_registry_admin', p.oid, 'execute')
        """
    ).fetchall()
    assert sorted(name for name, _ in granted) == PUBLIC
    for name, arguments in granted:
        plain, twin = getattr(keyring, name), getattr(akeyring, name)
        assert inspect.iscoroutinefunction(twin)
        assert twin.__doc__ == plain.__doc__
        assert (plain.__module__, twin.__module__) == (keyring.__name__, akeyring.__name__)
        # The new KEK is a setting of the transaction, not an argument.
        extra = ["new_kek"] if name == "rewrap" else []
        for function in (plain, twin):
            parameters = inspect.signature(function).parameters
            assert list(parameters) == ["conn", *(arguments or []), *extra]


def test_the_async_functions_answer_alike(keyless: Database, kek: Kek) -> None:
    async def walk() -> None:
        options = keyring.startup_options(kek)
        plain = keyless.connect(autocommit=True, options=options)
        conn = await keyless.aconnect(options=options)
        (ws,) = workspaces(plain, 1)
        first = await akeyring.init(conn)
        await conn.commit()
        assert await akeyring.reseal(conn, after=ws) == ResealProgress(None, 0, 0, 0)
        with pytest.raises(InvalidArgument):
            await anext(akeyring.reseal_all(conn))
        await conn.rollback()
        assert [done.resealed async for done in akeyring.reseal_all(conn)] == [2]

        second = await akeyring.rotate(conn)
        await conn.commit()
        without = await keyless.aconnect()
        holder = keyless.connect()
        holder.execute("select from workspace.workspaces for update")
        batches = akeyring.reseal_all(without, kek=kek)
        assert (await anext(batches)).skipped == 1
        holder.rollback()
        assert [done.resealed async for done in batches] == [2]
        assert await akeyring.status(conn, verify=True) == keyring.status(plain, verify=True)
        await akeyring.retire(conn, first)
        assert [entry.key_id for entry in await akeyring.status(conn)] == [second]
        assert await akeyring.rewrap(conn, Kek.generate()) == 1

    asyncio.run(walk())


def test_results_cannot_be_altered(keyed: Conn) -> None:
    keyring.init(keyed)
    (entry,) = keyring.status(keyed)
    with pytest.raises(AttributeError):
        entry.secrets = 1  # type: ignore[misc]
    assert not hasattr(entry, "__dict__")
