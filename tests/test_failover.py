"""A replica that is promoted under load has what was acknowledged, and settles what was not.

RUNTIME_REGISTRY_FAILOVERS says how often (1 if unset), RUNTIME_REGISTRY_SEED what comes up.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack, closing
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import figures
import own_server
import pyapi
from databases import in_thread
from own_server import OwnServer, wait_until
from pyapi import Change
from pyapi.errors import ConnectionLost, ReadOnlyDatabase
from random_load import random_load, torn
from sessions import OPTIONS, SECONDS, on, settle
from support import MANIFEST, Conn, one

FAILOVERS = int(os.environ.get("RUNTIME_REGISTRY_FAILOVERS", "1"))
SEED = int(os.environ.get("RUNTIME_REGISTRY_SEED", "1"))
KIMI = "moonshot/kimi-k2.6"


@pytest.mark.timeout(120 + 30 * FAILOVERS)
def test_a_promoted_replica_has_all_that_was_acknowledged(own: OwnServer) -> None:
    dice, nodes = random.Random(SEED), [own]

    def connect(_: random.Random) -> Conn:
        """To the one of the last two nodes that can be written to, as libpq finds out."""
        hosts = [str(conninfo_to_dict(node.dsn)["host"]) for node in nodes[-2:]]
        dsn = make_conninfo(own.dsn, host=",".join(hosts), target_session_attrs="read-write")
        return psycopg.connect(dsn, options=OPTIONS)

    with ExitStack() as stack:
        homes = [own.home.with_name(f"replica-{number}") for number in range(FAILOVERS)]
        with closing(own.connect()) as conn, random_load(conn, connect, SEED) as load:
            for home in homes:
                primary = nodes[-1]
                nodes.append(stack.enter_context(own_server.replica(primary, home)))
                load.wait_for(dice.randrange(30, 100))
                primary.kill(with_all=dice.random() < 0.5)
                with closing(nodes[-1].connect()) as promoted:
                    assert one(promoted, "select pg_promote()")
                    assert torn(promoted) == []
                load.wait_for(20)
        with closing(nodes[-1].connect()) as conn:
            done = load.check(conn)
        for node in nodes[:-1]:
            node.start()  # which frees the shared memory that it had when it was killed
    assert done["unacknowledged"] > 0
    figures.record("failovers", failovers=FAILOVERS, **done)


WRITES: dict[str, Callable[[Conn, UUID], object]] = {
    "change_runtime": lambda conn, ws: pyapi.change_runtime(conn, ws, "google-adk"),
    "set_model": lambda conn, ws: pyapi.set_model(conn, ws, "opus"),
    "clear_model": lambda conn, ws: pyapi.clear_model(conn, ws),
    "create_workspace": lambda conn, ws: pyapi.create_workspace(conn, "w", "hermes"),
    "delete_workspace": lambda conn, ws: pyapi.delete_workspace(conn, ws),
    "load_registry": lambda conn, ws: pyapi.load_registry(conn, {**MANIFEST, "equivalents": []}),
}


def test_who_is_left_on_another_node_than_the_primary_is_told(own: OwnServer) -> None:
    home = own.home.with_name("replica")
    with ExitStack() as stack:
        with closing(own.connect()) as conn:
            ws = pyapi.create_workspace(conn, "w", "claude-code", model=KIMI).workspace_id
        replica = stack.enter_context(own_server.replica(own, home))

        # A replica reads, and writes nothing.
        with closing(replica.connect()) as conn:
            wait_until(lambda: one(conn, "select count(*) from workspace.workspaces") == 1)
            assert pyapi.get_workspace(conn, ws).model == KIMI
            assert pyapi.preview_runtime_change(conn, ws, "hermes").model == KIMI
            assert len(pyapi.history(conn, ws)) == 1
            assert pyapi.list_models(conn, "hermes")
            for call in WRITES.values():
                assert isinstance(settle(conn, on(ws, call)).error, ReadOnlyDatabase)

        # A primary that comes back acknowledges nothing: it waits for the replica it has lost.
        own.kill(with_all=True)
        with closing(replica.connect()) as conn:
            assert one(conn, "select pg_promote()")
        own.start()

        def switch(conn: Conn) -> Change:
            return pyapi.change_runtime(conn, ws, "google-adk", request_id="r-1")

        with closing(own.connect()) as left, closing(own.connect()) as observer:
            waiting = "select wait_event = 'SyncRep' from pg_stat_activity where pid = %s"
            unacknowledged = in_thread(settle, left, switch)
            wait_until(lambda: one(observer, waiting, left.info.backend_pid))
            assert not unacknowledged.done()
            observer.execute("select pg_terminate_backend(%s)", [left.info.backend_pid])
            error = unacknowledged.result(SECONDS).error
        assert isinstance(error, ConnectionLost)
        assert error.safe_to_retry
        with closing(replica.connect()) as conn:
            answer = settle(conn, switch).answer
            assert answer is not None
            assert answer.version == 2
            assert torn(conn) == []
