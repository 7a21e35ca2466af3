"""How a stored function is called: one execute, on the caller's connection, in the caller's
transaction.

A *builder* is a plain function named `<function>_call` that turns arguments into a `Call`. `sync`
makes the function for `psycopg.Connection` of it, `coroutine` its twin for
`psycopg.AsyncConnection`; they differ in the await only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, Concatenate, Generic, LiteralString, ParamSpec, TypeVar, get_args

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor, Error
from psycopg.adapt import Dumper
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from .errors import RegistryError, translate

T = TypeVar("T")
P = ParamSpec("P")

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Statement(Generic[T]):
    """What is the same in every call of one stored function; built once, at import."""

    sql: LiteralString
    """The statement, with named placeholders."""
    result: Callable[[list[Row]], T]
    """Makes the function's answer of the rows."""
    reads_only: bool = False
    """It writes nothing, so repeating it never does harm."""
    dumpers: tuple[tuple[type[Any], type[Dumper]], ...] = ()
    """How it sends parameters of types that psycopg does not know."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call: a statement and its parameters."""

    statement: Statement[T]
    params: dict[str, Any]


def columns(row_type: type[Any]) -> LiteralString:
    """The select list for a dataclass: its fields, in order."""
    return ", ".join(field.name for field in fields(row_type))


def one(row_type: Callable[..., T]) -> Callable[[list[Row]], T]:
    """Result: the only row, as a `row_type`."""
    return lambda rows: row_type(*rows[0])


def each(row_type: Callable[..., T]) -> Callable[[list[Row]], list[T]]:
    """Result: a list with a `row_type` for every row."""
    return lambda rows: [row_type(*row) for row in rows]


def scalar(rows: list[Row]) -> Any:
    """Result: the only value."""
    return rows[0][0]


def scalars(rows: list[Row]) -> list[Any]:
    """Result: a list of the only column's values."""
    return [value for (value,) in rows]


def send(conn: Connection[Any], call: Call[Any]) -> Cursor[Row]:
    """Execute a call and leave its result in the cursor; in a pipeline, only queue it."""
    # Not conn.cursor(): its class and its row factory are the caller's business.
    cursor = Cursor(conn, row_factory=tuple_row)
    for of_type, dumper in call.statement.dumpers:
        cursor.adapters.register_dumper(of_type, dumper)
    return cursor.execute(call.statement.sql, call.params)


async def asend(conn: AsyncConnection[Any], call: Call[Any]) -> AsyncCursor[Row]:
    """`send` for an async connection."""
    cursor = AsyncCursor(conn, row_factory=tuple_row)
    for of_type, dumper in call.statement.dumpers:
        cursor.adapters.register_dumper(of_type, dumper)
    return await cursor.execute(call.statement.sql, call.params)


def sync(builder: Callable[P, Call[T]]) -> Callable[Concatenate[Connection[Any], P], T]:
    """Make the function that calls through a `psycopg.Connection`."""

    @wraps(builder)
    def function(conn: Connection[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = builder(*args, **kwargs)
        status = conn.pgconn.transaction_status
        try:
            rows = send(conn, call).fetchall()
        except (Error, UnicodeEncodeError) as error:
            raise refusal(error, call, conn, status) from error
        return call.statement.result(rows)

    _present(function, builder, Connection[Any], builder.__module__)
    return function


def coroutine(
    builder: Callable[P, Call[T]], module: str = "pyapi.aio"
) -> Callable[Concatenate[AsyncConnection[Any], P], Coroutine[Any, Any, T]]:
    """Make the coroutine function that calls through a `psycopg.AsyncConnection`."""

    @wraps(builder)
    async def function(conn: AsyncConnection[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = builder(*args, **kwargs)
        status = conn.pgconn.transaction_status
        try:
            rows = await (await asend(conn, call)).fetchall()
        except (Error, UnicodeEncodeError) as error:
            raise refusal(error, call, conn, status) from error
        return call.statement.result(rows)

    _present(function, builder, AsyncConnection[Any], module)
    return function


def refusal(
    error: Error | UnicodeEncodeError,
    call: Call[Any],
    conn: Connection[Any] | AsyncConnection[Any],
    status: int,
) -> RegistryError:
    """Translate what a call raised; `status` is the connection's before the call."""
    # A lost connection leaves the outcome unknown only where the call was its own transaction: in a
    # block the COMMIT was still to come. (In a pipeline the status of an autocommit connection lags
    # behind.)
    in_block = not conn.autocommit or (
        status != TransactionStatus.IDLE and not conn.pgconn.pipeline_status
    )
    harmless = in_block or call.statement.reads_only or bool(call.params.get("request_id"))
    return translate(error, params=call.params, lost=conn.closed, harmless=harmless)


def _present(function: Any, builder: Callable[..., Any], connection: object, module: str) -> None:
    """Make signature, annotations and name of a function those that its callers see."""
    signature = inspect.signature(builder, eval_str=True)
    conn = inspect.Parameter("conn", inspect.Parameter.POSITIONAL_ONLY, annotation=connection)
    answer = get_args(signature.return_annotation)[0]
    signature = signature.replace(
        parameters=[conn, *signature.parameters.values()], return_annotation=answer
    )
    function.__signature__ = signature
    function.__annotations__ = {
        "return": answer,
        **{name: parameter.annotation for name, parameter in signature.parameters.items()},
    }
    function.__name__ = function.__qualname__ = builder.__name__.removesuffix("_call")
    function.__module__ = module
