"""Fixtures of all tests: a server, databases on it, connections to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

import databases
import own_server
import servers
from databases import Database
from own_server import OwnServer
from pyapi.embedded import EmbeddedError
from servers import Server

SERVER = pytest.StashKey[Server]()


def started_server(config: pytest.Config) -> Server:
    """The server of this run, started at the first call."""
    if SERVER not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        try:
            config.stash[SERVER] = stack.enter_context(servers.start())
        except (servers.ServerError, EmbeddedError, psycopg.OperationalError) as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[SERVER]


def pytest_configure() -> None:
    """A run that is terminated leaves no server."""
    servers.heed_signals()


def pytest_report_header(config: pytest.Config) -> str | None:
    """Name the server, which is started for that; collecting tests needs none."""
    return None if config.option.collectonly else started_server(config).header


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Server:
    """The Postgres server."""
    return started_server(pytestconfig)


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[Database]:
    """A database with everything installed and the packaged catalogue loaded, to be cloned.

    With RUNTIME_REGISTRY_TEST_SEALED=1 it has an active key, and all sessions the KEK that fits.
    """
    with databases.create(server) as database:
        databases.install(database)
        if databases.SEALED:
            databases.start_sealing(database)
        yield database


@pytest.fixture
def database(template: Database) -> Iterator[Database]:
    """A fresh clone of `template`."""
    with databases.create(template.server, template) as database:
        yield database


@pytest.fixture
def keyless(template: Database) -> Iterator[Database]:
    """A fresh clone of `template` that has no key, and whose sessions have no KEK, in any run."""
    with (
        databases.create(template.server, template) as database,
        databases.without_kek(template.server),
    ):
        with psycopg.connect(database.dsn) as conn:
            conn.execute("delete from keyring.keys")
            conn.execute("alter sequence keyring.key_ids restart")
        yield database


@pytest.fixture(scope="session")
def empty_database(server: Server) -> Iterator[Callable[[], Database]]:
    """Makes databases with nothing in them."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(databases.create(server))


@pytest.fixture(scope="session")
def shared_database(template: Database) -> Iterator[Database]:
    """One clone of `template` for all tests that leave no trace."""
    with databases.create(template.server, template) as database:
        yield database


@pytest.fixture
def conn(shared_database: Database) -> Iterator[psycopg.Connection]:
    """A connection in a transaction that is rolled back after the test."""
    with closing(psycopg.connect(shared_database.dsn)) as connection:
        yield connection


@pytest.fixture(scope="session")
def installed_home() -> Iterator[Path]:
    """The home of a stopped server with everything installed, to be copied."""
    with servers.reachable_directory() as directory:
        with own_server.running(directory / "home") as server:
            server.install()
        yield directory / "home"


@pytest.fixture
def own(installed_home: Path) -> Iterator[OwnServer]:
    """A server of the test's own, which it may kill."""
    with servers.reachable_directory() as directory:
        own_server.copy(installed_home, directory / "home")
        with own_server.running(directory / "home") as server:
            yield server
