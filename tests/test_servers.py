"""The tests' own tools: the choice of server, clones, and two sessions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import databases
import servers
from databases import Database, in_thread, wait_until_blocked
from pyapi import embedded
from servers import Server, ServerError


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the variables that choose a server; those not given are unset."""

    def choose(**variables: str) -> None:
        for name in ("SERVER", "DSN", "IMAGE", "POSTGRES"):
            monkeypatch.delenv(f"RUNTIME_REGISTRY_TEST_{name}", raising=False)
        for name, text in variables.items():
            monkeypatch.setenv(f"RUNTIME_REGISTRY_TEST_{name}", text)

    return choose


def refusal() -> str:
    with pytest.raises(ServerError) as raised, servers.start():
        pass
    return str(raised.value)


def test_a_dsn_comes_first(choice: Callable[..., None], server: Server) -> None:
    choice(DSN=server.dsn)
    with servers.start() as chosen:
        assert chosen.header.startswith("server: dsn, Postgres ")
        assert chosen.version == server.version


def test_the_log_of_a_server_named_by_dsn_is_read_if_it_is_in_a_file(
    choice: Callable[..., None],
) -> None:
    with servers.reachable_directory() as home:
        with embedded.server(home) as server:
            choice(DSN=server.dsn)
            with servers.start() as chosen:
                with pytest.raises(ServerError, match="logging_collector"):
                    chosen.log_text()
                with chosen.connect(autocommit=True) as conn:
                    conn.execute("ALTER SYSTEM SET logging_collector = on")
        with embedded.server(home) as server:
            choice(DSN=server.dsn)
            with servers.start() as chosen:
                assert "database system is ready" in chosen.log_text()


def test_without_dsn_and_docker_it_is_the_embedded_server(
    choice: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    with servers.start() as chosen:
        assert chosen.header.startswith("server: embedded, Postgres 17.")
        assert "not dsn: RUNTIME_REGISTRY_TEST_DSN is not set" in chosen.header
        assert "not container: no Docker daemon answers" in chosen.header


def test_what_a_forced_server_lacks_is_an_error(
    choice: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    choice(SERVER="container")
    assert "container, but no Docker daemon answers" in refusal()
    choice(SERVER="dsn")
    assert "dsn, but RUNTIME_REGISTRY_TEST_DSN is not set" in refusal()
    choice(SERVER="container", POSTGRES="15")
    assert "container, but RUNTIME_REGISTRY_TEST_POSTGRES is about the embedded server" in refusal()
    choice(POSTGRES="seventeen")
    assert "'seventeen', and not a major version" in refusal()
    choice(SERVER="sqlite")
    assert "'sqlite', and not one of dsn, container, embedded" in refusal()


def test_a_user_without_all_rights_is_refused(choice: Callable[..., None], server: Server) -> None:
    with server.connect(autocommit=True) as conn:
        conn.execute("CREATE ROLE test_nobody LOGIN PASSWORD 'x'")
        try:
            choice(DSN=make_conninfo(server.dsn, user="test_nobody", password="x"))
            assert "superuser" in refusal()
        finally:
            conn.execute("DROP ROLE test_nobody")


def test_the_log_holds_what_was_just_refused(server: Server) -> None:
    with server.connect(autocommit=True) as conn, pytest.raises(psycopg.errors.UndefinedTable):
        conn.execute("SELECT * FROM no_such_table_in_the_log")
    assert "no_such_table_in_the_log" in server.log_text()


def test_a_clone_is_installed_loaded_and_apart(database: Database) -> None:
    assert int(database.psql("-At", "-c", "SELECT count(*) FROM registry.runtimes")) > 0
    with databases.create(database.server, database) as clone:
        with clone.connect() as conn:
            conn.execute("CREATE TABLE only_here ()")
        assert clone.psql("-At", "-c", "SELECT to_regclass('only_here')") == "only_here\n"
    assert database.psql("-At", "-c", "SELECT to_regclass('only_here')") == "\n"


def test_psql_errors_are_raised(database: Database) -> None:
    with pytest.raises(AssertionError, match="division by zero"):
        database.psql("-c", "SELECT 1/0")


@pytest.mark.parametrize("run", [1, 2])
def test_the_shared_connection_leaves_no_trace(conn: psycopg.Connection, run: int) -> None:
    assert conn.execute("SELECT to_regclass('trace')").fetchone() == (None,)
    conn.execute("CREATE TABLE trace ()")


def test_an_empty_database_has_no_schema_of_ours(empty_database: Callable[[], Database]) -> None:
    assert empty_database().psql("-At", "-c", "SELECT to_regnamespace('registry')") == "\n"


def test_a_role_stays_after_rollback(database: Database) -> None:
    conn = database.connect_as("runtime_registry_reader")
    conn.rollback()
    row = conn.execute("SELECT session_user, current_user").fetchone()
    assert row == ("runtime_registry_reader", "runtime_registry_reader")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT * FROM registry.runtimes")


def test_a_second_session_waits_for_the_first(database: Database) -> None:
    first, second = database.connect(), database.connect()
    first.execute("LOCK TABLE registry.runtimes IN ACCESS EXCLUSIVE MODE")
    waiting = in_thread(second.execute, "SELECT count(*) FROM registry.runtimes")
    assert wait_until_blocked(first, second.info.backend_pid) == [first.info.backend_pid]
    assert not waiting.done()
    first.rollback()
    assert waiting.result(10).fetchone() is not None
    with pytest.raises(AssertionError, match="waits for no lock"):
        wait_until_blocked(first, second.info.backend_pid, seconds=0.05)


def test_an_async_connection_is_closed_with_its_database(database: Database) -> None:
    async def open_and_ask() -> psycopg.AsyncConnection:
        conn = await database.aconnect()
        await conn.execute("SELECT 1")
        return conn

    conn = asyncio.run(open_and_ask())
    assert not conn.closed
    database.close()
    assert conn.closed
