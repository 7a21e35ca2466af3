"""The functions of `pyapi.keyring` for `psycopg.AsyncConnection`.

Here a callable that fetches the KEK may be a coroutine function; one that is not holds up the event
loop while it fetches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import isawaitable
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, AsyncTransaction
from psycopg.pq import PipelineStatus, TransactionStatus

from .. import keyring
from ..calls import Call, asend, coroutine
from ..keyring import Kek, ResealProgress

Source = Kek | Callable[[], Kek | str | bytes | Awaitable[Kek | str | bytes]]
"""A KEK, or what fetches it each time that it is needed."""

init = coroutine(keyring.init_call, __name__)
rotate = coroutine(keyring.rotate_call, __name__)
rewrap = coroutine(keyring.rewrap_call, __name__)
reseal = coroutine(keyring.reseal_call, __name__)
retire = coroutine(keyring.retire_call, __name__)
status = coroutine(keyring.status_call, __name__)
opens = coroutine(keyring.opens_call, __name__)


async def _obtain(source: Source) -> Kek:
    if isinstance(source, Kek):
        return source
    return Kek(await _settled(source()))


async def _settled(fetched: Any) -> Any:
    return await fetched if isawaitable(fetched) else fetched


async def _bring(kek: Source, new_kek: Source | None, *, local: bool) -> Call[list[Any]]:
    new = None if new_kek is None else await _obtain(new_kek)
    return Call(keyring.BRING, {"kek": await _obtain(kek), "new_kek": new, "local": local})


def configure(
    kek: Source, *, new_kek: Source | None = None
) -> Callable[[AsyncConnection[Any]], Awaitable[None]]:
    """Make the `configure` of a psycopg_pool.AsyncConnectionPool; see `pyapi.keyring.configure`."""

    async def hook(conn: AsyncConnection[Any]) -> None:
        await asend(conn, await _bring(kek, new_kek, local=False))
        await conn.commit()

    return hook


async def _end_autocommit(conn: AsyncConnection[Any]) -> None:
    if not conn.closed:
        await conn.set_autocommit(False)


@asynccontextmanager
async def transaction(
    conn: AsyncConnection[Any], kek: Source, *, new_kek: Source | None = None
) -> AsyncIterator[AsyncTransaction]:
    """Begin a transaction that has the KEK; see `pyapi.keyring.transaction`."""
    call = await _bring(kek, new_kek, local=True)
    if conn.pgconn.pipeline_status != PipelineStatus.OFF:
        async with conn.transaction() as block:
            await asend(conn, call)
            yield block
        return
    block = AsyncTransaction(conn)
    async with AsyncExitStack() as stack:
        if not conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
            await conn.set_autocommit(True)
            stack.push_async_callback(_end_autocommit, conn)
        async with conn.pipeline():
            await stack.enter_async_context(block)
            await asend(conn, call)
        yield block


async def reseal_all(
    conn: AsyncConnection[Any],
    *,
    after: UUID | str | None = None,
    batch: int = 1000,
    kek: Source | None = None,
) -> AsyncIterator[ResealProgress]:
    """Run `reseal` until nothing is left to do; see `pyapi.keyring.reseal_all`."""
    pauses = keyring.Pauses()
    while pauses.more:
        keyring.require_idle(conn)
        async with conn.transaction() if kek is None else transaction(conn, kek):
            progress = await reseal(conn, after=after, batch=batch)
        yield progress
        after = progress.next_after
        await asyncio.sleep(pauses.after(progress))
