"""The service's side of the database: a pool, and one transaction a call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from ..calls import Call, Statement, asend, refusal
from ..errors import ConnectionLost, DatabaseFailure, Deadlock, SerializationFailure
from ..keyring import BRING
from .metrics import Metrics
from .settings import Settings

T = TypeVar("T")

TRIES = 3
# These pass by themselves, or over another connection. What ran into a timeout would again.
_PASSING = (ConnectionLost, Deadlock, SerializationFailure)
_PAUSE = 0.02

# What a call's transaction runs under, sent along with it.
_SETTINGS: Statement[None] = Statement(
    """
    select set_config('runtime_registry.actor', %(actor)s, true),
        set_config('lock_timeout', %(lock_timeout)s, true),
        set_config('statement_timeout', %(statement_timeout)s, true)
    """,
    lambda _: None,
)


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
        status = conn.pgconn.transaction_status
        try:
            if actor is None:
                cursor = await asend(conn, call)
            else:
                async with conn.pipeline():
                    for setting in self._settings_of(actor):
                        await asend(conn, setting)
                    cursor = await asend(conn, call)
            rows = await cursor.fetchall()
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise refusal(error, call, conn, status) from error
        return call.statement.result(rows)

    def _settings_of(self, actor: str) -> Iterator[Call[Any]]:
        own = self.settings
        timeouts = {
            "lock_timeout": own.lock_timeout,
            "statement_timeout": own.statement_timeout,
        }
        yield Call(_SETTINGS, {"actor": actor, **timeouts})
        if own.kek:  # else the connection may have brought one
            yield Call(BRING, {"kek": own.kek, "new_kek": own.new_kek, "local": True})
