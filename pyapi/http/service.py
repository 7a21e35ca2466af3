"""The service's side of the database: a pool, and one transaction a call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from ..calls import Call, refusal
from ..errors import ConnectionLost, DatabaseFailure, Deadlock, SerializationFailure
from .metrics import Metrics
from .settings import Settings

T = TypeVar("T")

TRIES = 3
# These pass by themselves, or over another connection. What ran into a timeout would again.
_PASSING = (ConnectionLost, Deadlock, SerializationFailure)
_PAUSE = 0.02

# What a call's transaction runs under, sent along with it. Nothing of it comes back.
_SETTINGS: LiteralString = """
select set_config('runtime_registry.actor', %(actor)s, true) is null,
    set_config('lock_timeout', %(lock_timeout)s, true) is null,
    set_config('statement_timeout', %(statement_timeout)s, true) is null
"""
# Only where there is one: the connection may have brought it.
_KEK: LiteralString = """,
    set_config('runtime_registry.kek', %(kek)s, true) is null
"""


class Service:
    """What all requests share. Nothing of it lasts between them but connections and counters."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            settings.database,
            min_size=min(2, settings.pool_size),
            max_size=settings.pool_size,
            timeout=settings.pool_timeout,
            # Every call brings its settings, and no statement stays prepared: any pooler will do.
            kwargs={
                "autocommit": True,
                "prepare_threshold": None,
                "fallback_application_name": "runtime-registry",
            },
            open=False,
        )
        self.metrics = Metrics(self.pool)

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Hold the pool open; a database that is not there yet may still come."""
        await self.pool.open()
        try:
            yield
        finally:
            await self.pool.close()

    async def run(self, call: Call[T], actor: str | None = None) -> T:
        """Make a call in a transaction of its own and return once that is committed.

        It is repeated, a few times, only where it cannot take effect twice. Without an actor
        nothing is set for it; such a call waits for nobody. Raises RegistryError.
        """
        for attempt in range(1, TRIES + 1):
            try:
                return await self._try(call, actor)
            except DatabaseFailure as failure:
                if (
                    attempt == TRIES
                    or not failure.safe_to_retry
                    or not isinstance(failure, _PASSING)
                    or isinstance(failure.__cause__, (PoolTimeout, PoolClosed))
                ):
                    raise
                if isinstance(failure, ConnectionLost):
                    await self.pool.check()  # The others are probably gone too.
            await asyncio.sleep(random.uniform(0, _PAUSE * 2**attempt))
        raise AssertionError("the last try returns or raises")

    async def _try(self, call: Call[T], actor: str | None) -> T:
        try:
            async with self.pool.connection() as conn:
                return await self._transact(conn, call, actor)
        except (PoolTimeout, PoolClosed) as error:
            raise ConnectionLost.make(harmless=True) from error

    async def _transact(self, conn: AsyncConnection[Any], call: Call[T], actor: str | None) -> T:
        # A pipeline over an autocommit connection is one transaction, committed by the Sync at its
        # end: settings, call and commit take one round trip. Rows are read only after that, so
        # nothing is answered that was not committed.
        cursor = AsyncCursor(conn, row_factory=tuple_row)
        settings = {
            "actor": actor,
            "lock_timeout": self.settings.lock_timeout,
            "statement_timeout": self.settings.statement_timeout,
            "kek": self.settings.kek,
        }
        bring = _SETTINGS + _KEK if self.settings.kek else _SETTINGS
        status = conn.pgconn.transaction_status
        try:
            if actor is None:
                await cursor.execute(call.statement.sql, call.params)
            else:
                async with conn.pipeline():
                    await conn.execute(bring, settings)
                    await cursor.execute(call.statement.sql, call.params)
            rows = await cursor.fetchall()
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise refusal(error, call, conn, status) from error
        return call.statement.result(rows)
