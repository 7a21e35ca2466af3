"""The key-encryption key: where it comes from, how a session gets it, and that nothing shows it."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import pprint
import re
import socket
import subprocess
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from rich.pretty import pretty_repr

from databases import Database
from pyapi import (
    aio,
    change_runtime,
    create_workspace,
    get_secret,
    get_workspace,
    keyring,
    set_model,
    set_secret,
)
from pyapi.aio import keyring as akeyring
from pyapi.errors import (
    ConnectionLost,
    EncryptionKeyMissing,
    InvalidArgument,
    ModelNotRegistered,
    RegistryError,
)
from pyapi.keyring import Kek
from servers import Server
from support import Conn, one

HEX = "0123456789abcdef" * 4
BASE64 = "ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8="
GEMINI = "platform:gemini-2.5-pro"
SETTING = "select coalesce(current_setting('runtime_registry.kek', true), '')"


@pytest.fixture
def kek() -> Kek:
    return Kek.generate()


@pytest.fixture
def sealed(keyless: Database, kek: Kek) -> Database:
    """A database whose keyring has a key, wrapped by `kek`."""
    with keyless.connect(options=keyring.startup_options(kek)) as conn:
        keyring.init(conn)
    return keyless


@pytest.fixture
def ws(sealed: Database, kek: Kek) -> UUID:
    """A workspace on claude-code whose model is sealed."""
    with sealed.connect(options=keyring.startup_options(kek)) as conn:
        return create_workspace(conn, "w", "claude-code", model="opus").workspace_id


def shown(error: BaseException) -> str:
    """All that a traceback of an error can show, the variables of its frames too.

    Not those of the test that caught it: pytest keeps in them what it compares.
    """
    assert error.__traceback__
    report = traceback.TracebackException(
        type(error), error, error.__traceback__.tb_next, capture_locals=True
    )
    chain = [error, error.__cause__, error.__context__]
    return "".join(report.format()) + "".join(
        f"{each!r} {each.args} {vars(each)}" for each in chain if each is not None
    )


# The key itself


@pytest.mark.parametrize("text", [HEX, HEX.upper(), BASE64, f"{HEX}\n", f" {BASE64}\r\n"])
def test_a_key_is_32_bytes_in_hex_or_base64_and_its_text_is_kept(text: str) -> None:
    assert Kek(text).reveal() == text.strip()


def test_bytes_stand_for_their_hex_digits_and_a_key_for_itself() -> None:
    assert Kek(bytes.fromhex(HEX)).reveal() == HEX
    assert Kek(Kek(HEX)).reveal() == HEX


def test_a_generated_key_is_a_new_one() -> None:
    assert re.fullmatch("[0-9a-f]{64}", Kek.generate().reveal())
    assert Kek.generate().reveal() != Kek.generate().reveal()


NO_KEYS: list[str | bytes] = [
    "",
    "correct horse battery staple",
    HEX[:-1],
    HEX[:-1] + "g",
    HEX[:62] + "  ",
    HEX * 2,
    BASE64[:-4],
    BASE64[:-1] + "é",
    b64encode(b"x" * 31).decode(),
    b64encode(b"x" * 33).decode(),
    b"x" * 31,
    HEX.encode(),
]


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_is_no_key_is_refused_and_not_repeated(key: str | bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Kek(key)
    assert (caught.value.argument, caught.value.status) == ("kek", 400)
    assert not key or repr(key)[1:-1] not in shown(caught.value)


def test_nothing_shows_a_key(kek: Kek, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("test").info("%s %r", kek, {"kek": kek})
    seen = [repr(kek), str(kek), f"{kek}", f"{kek!r:>20}", pprint.pformat([kek]), pretty_repr(kek)]
    seen += [repr(keyring.configure(kek)), repr(dir(kek)), caplog.text]
    assert "Kek(...)" in seen
    assert not any(kek.reveal() in text for text in seen)
    assert not hasattr(kek, "__dict__")
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(kek)
    with pytest.raises(AttributeError):
        kek._text = HEX


def test_a_key_is_no_literal(sealed: Database, kek: Kek) -> None:
    conn = sealed.connect(cursor_factory=psycopg.ClientCursor)
    with pytest.raises(psycopg.ProgrammingError):
        conn.execute("select %s", [kek])
    conn.adapters.register_dumper(Kek, keyring._KekDumper)
    with pytest.raises(TypeError):
        conn.execute("select %s", [kek])
    with pytest.raises(TypeError):
        sql.Literal(kek).as_string(conn)


# Where it comes from


def test_a_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_REGISTRY_KEK", f"{BASE64}\n")
    assert Kek.from_environment().reveal() == BASE64
    monkeypatch.setenv("OTHER", HEX[:-1])
    for name in ("OTHER", "MISSING"):
        with pytest.raises(InvalidArgument) as caught:
            Kek.from_environment(name)
        assert caught.value.argument == name
        assert HEX[:-1] not in shown(caught.value)


def test_a_key_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "kek"
    file.write_text(f"{HEX}\n")
    assert Kek.from_file(file).reveal() == HEX
    for wrong in (b"", HEX.encode()[:-1], b"\xff" * 32, b"\xff\xfe" + HEX.encode()):
        file.write_bytes(wrong)
        with pytest.raises(InvalidArgument) as caught:
            Kek.from_file(str(file))
        assert caught.value.argument == str(file)
        assert HEX[:60] not in shown(caught.value)
    with pytest.raises(FileNotFoundError):
        Kek.from_file(tmp_path / "none")


# How a session gets it


def fetched(kek: Kek) -> Callable[[], str]:
    return lambda: kek.reveal()


def fetched_bytes(kek: Kek) -> Callable[[], bytes]:
    return lambda: bytes.fromhex(kek.reveal())


def status(conn: Conn) -> TransactionStatus:
    return conn.info.transaction_status


def change_then_fail(conn: Conn, ws: UUID) -> None:
    set_secret(conn, ws, "A", "1")
    set_model(conn, ws, "no such model")


SOURCES: list[Callable[[Kek], Any]] = [lambda kek: kek, lambda kek: lambda: kek]
SOURCES += [fetched, fetched_bytes]


def test_without_the_key_or_with_another_one_nothing_opens(sealed: Database, ws: UUID) -> None:
    for options in ("", keyring.startup_options(Kek.generate())):
        conn = sealed.connect(autocommit=True, options=options)
        for call in (get_workspace, lambda conn, ws: change_runtime(conn, ws, "google-adk")):
            with pytest.raises(EncryptionKeyMissing) as caught:
                call(conn, ws)
            assert caught.value.status == 500


@pytest.mark.parametrize("source", SOURCES)
def test_a_connection_has_it_from_its_start(
    sealed: Database, kek: Kek, ws: UUID, source: Callable[[Kek], Any]
) -> None:
    options = keyring.startup_options(source(kek), "-c statement_timeout=7s")
    conn = sealed.connect(options=options)
    assert one(conn, "show statement_timeout") == "7s"
    assert get_workspace(conn, ws).model == "opus"
    conn.rollback()
    conn.autocommit = True
    conn.execute("discard all")
    assert get_workspace(conn, ws).model == "opus"


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_a_pool_gives_it_to_its_connections(
    sealed: Database, kek: Kek, ws: UUID, source: Callable[[Kek], Any], autocommit: bool
) -> None:
    hook = keyring.configure(source(kek))
    kwargs = {"autocommit": autocommit}
    with ConnectionPool(sealed.dsn, min_size=1, kwargs=kwargs, configure=hook) as pool:
        for _ in range(2):
            with pool.connection(10) as conn:
                assert get_workspace(conn, ws).model == "opus"
            with pytest.raises(ModelNotRegistered), pool.connection() as conn:
                set_model(conn, ws, "no such model")


def test_an_async_pool_gives_it_to_its_connections(sealed: Database, kek: Kek, ws: UUID) -> None:
    async def from_service() -> bytes:
        await asyncio.sleep(0)
        return bytes.fromhex(kek.reveal())

    async def use(source: Any) -> None:
        hook = akeyring.configure(source)
        async with (
            AsyncConnectionPool(sealed.dsn, min_size=1, configure=hook) as pool,
            pool.connection(10) as conn,
        ):
            assert (await aio.get_workspace(conn, ws)).model == "opus"

    for source in (kek, fetched(kek), from_service):
        asyncio.run(use(source))


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_a_transaction_has_it_and_leaves_nothing_behind(
    sealed: Database, kek: Kek, ws: UUID, source: Callable[[Kek], Any], autocommit: bool
) -> None:
    notices: list[str] = []
    conn = sealed.connect(autocommit=autocommit)
    conn.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    with keyring.transaction(conn, source(kek)):
        assert change_runtime(conn, ws, "google-adk").model == GEMINI
        assert status(conn) == TransactionStatus.INTRANS
    assert status(conn) == TransactionStatus.IDLE
    assert conn.autocommit is autocommit
    assert one(conn, SETTING) == ""
    conn.rollback()

    with pytest.raises(ModelNotRegistered), keyring.transaction(conn, source(kek)):
        change_then_fail(conn, ws)
    assert status(conn) == TransactionStatus.IDLE
    assert one(conn, SETTING) == ""
    conn.rollback()
    with keyring.transaction(conn, source(kek)):
        assert get_workspace(conn, ws).version == 2
    assert notices == []


def test_a_transaction_is_what_psycopgs_is(sealed: Database, kek: Kek, ws: UUID) -> None:
    conn = sealed.connect(autocommit=True)
    with keyring.transaction(conn, kek):
        with pytest.raises(ModelNotRegistered), conn.transaction():
            set_model(conn, ws, "no such model")
        with keyring.transaction(conn, kek) as inner:
            set_model(conn, ws, "sonnet")
            raise psycopg.Rollback(inner)
        with conn.transaction():
            set_secret(conn, ws, "A", "1")
        with conn.cursor().copy("copy (select 1) to stdout") as rows:  # not in a pipeline
            assert len(list(rows)) == 1
    with keyring.transaction(conn, kek):
        assert (get_workspace(conn, ws).model, get_workspace(conn, ws).version) == ("opus", 2)
        assert get_secret(conn, ws, "A") == "1"
    assert one(conn, SETTING) == ""


def test_a_transaction_in_a_pipeline(sealed: Database, kek: Kek, ws: UUID) -> None:
    conn = sealed.connect(autocommit=True)
    with conn.pipeline():
        conn.execute("select 1")
        with keyring.transaction(conn, kek):
            assert change_runtime(conn, ws, "google-adk").model == GEMINI
        with pytest.raises(ModelNotRegistered), keyring.transaction(conn, kek):
            change_then_fail(conn, ws)
        with keyring.transaction(conn, kek):
            assert get_workspace(conn, ws).version == 2
    assert one(conn, SETTING) == ""


@pytest.mark.parametrize("autocommit", [False, True])
def test_an_async_transaction_has_it_and_leaves_nothing_behind(
    sealed: Database, kek: Kek, ws: UUID, autocommit: bool
) -> None:
    async def use() -> None:
        conn = await sealed.aconnect(autocommit=autocommit)
        async with akeyring.transaction(conn, kek):
            assert (await aio.change_runtime(conn, ws, "google-adk")).model == GEMINI

        async def fail() -> None:
            async with akeyring.transaction(conn, fetched(kek)):
                await aio.set_secret(conn, ws, "A", "1")
                await aio.set_model(conn, ws, "no such model")

        with pytest.raises(ModelNotRegistered):
            await fail()
        async with conn.pipeline(), akeyring.transaction(conn, kek):
            assert (await aio.get_workspace(conn, ws)).version == 2
        assert conn.autocommit is autocommit
        assert await (await conn.execute(SETTING)).fetchall() == [("",)]

    asyncio.run(use())


def test_a_key_of_the_session_comes_back_after_a_transaction_with_another(
    sealed: Database, kek: Kek, ws: UUID
) -> None:
    conn = sealed.connect(autocommit=True, options=keyring.startup_options(kek))
    with pytest.raises(EncryptionKeyMissing), keyring.transaction(conn, Kek.generate()):
        get_workspace(conn, ws)
    assert get_workspace(conn, ws).model == "opus"


def round_trips(conn: Conn, trace: Path, action: Callable[[], object]) -> int:
    """How often the client waited for the server: how often libpq's trace turns from F to B."""
    with trace.open("wb") as file:
        conn.pgconn.trace(file.fileno())
        try:
            action()
        finally:
            conn.pgconn.untrace()
    sides = "".join(re.findall(r"^(?:[\d: .-]+\t)?([FB])\t", trace.read_text(), re.M))
    return len(re.findall("FB", sides))


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_transaction_with_the_key_takes_no_more_round_trips_than_one_without(
    sealed: Database, kek: Kek, ws: UUID, autocommit: bool, tmp_path: Path
) -> None:
    conn = sealed.connect(autocommit=autocommit, prepare_threshold=None)
    other = sealed.connect(
        autocommit=autocommit, prepare_threshold=None, options=keyring.startup_options(kek)
    )

    def in_a(block: Callable[[Conn], AbstractContextManager[Any]], conn: Conn) -> int:
        def action() -> None:
            with block(conn):
                get_workspace(conn, ws)

        return round_trips(conn, tmp_path / "trace", action)

    assert in_a(lambda conn: conn.transaction(), other) == 3  # BEGIN, the call, COMMIT
    assert in_a(lambda conn: keyring.transaction(conn, kek), conn) == 3
    assert in_a(lambda conn: nullcontext(), other) == (1 if autocommit else 2)
    # And what this counts is round trips: as a statement of its own the key takes one more.
    assert in_a(lambda conn: separately(conn, kek), conn) == 4


@contextmanager
def separately(conn: Conn, kek: Kek) -> Iterator[None]:
    with conn.transaction():
        conn.execute("select set_config('runtime_registry.kek', %s, true)", [kek.reveal()])
        yield


# What nothing shows


@pytest.mark.parametrize(
    "call",
    [
        lambda conn, kek: keyring.configure(kek)(conn),
        lambda conn, kek: keyring.transaction(conn, kek).__enter__(),
        lambda conn, kek: keyring.rewrap(conn, kek),
    ],
)
@pytest.mark.parametrize("broken", [False, True])
def test_an_error_on_the_way_shows_no_key(
    sealed: Database, kek: Kek, call: Callable[[Conn, Kek], object], broken: bool
) -> None:
    conn = sealed.connect()
    if broken:
        with socket.socket(fileno=socket.dup(conn.fileno())) as copied:
            copied.shutdown(socket.SHUT_RDWR)
    else:
        conn.close()
    with pytest.raises((psycopg.OperationalError, ConnectionLost)) as caught:
        call(conn, kek)
    text = shown(caught.value)
    assert "Kek(...)" in text
    assert kek.reveal() not in text


def test_a_refusal_shows_no_key(sealed: Database, kek: Kek, ws: UUID) -> None:
    other = Kek.generate()
    conn = sealed.connect(autocommit=True, options=keyring.startup_options(other))
    calls: list[Callable[[], object]] = [
        lambda: get_workspace(conn, ws),
        lambda: keyring.rotate(conn),
        lambda: keyring.rewrap(conn, kek),
        lambda: list(keyring.reseal_all(conn, kek=other)),
        lambda: keyring.status(conn, verify=True),
    ]
    for call in calls:
        with pytest.raises(EncryptionKeyMissing) as caught:
            call()
        for key in (kek, other):
            assert key.reveal() not in shown(caught.value)
            assert key.reveal() not in str(caught.value.detail)


def test_a_source_that_fetches_rubbish_shows_none_of_it(sealed: Database) -> None:
    async def fetch() -> str:
        return HEX[:-1]

    async def use() -> None:
        conn = await sealed.aconnect()
        async with akeyring.transaction(conn, fetch):
            pass

    calls: list[Callable[[], object]] = [
        lambda: keyring.startup_options(lambda: HEX[:-1]),
        lambda: keyring.configure(lambda: HEX[:-1])(sealed.connect()),
        lambda: asyncio.run(use()),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert HEX[:-1] not in shown(caught.value)


def test_a_pool_that_cannot_connect_logs_no_key(
    sealed: Database, kek: Kek, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def configure(conn: Conn) -> None:
        keyring.configure(kek)(conn)
        conn.execute("select 1/0")

    with (
        ConnectionPool(
            sealed.dsn, min_size=1, configure=configure, reconnect_timeout=0.01, open=False
        ) as pool,
        pytest.raises(psycopg.Error),
    ):
        pool.wait(2)
    assert "division by zero" in caplog.text
    assert kek.reveal() not in caplog.text


def use_all(database: Database, kek: Kek, options: str) -> None:
    """Go every way in, with the cursors that write literals where they are let."""
    clients = {"options": options, "cursor_factory": psycopg.ClientCursor}
    with database.connect(**clients) as conn:
        keyring.configure(kek)(conn)
        keyring.rotate(conn)
        keyring.rewrap(conn, kek)
    with database.connect(**clients, autocommit=True) as conn:
        with keyring.transaction(conn, kek):
            ws = create_workspace(conn, "w", "claude-code", model="opus").workspace_id
        with pytest.raises(RegistryError), keyring.transaction(conn, kek):
            change_runtime(conn, ws, "external")
        with pytest.raises(RegistryError), keyring.transaction(conn, kek):
            keyring.init(conn)


def test_the_server_logs_no_key_by_default(server: Server, sealed: Database, kek: Kek) -> None:
    use_all(sealed, kek, "-c log_min_messages=debug1 -c log_error_verbosity=verbose")
    log = server.log_text()
    assert "The keyring has keys already." in log
    assert kek.reveal() not in log
    assert kek.reveal().encode().hex() not in log


def test_the_server_logs_no_key_that_it_has_from_the_start_even_if_it_logs_everything(
    server: Server, sealed: Database, kek: Kek, ws: UUID
) -> None:
    everything = (
        "-c log_statement=all -c log_min_duration_statement=0 -c log_min_messages=debug5"
        " -c log_parameter_max_length_on_error=-1 -c debug_print_parse=on"
    )
    options = keyring.startup_options(kek, everything)
    with sealed.connect(options=options, autocommit=True) as conn:
        set_secret(conn, ws, "NOTED", "a-value-that-is-logged")
        keyring.rotate(conn)
        with pytest.raises(RegistryError):
            keyring.init(conn)
    log = server.log_text()
    assert "a-value-that-is-logged" in log
    assert kek.reveal() not in log


def test_psql_can_bring_the_key_and_bind_a_secret_and_the_server_logs_neither(
    server: Server, sealed: Database, kek: Kek, ws: UUID
) -> None:
    value = f"sk-{kek.reveal()[:20]}-psql"
    typed = f"""
        \\getenv value API_KEY
        select workspace.set_secret($1, 'MODEL', $2) \\bind {ws} :value \\g
        select 'changed ' || changed
        from workspace.set_secret($1, 'API_KEY', $2) \\bind {ws} :value \\g
    """
    done = subprocess.run(
        [server.bin("psql"), "-XAt", "-d", sealed.dsn],
        input=typed,
        capture_output=True,
        text=True,
        env=os.environ | {"PGOPTIONS": keyring.startup_options(kek), "API_KEY": value},
    )
    assert done.stdout == "changed true\n"
    assert "INVALID_ARGUMENT" in done.stderr
    with sealed.connect(options=keyring.startup_options(kek)) as conn:
        assert get_secret(conn, ws, "API_KEY") == value
    log = server.log_text()
    assert "workspace.set_secret($1, 'MODEL', $2)" in log
    assert value not in log
    assert kek.reveal() not in log


def test_keys_are_sent_as_parameters_whatever_the_cursors_of_a_connection(
    server: Server, sealed: Database, kek: Kek
) -> None:
    use_all(sealed, kek, "-c log_statement=all -c log_parameter_max_length=0")
    log = server.log_text()
    assert "set_config('runtime_registry.kek', $1, $2)" in log
    assert "set_config('runtime_registry.new_kek', $1, true)" in log
    assert kek.reveal() not in log
