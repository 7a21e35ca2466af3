"""A hundred HTTP clients for a minute, beside the same calls over psycopg alone.

    PYTHONPATH=tests python -m benchmarks.http_load [SECONDS]

Every client switches a workspace of its own back and forth, as fast as it is answered. What counts
is the ratio of the two rates in one run, and that nothing failed, leaked or stayed open.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from time import monotonic

import psycopg
from psycopg_pool import AsyncConnectionPool

from pyapi import aio, create_workspace, embedded, load_registry, schema
from services import running, token_for

CLIENTS = 100
POOL = 10
RUNTIMES = ("google-adk", "claude-code")

Step = Callable[[str], Awaitable[object]]
OURS = "select {} from pg_stat_activity where application_name = 'runtime-registry'"


async def rate(seconds: float, steps: list[Step]) -> tuple[float, Counter[object]]:
    """Let every client step until the time is up; calls a second, and what they got."""
    told: Counter[object] = Counter()
    end = monotonic() + seconds

    async def client(step: Step) -> None:
        for turn in count():
            if monotonic() > end:
                return
            told[await step(RUNTIMES[turn % 2])] += 1

    await asyncio.gather(*map(client, steps))
    return told.total() / seconds, told


async def over_http(port: int, token: str, ws: str) -> Step:
    """A client with one connection that it keeps."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def step(runtime: str) -> object:
        body = f'{{"runtime":"{runtime}"}}'
        writer.write(
            f"PATCH /workspaces/{ws} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        return int(head.split()[1])

    return step


async def measure(dsn: str, port: int, token: str, made: list[str], seconds: float) -> None:
    """Measure both, and look at what is left."""
    clients = [await over_http(port, token, ws) for ws in made]
    requests, told = await rate(seconds, clients)
    with psycopg.connect(dsn, autocommit=True) as conn:
        (connections,) = conn.execute(OURS.format("count(*)")).fetchone() or (None,)
        (busy,) = conn.execute(
            OURS.format("count(*) filter (where state <> 'idle')")
        ).fetchone() or (None,)

    options = {"autocommit": True, "prepare_threshold": None}
    async with AsyncConnectionPool(dsn, min_size=POOL, max_size=POOL, kwargs=options) as pool:

        def bare(ws: str) -> Step:
            async def step(runtime: str) -> object:
                async with pool.connection() as conn:
                    await aio.change_runtime(conn, ws, runtime)
                return "done"

            return step

        calls, _ = await rate(seconds, [bare(ws) for ws in made])
    print(f"HTTP     {requests:8.0f} requests a second, statuses {dict(told)}")
    print(f"psycopg  {calls:8.0f} calls a second, same pool size, {CLIENTS} tasks")
    print(f"ratio    {requests / calls:8.2f}")
    print(f"left     {connections} connections of at most {POOL}, {busy} not idle")
    assert set(told) == {200}
    assert connections <= POOL
    assert busy == 0


def main() -> None:
    """Run it on a server of its own."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        Path(home).chmod(0o711)
        with embedded.server(Path(home)) as server:
            schema.migrate(server.dsn)
            with psycopg.connect(server.dsn, autocommit=True) as conn:
                load_registry(conn, schema.default_manifest())
                token = token_for(conn, "load", "operator")
                made = [
                    str(create_workspace(conn, "w", "claude-code", model="opus").workspace_id)
                    for _ in range(CLIENTS)
                ]
            with running(server.dsn, pool_size=str(POOL)) as service:
                asyncio.run(measure(server.dsn, service.port, token, made, seconds))


if __name__ == "__main__":
    main()
