"""Calls that time out, are cancelled or lose their session at any moment, again and again.

What a call does that is interrupted while it waits is in test_atomicity.py.
RUNTIME_REGISTRY_INTERRUPTIONS says how many (100 if unset), RUNTIME_REGISTRY_SEED when.
"""

from __future__ import annotations

import os
import random

import pytest

import figures
import pyapi
from databases import Database
from own_server import wait_until
from pyapi.errors import ConnectionLost
from random_load import random_load, torn
from sessions import commit, settle
from support import Conn, nothing_written, one

INTERRUPTIONS = int(os.environ.get("RUNTIME_REGISTRY_INTERRUPTIONS", "100"))
SEED = int(os.environ.get("RUNTIME_REGISTRY_SEED", "1"))
TIMEOUTS = {"STATEMENT_TIMEOUT", "LOCK_TIMEOUT"}


@pytest.mark.timeout(120 + INTERRUPTIONS)
def test_interrupted_calls_are_done_or_not(database: Database) -> None:
    def hurry(conn: Conn, dice: random.Random) -> None:
        limit = "select set_config(%s, %s, false)"
        conn.execute(limit, ["lock_timeout", f"{dice.randrange(1, 5)}ms"])
        conn.execute(limit, ["statement_timeout", dice.choice(["5ms", "10ms", "30s"])])

    dice = random.Random(SEED)
    with database.connect(autocommit=True) as conn:
        with random_load(conn, lambda _: database.connect(), SEED, TIMEOUTS, hurry) as load:
            for _ in range(INTERRUPTIONS):
                load.wait_for(dice.randrange(1, 8))
                end = dice.choice(["pg_cancel_backend", "pg_terminate_backend"])
                conn.execute(
                    f"select {end}(pid) from (select pid from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                    " order by random() limit 1) as a"
                )
            load.wait_for(20)
        assert torn(conn) == []
        done = load.check(conn)
    told = {code: load.counts[code] for code in (*sorted(TIMEOUTS), "CONNECTION_LOST")}
    assert all(told.values()), told
    figures.record("interruptions", interruptions=INTERRUPTIONS, **told, **done)


@pytest.mark.parametrize("timeout", ["idle_in_transaction_session_timeout", "idle_session_timeout"])
def test_a_session_that_was_idle_for_too_long_did_nothing(database: Database, timeout: str) -> None:
    with database.connect(autocommit=True) as observer, database.connect() as conn:
        ws = pyapi.create_workspace(observer, "w", "claude-code").workspace_id
        pid = conn.info.backend_pid
        with nothing_written(observer):
            conn.autocommit = timeout == "idle_session_timeout"
            conn.execute(f"set {timeout} = '20ms'")
            if not conn.autocommit:
                pyapi.change_runtime(conn, ws, "hermes")
            alive = "select count(*) from pg_stat_activity where pid = %s"
            wait_until(lambda: one(observer, alive, pid) == 0)
            with pytest.raises(ConnectionLost):
                commit(conn, lambda conn: pyapi.change_runtime(conn, ws, "hermes"))
        answer = settle(observer, lambda conn: pyapi.change_runtime(conn, ws, "hermes")).answer
        assert answer is not None
        assert answer.version == 2
