"""The keyring: what is sealed, with which key, and what does not open."""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pysequoia
import pytest
from psycopg import IsolationLevel
from psycopg.types.json import Jsonb

from databases import Database
from keyrings import (
    KEK,
    NEW_KEK,
    WRONG_KEK,
    bring,
    data_key,
    empty,
    init,
    key_ids,
    reseal,
    retire,
    rewrap,
    rotate,
    status,
)
from support import (
    MANIFEST,
    Conn,
    Json,
    Refusal,
    acting_as,
    call,
    create,
    load,
    manifest,
    nothing_written,
    one,
    pair,
    provider,
    refused,
    rows,
    runtime,
    savepoint,
)

TOKEN = "a token, such as a provider gives"


@pytest.fixture
def conn(conn: Conn) -> Conn:
    """The transaction, with a session that has a KEK, and a keyring that has no key."""
    empty(conn)
    bring(conn, KEK)
    return conn


@pytest.fixture
def sealed(conn: Conn) -> Conn:
    """The same with a key."""
    assert init(conn) == 1
    return conn


@pytest.fixture
def ws(sealed: Conn) -> UUID:
    """A workspace with a model, another secret, and a past."""
    return with_past(sealed)


def with_past(conn: Conn) -> UUID:
    ws = create(conn, "claude-code", "sonnet")
    call(conn, "workspace.set_model", ws, "opus", request_id="r")
    call(conn, "workspace.set_secret", ws, "TOKEN", TOKEN)
    return ws


def models(conn: Conn, ws: UUID) -> list[tuple[str | None, str | None]]:
    """The models of a workspace's history, and of its replies."""
    return [(row.previous_model, row.model) for row in rows(conn, "workspace.history", ws)]


PAST = [(None, "sonnet"), ("sonnet", "opus"), ("opus", "opus")]


def put(conn: Conn, ws: UUID, name: str, sealed: bytes, key_id: int | None) -> None:
    """Put bytes in the place of a secret."""
    done = conn.execute(
        "update workspace.secrets set sealed = %s, key_id = %s"
        " where workspace_id = %s and key = %s",
        [sealed, key_id, ws, name],
    )
    assert done.rowcount == 1


def stored(conn: Conn, ws: UUID, name: str = "MODEL") -> tuple[bytes, int | None]:
    query = "select sealed, key_id from workspace.secrets where workspace_id = %s and key = %s"
    ((sealed, key_id),) = conn.execute(query, [ws, name]).fetchall()
    return bytes(sealed), key_id


# Turning it on


def test_without_a_key_values_are_stored_plain_and_no_kek_is_asked_for(conn: Conn) -> None:
    bring(conn, "")
    ws = with_past(conn)
    assert stored(conn, ws) == (b"opus", None)
    assert stored(conn, ws, "TOKEN") == (TOKEN.encode(), None)
    assert models(conn, ws) == PAST
    assert status(conn) == [(None, "plain", 2, 5, None)]
    assert status(conn, verify=True) == [(None, "plain", 2, 5, 0)]
    assert reseal(conn) == (None, 0, 0, 0)


def test_with_a_key_all_that_is_written_is_sealed(sealed: Conn, ws: UUID) -> None:
    assert key_ids(sealed) == {1}
    query = "select string_agg(t::text, ' ') from workspace.{} t"
    dump = " ".join(one(sealed, query.format(table)) for table in ("secrets", "changes"))
    for value in ("opus", "sonnet", TOKEN):
        assert value not in dump
        assert value.encode().hex() not in dump
    assert pair(sealed, ws) == ("claude-code", "opus", 3)
    assert call(sealed, "workspace.get_secret", ws, "TOKEN").get_secret == TOKEN
    assert models(sealed, ws) == PAST


def test_the_same_value_is_sealed_anew_each_time(sealed: Conn) -> None:
    bytes_of = {stored(sealed, create(sealed, "claude-code", "opus"))[0] for _ in range(3)}
    assert len(bytes_of) == 3


def test_what_is_plain_stays_readable_and_is_sealed_by_reseal(conn: Conn) -> None:
    ws, gone = with_past(conn), with_past(conn)
    call(conn, "workspace.delete_workspace", gone)
    init(conn)
    assert models(conn, ws) == PAST
    assert call(conn, "workspace.get_secret", ws, "TOKEN").get_secret == TOKEN
    assert pair(conn, ws) == ("claude-code", "opus", 3)
    assert status(conn) == [(None, "plain", 2, 11, None), (1, "active", 0, 0, None)]

    assert reseal(conn) == (None, 13, 0, 0)
    assert key_ids(conn) == {1}
    assert status(conn, verify=True) == [(1, "active", 2, 11, 0)]
    assert models(conn, ws) == PAST
    assert models(conn, gone) == [*PAST, ("opus", None)]
    # Nothing is done twice.
    with nothing_written(conn):
        assert reseal(conn) == (None, 0, 0, 0)


def test_a_kept_model_keeps_its_plain_bytes_until_it_is_resealed(conn: Conn) -> None:
    ws = create(conn, "claude-code", "moonshot/kimi-k2.6")
    init(conn)
    assert call(conn, "workspace.change_runtime", ws, "hermes").model_source == "kept"
    assert stored(conn, ws)[1] is None
    reseal(conn)
    assert key_ids(conn) == {1}


def test_there_is_one_first_key(sealed: Conn) -> None:
    with nothing_written(sealed):
        assert refused(sealed, "keyring.init").code == "KEYRING_EXISTS"


def test_there_is_nothing_to_rotate_or_rewrap_without_a_key(conn: Conn) -> None:
    bring(conn, KEK, NEW_KEK)
    with nothing_written(conn):
        assert refused(conn, "keyring.rotate").code == "KEYRING_EMPTY"
        assert rewrap(conn) == 0


@pytest.mark.parametrize("form", ["hex", "HEX", "base64"])
def test_a_kek_is_32_bytes_in_hex_or_base64(conn: Conn, form: str) -> None:
    raw = secrets.token_bytes(32)
    forms = {"hex": raw.hex(), "HEX": raw.hex().upper(), "base64": b64encode(raw).decode()}
    bring(conn, forms[form])
    assert init(conn) == 1
    assert pair(conn, create(conn, "claude-code", "opus"))[1] == "opus"


NO_KEKS = [
    "a passphrase",
    "x",
    "x" * 64,
    "ab" * 31,
    "ab" * 33,
    b64encode(bytes(31)).decode(),
    b64encode(bytes(33)).decode(),
    b64encode(b"\xff" * 48).decode(),  # as long as 32 bytes in hex
    b64encode(bytes(32)).decode()[:-1],
    "é" * 32,
]


@pytest.mark.parametrize("kek", NO_KEKS)
def test_what_is_no_kek_is_not_taken_into_use(conn: Conn, kek: str) -> None:
    def check(setting: str) -> None:
        with nothing_written(conn):
            refusal = refused(conn, "keyring.rewrap" if setting == "new_kek" else "keyring.init")
        assert refusal.code == "INVALID_ARGUMENT"
        assert refusal.detail["argument"] == f"runtime_registry.{setting}"
        assert kek == "x" or kek not in refusal.text

    bring(conn, kek)
    check("kek")
    bring(conn, KEK)
    init(conn)
    bring(conn, KEK, kek)
    check("new_kek")


# The session's KEK

CALLS: dict[str, Callable[[UUID], tuple[list[object], Json]]] = {
    "workspace.create_workspace": lambda ws: (["w", "claude-code"], {}),
    "workspace.change_runtime": lambda ws: ([ws, "hermes", "moonshot/kimi-k2.6"], {}),
    "workspace.set_model": lambda ws: ([ws, "haiku"], {}),
    "workspace.rename_workspace": lambda ws: ([ws, "n"], {}),
    "workspace.get_workspace": lambda ws: ([ws], {}),
    "workspace.preview_runtime_change": lambda ws: ([ws, "hermes", "moonshot/kimi-k2.6"], {}),
    "workspace.history": lambda ws: ([ws], {}),
    "workspace.set_secret": lambda ws: ([ws, "OTHER", "x"], {}),
    "workspace.get_secret": lambda ws: ([ws, "TOKEN"], {}),
    "fleet.load_registry": lambda ws: ([Jsonb({**MANIFEST, "equivalents": []})], {}),
    "fleet.changes_after": lambda ws: ([], {}),
    "keyring.rotate": lambda ws: ([], {}),
    "keyring.rewrap": lambda ws: ([], {}),
    "keyring.reseal": lambda ws: ([], {}),
    "keyring.status": lambda ws: ([True], {}),
}
WITHOUT: dict[str, Callable[[UUID], tuple[list[object], Json]]] = {
    "workspace.clear_model": lambda ws: ([ws], {}),
    "workspace.delete_workspace": lambda ws: ([ws], {}),
    "workspace.delete_secret": lambda ws: ([ws, "TOKEN"], {}),
    "workspace.list_secrets": lambda ws: ([ws], {}),
    "keyring.status": lambda ws: ([], {}),
    "keyring.retire": lambda ws: ([1], {}),
    "keyring.opens": lambda ws: ([], {}),
}


def test_it_is_known_of_every_function_whether_it_needs_the_kek(conn: Conn) -> None:
    granted = conn.execute(
        "select p.oid::regproc::text from pg_proc p"
        " where p.pronamespace::regnamespace::text in ('workspace', 'keyring')"
        " and has_function_privilege('runtime_registry_admin', p.oid, 'execute')"
    )
    assert {name for (name,) in granted} - {*CALLS, *WITHOUT} == {"keyring.init"}


@pytest.mark.parametrize("kek", ["", WRONG_KEK, "a passphrase", "x" * 64])
@pytest.mark.parametrize("function", CALLS)
def test_who_needs_a_secret_needs_the_kek(sealed: Conn, ws: UUID, function: str, kek: str) -> None:
    bring(sealed, kek, NEW_KEK if function == "keyring.rewrap" else "")
    args, named = CALLS[function](ws)
    with nothing_written(sealed):
        refusal = refused(sealed, function, *args, **named)
    assert (refusal.sqlstate, refusal.code) == ("PT500", "ENCRYPTION_KEY_MISSING")
    assert refusal.detail == {"code": "ENCRYPTION_KEY_MISSING"}
    problem = "does not fit this keyring" if kek else "is not set (runtime_registry.kek)"
    assert f"The session's key-encryption key {problem}." in refusal.text


def test_a_kek_that_fits_an_older_backup_of_the_keyring_only_is_refused(sealed: Conn) -> None:
    bring(sealed, KEK, NEW_KEK)
    rewrap(sealed)
    bring(sealed, KEK)
    refusal = refused(sealed, "workspace.create_workspace", "w", "claude-code", "opus")
    assert refusal.code == "ENCRYPTION_KEY_MISSING"


@pytest.mark.parametrize("kek", ["", WRONG_KEK])
@pytest.mark.parametrize("function", WITHOUT)
def test_who_only_takes_something_away_needs_no_kek(
    sealed: Conn, ws: UUID, function: str, kek: str
) -> None:
    other = create(sealed, "claude-code", "opus")
    if function == "keyring.retire":
        rotate(sealed)
        reseal(sealed)
    bring(sealed, kek)
    args, named = WITHOUT[function](ws)
    rows(sealed, function, *args, **named)

    bring(sealed, KEK)
    assert pair(sealed, other)[1] == "opus"
    history = models(sealed, ws)
    # What was there before is told as far as it could be read.
    assert history[:3] == PAST
    assert history[3:] == {
        "workspace.clear_model": [(None, None)],
        "workspace.delete_workspace": [(None, None)],
        "workspace.delete_secret": [("opus", "opus")],
    }.get(function, [])


def test_a_request_can_be_repeated_without_the_kek_where_it_needed_none(
    sealed: Conn, ws: UUID
) -> None:
    bring(sealed, "")
    cleared = call(sealed, "workspace.clear_model", ws, request_id="c")
    assert call(sealed, "workspace.clear_model", ws, request_id="c") == cleared
    assert refused(sealed, "workspace.clear_model", ws, request_id="r").code == "REQUEST_ID_REUSED"


# What does not open


def change_of_bit(value: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(value)
    changed[place] ^= 1 << bit
    return bytes(changed)


def words(refusal: Refusal) -> str:
    """What the client is told, without the lines of our functions that told it."""
    return "\n".join(refusal.text.splitlines()[:3])


def check_unreadable(conn: Conn, ws: UUID) -> set[str]:
    """Check that whoever needs the model of this workspace is refused; in which words."""
    refusals = [
        refused(conn, "workspace.get_workspace", ws),
        refused(conn, "workspace.preview_runtime_change", ws, "hermes"),
        refused(conn, "workspace.change_runtime", ws, "hermes"),
        refused(conn, "workspace.change_runtime", ws, "hermes", restore=True),
    ]
    for refusal in refusals:
        assert refusal.detail == {"code": "SECRET_UNREADABLE", "workspace_id": str(ws)}
        assert refusal.hint
    return {words(refusal) for refusal in refusals}


def test_no_bit_can_be_flipped_and_no_byte_cut_off_or_added(sealed: Conn, ws: UUID) -> None:
    whole, key_id = stored(sealed, ws)
    said = set()
    for place in range(len(whole)):
        put(sealed, ws, "MODEL", change_of_bit(whole, place, secrets.randbelow(8)), key_id)
        said |= check_unreadable(sealed, ws)
        put(sealed, ws, "MODEL", whole[:place], key_id)
        said |= check_unreadable(sealed, ws)
    for more in (b"\0", whole):
        put(sealed, ws, "MODEL", whole + more, key_id)
        said |= check_unreadable(sealed, ws)
        put(sealed, ws, "MODEL", more + whole, key_id)
        said |= check_unreadable(sealed, ws)
    assert len(said) == 1
    put(sealed, ws, "MODEL", whole, key_id)
    assert pair(sealed, ws)[1] == "opus"


@pytest.mark.parametrize("size", [4, 130, 180, 200, 1000, 8300, 9000, 16384, 40000])
def test_no_bit_of_any_length_can_be_flipped(sealed: Conn, size: int) -> None:
    """All bits of a short message; of a long one those of its frame and some between."""
    ws, value = uuid4(), secrets.token_hex(size // 2)
    intact, opened, flipped = sealed.execute(
        """
        with message as (
          select keyring.active_key() as key, s.*
          from keyring.seal(keyring.active_key(), %(ws)s, 'A', %(value)s) as s
        ), place as (
          select place from message, generate_series(0, octet_length(sealed) - 1) as place
          where place < 40 or place %% 16385 < 24 or octet_length(sealed) - place < 40
            or octet_length(sealed) < 400 or place %% 97 = 0
        )
        select
          (select keyring.unseal(key, %(ws)s, 'A', sealed, key_id) = %(value)s from message),
          (
            select array_agg(place * 8 + bit)
            from message, place, generate_series(0, 7) as bit,
              set_byte(sealed, place, get_byte(sealed, place) # (1 << bit)) as flipped
            where keyring.unseal(key, %(ws)s, 'A', flipped, key_id) is not null
          ),
          (select count(*) from place)
        """,
        {"ws": ws, "value": value},
    ).fetchall()[0]
    assert intact
    assert flipped > 50
    assert opened is None


def test_no_bit_of_a_wrapped_key_can_be_flipped(sealed: Conn) -> None:
    wrapped = bytes(one(sealed, "select wrapped from keyring.keys"))
    for place in range(len(wrapped)):
        with savepoint(sealed):
            sealed.execute(
                "update keyring.keys set wrapped = %s",
                [change_of_bit(wrapped, place, secrets.randbelow(8))],
            )
            refusal = refused(sealed, "workspace.create_workspace", "w", "claude-code")
            assert refusal.code == "ENCRYPTION_KEY_MISSING"
    opened = one(
        sealed,
        "select count(*) from keyring.keys, generate_series(0, octet_length(wrapped) * 8 - 1) as b"
        " where (keyring.unwrap(id, set_bit(wrapped, b, 1 - get_bit(wrapped, b)), %s)).key_id"
        " is not null",
        KEK,
    )
    assert opened == 0


def foreign(conn: Conn, ws: UUID) -> Iterator[tuple[str, bytes, int | None]]:
    """Bytes that are whole, but not this workspace's model under this key."""
    whole, key_id = stored(conn, ws)
    other = with_past(conn)
    yield "another workspace's model", *stored(conn, other)
    yield "another secret's bytes", *stored(conn, ws, "TOKEN")
    history = conn.execute(
        "select sealed, key_id from workspace.changes where workspace_id = %s and version = 1",
        [other],
    ).fetchall()
    yield "another workspace's history", *history[0]
    yield "no key's id", whole, None
    yield "an unknown key's id", whole, 99
    yield "an impossible key's id", whole, -1
    yield "another key's id", whole, rotate(conn)
    yield "an old key's id", stored(conn, create(conn, "claude-code", "opus"))[0], key_id
    wrapped = one(conn, "select wrapped from keyring.keys where state = 'active'")
    yield "a wrapped key", wrapped, key_id
    yield "nothing", b"", key_id
    yield "plain bytes under a key's id", b"opus", key_id
    yield "bytes that are no text", b"\xff\x00", None


def test_bytes_of_something_else_do_not_open(sealed: Conn, ws: UUID) -> None:
    whole = stored(sealed, ws)
    said = set()
    for _, value, key_id in list(foreign(sealed, ws)):
        put(sealed, ws, "MODEL", bytes(value), key_id)
        with nothing_written(sealed):
            said |= check_unreadable(sealed, ws)
    assert len(said) == 1
    put(sealed, ws, "MODEL", *whole)
    assert pair(sealed, ws)[1] == "opus"


def test_a_secret_does_not_open_under_another_name(sealed: Conn, ws: UUID) -> None:
    call(sealed, "workspace.set_secret", ws, "OTHER", "x")
    other = with_past(sealed)
    whole, said = stored(sealed, ws, "TOKEN"), set()
    for value, key_id in (
        stored(sealed, ws, "OTHER"),
        stored(sealed, ws, "MODEL"),
        stored(sealed, other, "TOKEN"),
        (whole[0], None),
        (whole[0], 7),
        (whole[0][:-1], 1),
    ):
        put(sealed, ws, "TOKEN", value, key_id)
        with nothing_written(sealed):
            refusal = refused(sealed, "workspace.get_secret", ws, "TOKEN")
        assert refusal.code == "SECRET_UNREADABLE"
        assert (refusal.detail["secret"], refusal.detail["workspace_id"]) == ("TOKEN", str(ws))
        said.add(words(refusal))
    assert len(said) == 1
    # It can be replaced and removed.
    assert call(sealed, "workspace.set_secret", ws, "TOKEN", "y").changed
    assert call(sealed, "workspace.get_secret", ws, "TOKEN").get_secret == "y"
    put(sealed, ws, "TOKEN", b"", 1)
    assert call(sealed, "workspace.delete_secret", ws, "TOKEN").changed


@pytest.mark.parametrize("choice", ["change_runtime", "set_model"])
def test_an_explicit_model_replaces_one_that_does_not_open(
    sealed: Conn, ws: UUID, choice: str
) -> None:
    model = {"change_runtime": "moonshot/kimi-k2.6", "set_model": "opus"}[choice]
    args = [ws, "hermes", model] if choice == "change_runtime" else [ws, model]
    for damage, value, key_id in list(foreign(sealed, ws)):
        with savepoint(sealed):
            put(sealed, ws, "MODEL", bytes(value), key_id)
            change = call(sealed, f"workspace.{choice}", *args)
            assert (change.changed, change.previous_model, change.model) == (True, None, model)
            assert (change.model_was_reset, change.version) == (False, 4), damage
            assert pair(sealed, ws) == (change.runtime, model, 4)
            assert stored(sealed, ws)[1] == 2
            assert models(sealed, ws) == [*PAST, (None, model)]


def test_an_unreadable_model_stays_as_it_is_where_another_secret_is_written(
    sealed: Conn, ws: UUID
) -> None:
    broken = b"\xff", 1
    put(sealed, ws, "MODEL", *broken)
    for call_ in ("set_secret", "delete_secret"):
        args = ["y"] if call_ == "set_secret" else []
        change = call(sealed, f"workspace.{call_}", ws, "TOKEN", *args)
        assert (change.changed, change.previous_model, change.model) == (True, None, None)
        assert change.model_source == "kept"
    assert stored(sealed, ws) == broken
    recorded = sealed.execute(
        "select previous_sealed, sealed from workspace.changes where workspace_id = %s"
        " and version > 3",
        [ws],
    ).fetchall()
    assert recorded == [(b"\xff", b"\xff")] * 2


def test_what_cannot_be_read_is_counted_and_left_as_it_is(sealed: Conn, ws: UUID) -> None:
    other = with_past(sealed)
    put(sealed, ws, "MODEL", b"broken", 1)
    put(sealed, ws, "TOKEN", b"\xff", None)
    sealed.execute(
        "update workspace.changes set sealed = 'x', key_id = 7"
        " where workspace_id = %s and version = 1",
        [other],
    )
    assert status(sealed, verify=True) == [
        (None, "plain", 1, 0, 1),
        (1, "active", 3, 9, 1),
        (7, "missing", 0, 1, 1),
    ]
    assert status(sealed) == [
        (None, "plain", 1, 0, None),
        (1, "active", 3, 9, None),
        (7, "missing", 0, 1, None),
    ]
    rotate(sealed)
    assert reseal(sealed) == (None, 11, 3, 0)
    assert stored(sealed, ws) == (b"broken", 1)
    assert refused(sealed, "keyring.retire", 1).code == "KEY_IN_USE"
    call(sealed, "workspace.set_model", ws, "opus")
    retire(sealed, 1)


def test_a_value_opens_outside_the_database_with_its_data_key(sealed: Conn, ws: UUID) -> None:
    for name, value in (("MODEL", "opus"), ("TOKEN", TOKEN)):
        opened = pysequoia.decrypt(stored(sealed, ws, name)[0], passwords=[data_key(sealed)])
        assert opened.bytes == f"{ws} {name}\n{value}".encode()
    wrapped = bytes(one(sealed, "select wrapped from keyring.keys"))
    key = pysequoia.decrypt(wrapped, passwords=[KEK]).bytes
    assert key == f"runtime-registry key 1\n{data_key(sealed)}".encode()


# Rotating, rewrapping, retiring


def test_rotating_moves_all_to_the_new_key_and_the_old_one_can_go(sealed: Conn, ws: UUID) -> None:
    gone = with_past(sealed)
    call(sealed, "workspace.delete_workspace", gone)
    assert rotate(sealed) == 2
    assert pair(sealed, ws)[1] == "opus"
    assert status(sealed) == [(1, "retired", 2, 11, None), (2, "active", 0, 0, None)]
    new = create(sealed, "claude-code", "opus")
    assert stored(sealed, new)[1] == 2

    with nothing_written(sealed):
        refusal = refused(sealed, "keyring.retire", 1)
    assert refusal.detail == {"code": "KEY_IN_USE", "key_id": 1, "state": "retired", "values": 13}
    assert reseal(sealed) == (None, 13, 0, 0)
    assert key_ids(sealed) == {2}
    retire(sealed, 1)
    assert status(sealed, verify=True) == [(2, "active", 3, 12, 0)]
    assert models(sealed, ws) == PAST
    assert models(sealed, gone) == [*PAST, ("opus", None)]
    assert call(sealed, "workspace.get_secret", ws, "TOKEN").get_secret == TOKEN
    # No id is used twice.
    assert rotate(sealed) == 3


def test_requests_are_answered_as_before_after_a_rotation(sealed: Conn) -> None:
    ws = create(sealed, "claude-code", "sonnet")
    requests: list[tuple[str, list[object]]] = [
        ("set_model", [ws, "opus"]),
        ("change_runtime", [ws, "google-adk"]),
        ("change_runtime", [ws, "hermes", "moonshot/kimi-k2.6"]),
        ("clear_model", [ws]),
    ]

    def answers() -> list[Any]:
        return [
            call(sealed, f"workspace.{name}", *args, request_id=str(number))
            for number, (name, args) in enumerate(requests)
        ]

    first = answers()
    for step in (lambda: rotate(sealed), lambda: reseal(sealed), lambda: retire(sealed, 1)):
        step()
        with nothing_written(sealed):
            assert answers() == first


def test_an_active_key_a_used_one_and_none_cannot_be_retired(sealed: Conn, ws: UUID) -> None:
    with nothing_written(sealed):
        active = refused(sealed, "keyring.retire", 1)
        assert (active.code, active.detail["state"]) == ("KEY_IN_USE", "active")
        assert refused(sealed, "keyring.retire", 2).detail["code"] == "KEY_NOT_FOUND"
        assert refused(sealed, "keyring.retire", None).code == "INVALID_ARGUMENT"
    # One value anywhere is enough.
    rotate(sealed)
    reseal(sealed)
    for table, column in (
        ("secrets", "key_id"),
        ("changes", "key_id"),
        ("changes", "previous_key_id"),
    ):
        with savepoint(sealed):
            sealed.execute(
                f"update workspace.{table} set {column} = 1 where ctid = (select ctid from"
                f" workspace.{table} where {column} is not null limit 1)"
            )
            assert refused(sealed, "keyring.retire", 1).detail["values"] == 1
    retire(sealed, 1)


def test_who_has_both_keks_works_before_and_after_a_rewrap(sealed: Conn, ws: UUID) -> None:
    rotate(sealed)
    with nothing_written(sealed):
        bring(sealed, WRONG_KEK, NEW_KEK)
        assert refused(sealed, "keyring.rewrap").code == "ENCRYPTION_KEY_MISSING"
        bring(sealed, KEK)
        missing = refused(sealed, "keyring.rewrap")
        assert missing.code == "ENCRYPTION_KEY_MISSING"
        assert "is not set (runtime_registry.new_kek)" in missing.text

    bring(sealed, KEK, NEW_KEK)
    before = [stored(sealed, ws, name) for name in ("MODEL", "TOKEN")]
    assert pair(sealed, ws)[1] == "opus"
    assert rewrap(sealed) == 2
    assert pair(sealed, ws)[1] == "opus"
    call(sealed, "workspace.set_secret", ws, "OTHER", "x")
    assert [stored(sealed, ws, name) for name in ("MODEL", "TOKEN")] == before
    # One KEK wraps all keys: the old one makes no new ones, and rewraps nothing.
    with nothing_written(sealed):
        assert refused(sealed, "keyring.rotate").code == "ENCRYPTION_KEY_MISSING"
        assert refused(sealed, "keyring.rewrap").code == "ENCRYPTION_KEY_MISSING"

    bring(sealed, NEW_KEK)
    assert models(sealed, ws)[:3] == PAST
    assert rotate(sealed) == 3
    bring(sealed, KEK)
    assert refused(sealed, "workspace.get_workspace", ws).code == "ENCRYPTION_KEY_MISSING"


def test_a_rewrap_is_all_or_nothing(sealed: Conn) -> None:
    rotate(sealed)
    sealed.execute("update keyring.keys set wrapped = 'x' where id = 2")
    bring(sealed, KEK, NEW_KEK)
    with nothing_written(sealed):
        assert refused(sealed, "keyring.rewrap").code == "ENCRYPTION_KEY_MISSING"


def test_a_wrapped_key_opens_as_no_other_key(sealed: Conn) -> None:
    rotate(sealed)
    sealed.execute(
        "update keyring.keys set wrapped = (select wrapped from keyring.keys where id = 1)"
    )
    refusal = refused(sealed, "workspace.create_workspace", "w", "claude-code")
    assert refusal.code == "ENCRYPTION_KEY_MISSING"


def test_reseal_goes_through_all_workspaces_batch_by_batch(sealed: Conn) -> None:
    ids = sorted([UUID(int=0), UUID(int=2**128 - 1), *(uuid4() for _ in range(5))])
    for ws in ids:
        call(sealed, "workspace.create_workspace", "w", "claude-code", "opus", ws)
    rotate(sealed)
    after, seen = None, []
    while True:
        after, resealed, unreadable, skipped = reseal(sealed, after=after, batch=3)
        seen.append((after, resealed))
        assert (unreadable, skipped) == (0, 0)
        if after is None:
            break
    assert seen == [(ids[2], 6), (ids[5], 6), (None, 2)]
    assert key_ids(sealed) == {2}
    # A batch that is full says where it ended, though there is nothing behind it.
    assert reseal(sealed, batch=7)[0] == ids[-1]
    assert reseal(sealed, after=ids[-1], batch=7) == (None, 0, 0, 0)


def test_a_batch_has_a_size(sealed: Conn) -> None:
    for batch in (None, 0, -1, 100001):
        assert refused(sealed, "keyring.reseal", batch=batch).code == "INVALID_ARGUMENT"
    assert refused(sealed, "keyring.status", None).code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("function", ["init", "rotate", "rewrap", "retire"])
def test_keys_are_changed_at_read_committed_only(
    database: Database, level: IsolationLevel, function: str
) -> None:
    conn = database.connect()
    conn.isolation_level = level
    bring(conn, KEK, NEW_KEK)
    with nothing_written(conn):
        refusal = refused(conn, f"keyring.{function}", *([1] if function == "retire" else []))
    assert refusal.code == "ISOLATION_UNSUPPORTED"


def test_operators_and_readers_work_with_sealed_values(sealed: Conn, ws: UUID) -> None:
    with acting_as(sealed, "runtime_registry_reader"):
        assert pair(sealed, ws)[1] == "opus"
        assert models(sealed, ws) == PAST
    with acting_as(sealed, "runtime_registry_operator"):
        assert call(sealed, "workspace.change_runtime", ws, "google-adk").model_was_reset
        assert call(sealed, "workspace.get_secret", ws, "TOKEN").get_secret == TOKEN
    with acting_as(sealed, "runtime_registry_admin"):
        assert rotate(sealed) == 2
        assert reseal(sealed) == (None, 7, 0, 0)
        assert status(sealed, verify=True) == [(1, "retired", 0, 0, 0), (2, "active", 2, 5, 0)]


@pytest.mark.parametrize("spoiled", [None, "garbled", "moved", "longer than it says"])
def test_a_batch_reads_what_single_calls_read(conn: Conn, spoiled: str | None) -> None:
    """Stored plain, sealed with one key, and with another; short and long; in one batch."""
    load(
        conn, manifest([], [runtime("old", model_policy="any"), runtime("new", model_policy="any")])
    )
    had: dict[UUID, str | None] = {}
    for change_keys in (lambda: None, lambda: init(conn), lambda: rotate(conn)):
        change_keys()
        for model in (None, "m", "é" * 20, "x" * 255):
            had[create(conn, "old", model)] = model
    if spoiled:
        ws, other = [ws for ws, model in had.items() if model == "m"][1:]
        bytes_, key_id = stored(conn, ws)
        put(
            conn,
            ws,
            "MODEL",
            {
                "garbled": bytes_[:40] + bytes(9),
                "moved": stored(conn, other)[0],
                "longer than it says": bytes_ + b"x",
            }[spoiled],
            2 if spoiled == "moved" else key_id,
        )
        had[ws] = None
    dry = rows(conn, "fleet.move", "old", "new", dry_run=True)
    assert {entry.workspace_id: entry.previous_model for entry in dry} == had
    assert sum(entry.outcome == "refused" for entry in dry) == bool(spoiled)
    assert rows(conn, "fleet.move", "old", "new") == dry
    for ws, model in had.items():
        if not (spoiled and model is None):
            assert pair(conn, ws) == ("new", model, 2)


# What stands in queries


def test_no_key_is_in_a_query_that_auto_explain_could_show(database: Database) -> None:
    said: list[str] = []
    conn = database.connect(options=f"-c runtime_registry.kek={KEK}", autocommit=True)
    empty(conn)
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    conn.execute(
        "load 'auto_explain';"
        " set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;"
        " set auto_explain.log_verbose = on; set auto_explain.log_analyze = on;"
        " set client_min_messages = log; set plan_cache_mode = force_custom_plan"
    )
    keys = []

    def note_keys() -> None:
        conn.execute("set auto_explain.log_min_duration = -1")
        keys.append(data_key(conn))
        conn.execute("set auto_explain.log_min_duration = 0")

    init(conn)
    note_keys()
    ws = with_past(conn)
    call(conn, "workspace.change_runtime", ws, "google-adk")
    call(conn, "workspace.change_runtime", ws, "claude-code", restore=True)
    call(conn, "workspace.get_secret", ws, "TOKEN")
    rotate(conn)
    note_keys()
    reseal(conn)
    call(conn, "workspace.set_model", ws, "sonnet", request_id="s")
    call(conn, "workspace.set_model", ws, "sonnet", request_id="s")
    call(conn, "workspace.preview_runtime_change", ws, "google-adk")
    pair(conn, ws)
    models(conn, ws)
    status(conn, verify=True)
    conn.execute("select set_config('runtime_registry.new_kek', %s, false)", [NEW_KEK])
    seen = len(said)
    rewrap(conn)
    conn.execute("select set_config('runtime_registry.kek', %s, false)", [NEW_KEK])
    retire(conn, 1)
    call(conn, "workspace.delete_secret", ws, "TOKEN")
    call(conn, "workspace.clear_model", ws)
    call(conn, "workspace.delete_workspace", ws)
    assert 100 < seen < len(said)
    shown = "\n".join(said)
    assert "workspace.secrets" in shown
    for key in (KEK, *keys):
        assert key not in shown
    assert shown.count(NEW_KEK) <= 4  # in the client's own calls of set_config


def test_no_key_is_in_a_query_of_a_batch_that_goes_on_after_refusals(sealed: Conn) -> None:
    said: list[str] = []
    key = data_key(sealed)
    load(
        sealed,
        manifest(
            [provider("p"), provider("q", model_prefixes=["moved"])],
            [runtime("from", ("p", ["kept", "moved"])), runtime("to", ("q", []))],
        ),
    )
    # In the order of their ids, which is that of the batch.
    for number, model in enumerate(("kept", "moved", "kept", "moved"), start=1):
        call(sealed, "workspace.create_workspace", model, "from", model, UUID(int=number))
    sealed.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    sealed.execute(
        "load 'auto_explain';"
        " set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;"
        " set auto_explain.log_verbose = on; set client_min_messages = log"
    )
    for moves in (("refused", "changed") * 2, ("refused",) * 2):
        answers = rows(sealed, "fleet.move", "from", "to", restore=True, request_id="m")
        assert tuple(answer.outcome for answer in answers) == moves
    shown = "\n".join(said)
    assert "workspace.choose_model(" in shown
    assert key not in shown


def test_no_key_is_in_the_query_that_refuses_a_version(sealed: Conn, ws: UUID) -> None:
    said: list[str] = []
    key = data_key(sealed)
    sealed.add_notice_handler(lambda notice: said.append(notice.message_detail or ""))
    sealed.execute(
        "set debug_print_plan = on; set debug_pretty_print = off; set client_min_messages = log"
    )
    refusal = refused(sealed, "workspace.set_model", ws, "opus", expected_version=99)
    assert refusal.code == "VERSION_CONFLICT"
    values = [
        bytes(int(byte) & 255 for byte in value.split())
        for value in re.findall(r":constvalue \d+ \[([^]]*)\]", "\n".join(said))
    ]
    assert any(str(ws).encode() in value or ws.bytes in value for value in values)
    assert not any(key.encode() in value for value in values)
