"""The async functions: the same answers and errors as the sync ones, on async connections."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

import pyapi
from databases import Database, wait_until_blocked
from pyapi import aio, schema
from pyapi.errors import (
    ConnectionLost,
    InvalidArgument,
    LockTimeout,
    ModelNotRegistered,
    WorkspaceNotFound,
)
from support import one

AsyncConn = psycopg.AsyncConnection[Any]
GEMINI = "platform:gemini-2.5-pro"


async def workspace(conn: AsyncConn, runtime: str = "claude-code") -> UUID:
    return (await aio.create_workspace(conn, "w", runtime, model="opus")).workspace_id


def test_the_async_module_has_a_twin_of_every_function() -> None:
    functions = {name for name in pyapi.__all__ if inspect.isfunction(getattr(pyapi, name))}
    assert set(aio.__all__) == functions


def test_every_async_function_answers_as_its_twin(database: Database) -> None:
    async def walk() -> None:
        conn = await database.aconnect(autocommit=True)
        plain = database.connect(autocommit=True)
        created = await aio.create_workspace(conn, "w", "claude-code", model="opus")
        ws = created.workspace_id
        assert await aio.get_workspace(conn, ws) == pyapi.get_workspace(plain, ws)
        preview = await aio.preview_runtime_change(conn, ws, "google-adk")
        assert preview == pyapi.preview_runtime_change(plain, ws, "google-adk")
        changed = await aio.change_runtime(conn, ws, "google-adk", request_id="r")
        assert changed == pyapi.change_runtime(plain, ws, "google-adk", request_id="r")
        assert (changed.model, changed.model_was_reset) == (GEMINI, True)
        assert (await aio.clear_model(conn, ws)).model is None
        assert (await aio.set_model(conn, ws, GEMINI)).version == 4
        assert (await aio.set_secret(conn, ws, "A", "1")).version == 5
        assert await aio.get_secret(conn, ws, "A") == pyapi.get_secret(plain, ws, "A") == "1"
        assert await aio.list_secrets(conn, ws) == pyapi.list_secrets(plain, ws)
        assert (await aio.delete_secret(conn, ws, "A")).version == 6
        await aio.delete_workspace(conn, ws, expected_version=6)
        assert await aio.history(conn, ws) == pyapi.history(plain, ws)

        assert await aio.list_runtimes(conn) == pyapi.list_runtimes(plain)
        assert await aio.list_models(conn, "hermes") == pyapi.list_models(plain, "hermes")
        assert await aio.menu(conn, "hermes") == pyapi.menu(plain, "hermes")
        assert await aio.default_model(conn, "hermes") == pyapi.default_model(plain, "hermes")
        assert await aio.resolve(conn, "google-adk", GEMINI, auth_env=["A"]) == "platform"
        manifest = schema.default_manifest()
        assert await aio.load_registry(conn, manifest) == pyapi.load_registry(plain, manifest)
        assert await aio.restore_registry(conn, 1) == pyapi.restore_registry(plain, 1)
        assert await aio.revisions(conn) == pyapi.revisions(plain)
        assert await aio.revision_manifest(conn) == manifest
        assert await aio.deprecations(conn) == pyapi.deprecations(plain)

    asyncio.run(walk())


def test_the_callers_cursors_and_transactions_are_left_alone(database: Database) -> None:
    async def use() -> None:
        conn = await database.aconnect(
            row_factory=dict_row, cursor_factory=psycopg.AsyncClientCursor
        )
        ws = await workspace(conn)
        await conn.rollback()
        with pytest.raises(WorkspaceNotFound):
            await aio.get_workspace(conn, ws)
        await conn.rollback()
        async with conn.transaction(force_rollback=True):
            ws = await workspace(conn)
            assert (await aio.change_runtime(conn, ws, "google-adk")).model == GEMINI

    asyncio.run(use())


def test_pipelines_work_with_async_connections(database: Database) -> None:
    async def use() -> None:
        conn = await database.aconnect(autocommit=True)
        async with conn.pipeline():
            ws = await workspace(conn)
            assert (await aio.change_runtime(conn, ws, "google-adk")).model == GEMINI

    asyncio.run(use())


def test_errors_are_the_same(database: Database) -> None:
    async def fail() -> None:
        conn = await database.aconnect(autocommit=True)
        ws = await workspace(conn)
        with pytest.raises(ModelNotRegistered) as model:
            await aio.set_model(conn, ws, "no such model")
        assert (model.value.runtime, model.value.model) == ("claude-code", "no such model")
        assert isinstance(model.value.__cause__, psycopg.Error)
        with pytest.raises(WorkspaceNotFound):
            await aio.get_workspace(conn, uuid4())
        for bad in ("\0", "\ud800"):
            with pytest.raises(InvalidArgument) as argument:
                await aio.set_model(conn, ws, bad)
            assert argument.value.argument == "model"
        with pytest.raises(InvalidArgument):
            await aio.load_registry(conn, {"a": {1}})

        holder = database.connect()
        pyapi.change_runtime(holder, ws, "google-adk")
        await conn.execute("set lock_timeout = '20ms'")
        with pytest.raises(LockTimeout) as timeout:
            await aio.change_runtime(conn, ws, "hermes")
        assert timeout.value.safe_to_retry is True

    asyncio.run(fail())


@pytest.mark.parametrize(("request_id", "safe"), [(None, False), ("r", True)])
def test_a_lost_call_may_be_repeated_unless_it_may_have_been_committed(
    database: Database, request_id: str | None, safe: bool
) -> None:
    async def lose() -> None:
        conn = await database.aconnect(autocommit=True)
        ws = await workspace(conn)
        observer, holder = database.connect(autocommit=True), database.connect()
        pyapi.change_runtime(holder, ws, "google-adk")
        call = asyncio.create_task(aio.change_runtime(conn, ws, "hermes", request_id=request_id))
        await asyncio.to_thread(wait_until_blocked, observer, conn.info.backend_pid)
        assert one(observer, "select pg_terminate_backend(%s)", conn.info.backend_pid)
        with pytest.raises(ConnectionLost) as caught:
            await call
        assert caught.value.safe_to_retry is safe

    asyncio.run(lose())


def test_a_cancelled_call_is_cancelled_on_the_server_too(database: Database) -> None:
    async def cancel() -> None:
        conn = await database.aconnect(autocommit=True)
        ws = await workspace(conn)
        observer, holder = database.connect(autocommit=True), database.connect()
        pyapi.change_runtime(holder, ws, "google-adk")
        call = asyncio.create_task(aio.change_runtime(conn, ws, "hermes"))
        await asyncio.to_thread(wait_until_blocked, observer, conn.info.backend_pid)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        holder.rollback()
        assert (await aio.get_workspace(conn, ws)).version == 1

    asyncio.run(cancel())


def test_calls_on_one_connection_at_once_take_turns(database: Database) -> None:
    async def gather() -> None:
        conn = await database.aconnect(autocommit=True)
        ws = await workspace(conn)
        runtimes = ["google-adk", "hermes", "claude-code"]
        await asyncio.gather(*(aio.change_runtime(conn, ws, runtime) for runtime in runtimes))
        assert len(await aio.history(conn, ws)) == 4

    asyncio.run(gather())
