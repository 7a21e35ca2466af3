"""The Python functions through PgBouncer in transaction mode: every transaction of a client may get
another server connection, and a server connection serves one client after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

import servers
from databases import Database
from every_function import use_every_function
from pyapi import change_runtime, create_workspace, get_workspace, history, keyring, list_runtimes
from pyapi.errors import EncryptionKeyMissing, ModelNotRegistered, PreparedStatementLost
from support import Conn, one

OPUS = "opus"
LOCAL = "select set_config(%s, %s, true)"

Connect = Callable[..., Conn]
Pooler = Callable[..., Connect]


@contextmanager
def pooler_for(database: Database, **settings: int) -> Iterator[Connect]:
    """PgBouncer in front of a database, in a container beside the server's; opens connections."""
    with database.connect() as conn:
        host = one(conn, "select host(inet_server_addr())")  # as its neighbours know it
        port = one(conn, "select inet_server_port()")
    target = make_conninfo(database.dsn, host=host, port=port)
    ini = "\n".join(
        [
            f"[databases]\n{database.name} = {target}\n[pgbouncer]",
            "listen_addr = *",
            "auth_type = any",
            "pool_mode = transaction",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
    )
    start = ["-c", 'echo "$1" >/tmp/ini; exec pgbouncer /tmp/ini', "sh", ini]
    with (
        DockerContainer(servers.image())
        .with_kwargs(entrypoint="/bin/sh", user="postgres")
        .with_command(start)
        .with_exposed_ports(6432)
        .waiting_for(LogMessageWaitStrategy("process up")) as pgbouncer,
        ExitStack() as stack,
    ):

        def connect(**options: Any) -> Conn:
            conn = psycopg.connect(
                host=pgbouncer.get_container_host_ip(),
                port=pgbouncer.get_exposed_port(6432),
                dbname=database.name,
                user="anybody",
                **options,
            )
            stack.callback(conn.close)
            return conn

        yield connect


@pytest.fixture
def pooler(database: Database) -> Iterator[Pooler]:
    """Starts PgBouncer; with one server connection unless told otherwise."""
    with ExitStack() as stack:

        def start(**settings: int) -> Connect:
            settings = {"default_pool_size": 1, **settings}
            return stack.enter_context(pooler_for(database, **settings))

        yield start


@pytest.mark.parametrize(
    ("max_prepared_statements", "prepare_threshold"),
    [(0, None), (200, None), (200, 5), (200, 0)],
)
def test_clients_that_share_a_server_connection_can_use_every_function(
    pooler: Pooler, max_prepared_statements: int, prepare_threshold: int | None
) -> None:
    connect = pooler(max_prepared_statements=max_prepared_statements)
    clients = [connect(autocommit=True, prepare_threshold=prepare_threshold) for _ in range(2)]
    assert len({one(conn, "select pg_backend_pid()") for conn in clients}) == 1
    for conn in clients:
        conn.prepared_max = 5  # so that statements are also closed
    for conn in clients * 4:
        use_every_function(conn)


def test_prepared_statements_need_a_pooler_that_knows_of_them(pooler: Pooler) -> None:
    connect = pooler(max_prepared_statements=0)
    first, second = (connect(autocommit=True, prepare_threshold=0) for _ in range(2))
    list_runtimes(first)
    with pytest.raises(PreparedStatementLost, match="prepare_threshold=None"):
        list_runtimes(second)


def let_go(conn: Conn) -> None:
    """Give the server connection back, after a pipeline.

    psycopg ends one with a Flush. Where that comes when all else is answered, PgBouncer takes a
    server connection for it, which the client has until its next statement is answered.
    """
    conn.execute("select")


def workspace(conn: Conn) -> UUID:
    return create_workspace(conn, "w", "claude-code", model=OPUS).workspace_id


@pytest.mark.parametrize("ending", ["commit", "rollback", "refusal"])
def test_no_setting_of_a_transaction_gets_to_the_next_client(pooler: Pooler, ending: str) -> None:
    connect = pooler(max_prepared_statements=200)
    first, second = (connect(autocommit=True) for _ in range(2))
    ws = workspace(first)
    settings = {"runtime_registry.kek": "a key", "runtime_registry.actor": "first"}
    try:
        with first.pipeline(), first.transaction(force_rollback=ending == "rollback"):
            for name, value in settings.items():
                first.execute(LOCAL, [name, value])
            server = one(first, "select pg_backend_pid()")
            model = "no such model" if ending == "refusal" else None
            change_runtime(first, ws, "google-adk", model=model)
            assert one(first, "select current_setting('runtime_registry.kek')") == "a key"
    except ModelNotRegistered:
        assert ending == "refusal"
    let_go(first)
    with second.transaction():
        assert one(second, "select pg_backend_pid()") == server
        for name in settings:
            assert not one(second, "select current_setting(%s, true)", name)
        change_runtime(second, ws, "hermes")
    said = [entry.actor for entry in history(second, ws)]
    assert said == ["postgres", *["first"] * (ending == "commit"), "postgres"]


def test_the_key_of_a_transaction_opens_nothing_for_the_next_client(pooler: Pooler) -> None:
    connect = pooler(max_prepared_statements=200)
    first, second = (connect(autocommit=True) for _ in range(2))
    kek = keyring.Kek.generate()
    with keyring.transaction(first, kek):
        keyring.init(first)
        ws = workspace(first)
    for with_key, without in [(first, second), (second, first)]:
        with keyring.transaction(with_key, kek):
            assert get_workspace(with_key, ws).model == OPUS
        with pytest.raises(EncryptionKeyMissing):
            get_workspace(without, ws)
        with pytest.raises(EncryptionKeyMissing):
            change_runtime(without, ws, "hermes")


def test_a_setting_of_a_session_does_get_to_the_next_client(pooler: Pooler) -> None:
    """Why settings have to be a transaction's; and proof that the test above would see a leak."""
    connect = pooler(max_prepared_statements=200)
    first, second = (connect(autocommit=True) for _ in range(2))
    first.execute("select set_config('runtime_registry.kek', 'a key', false)")
    assert one(second, "select current_setting('runtime_registry.kek')") == "a key"


def test_many_clients_at_once_keep_their_settings_apart(pooler: Pooler) -> None:
    connect = pooler(default_pool_size=2, max_prepared_statements=200)
    names = [f"client {number}" for number in range(6)]

    def switch_often(name: str, conn: Conn) -> UUID:
        ws = workspace(conn)
        for runtime in ["google-adk", "claude-code"] * 20:
            with conn.pipeline(), conn.transaction():
                conn.execute(LOCAL, ["runtime_registry.actor", name])
                change_runtime(conn, ws, runtime)
        let_go(conn)
        return ws

    clients = [connect(autocommit=True) for _ in names]
    with ThreadPoolExecutor(len(names)) as threads:
        workspaces = list(threads.map(switch_often, names, clients))
    for name, ws in zip(names, workspaces, strict=True):
        assert get_workspace(clients[0], ws).version == 41
        assert {entry.actor for entry in history(clients[0], ws)[1:]} == {name}
