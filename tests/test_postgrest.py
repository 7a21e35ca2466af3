"""As PostgREST calls the functions: one login that becomes the request's role for a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from databases import Database
from support import Conn, Json, call, one

LOGIN, OPERATOR, ANONYMOUS = "test_authenticator", "test_web_operator", "test_web_anonymous"


@pytest.fixture
def authenticator(database: Database) -> Iterator[Conn]:
    """A connection of the login, which has no rights but to become one of the two others."""
    with database.connect(autocommit=True) as owner:
        try:
            owner.execute(f"create role {LOGIN} login noinherit password 'x'")
            owner.execute(f"create role {OPERATOR} in role runtime_registry_operator")
            owner.execute(f"create role {ANONYMOUS}")
            owner.execute(f"grant {OPERATOR}, {ANONYMOUS} to {LOGIN}")
            dsn = make_conninfo(database.dsn, user=LOGIN, password="x")
            with psycopg.connect(dsn, autocommit=True) as conn:
                yield conn
        finally:
            for role in (LOGIN, OPERATOR, ANONYMOUS):
                owner.execute(f"drop role if exists {role}")


@contextmanager
def request(conn: Conn, role: str) -> Iterator[None]:
    """The transaction of a request."""
    claims = json.dumps({"role": role, "sub": "somebody"})
    settings = {"role": role, "request.jwt.claims": claims, "request.method": "POST"}
    with conn.transaction():
        for name, value in settings.items():
            conn.execute("select set_config(%s, %s, true)", [name, value])
        yield


def post(conn: Conn, role: str, function: str, **body: Any) -> Json:
    """The body of the answer to POST /rpc/<function>."""
    query = sql.SQL("select row_to_json(answer) from {}({}) as answer").format(
        sql.Identifier("workspace", function),
        sql.SQL(", ").join(
            sql.SQL("{} => (%s::jsonb ->> {})::{}").format(
                sql.Identifier(name), name, sql.SQL("uuid" if name in ("ws", "id") else "text")
            )
            for name in body
        ),
    )
    with request(conn, role):
        row = conn.execute(query, [json.dumps(body)] * len(body)).fetchone()
    assert row is not None
    answer: Json = row[0]
    return answer


def test_a_request_switches_a_runtime_with_the_rights_of_its_role(
    authenticator: Conn, database: Database
) -> None:
    ws = str(uuid4())
    created = post(
        authenticator, OPERATOR, "create_workspace", name="w", runtime="claude-code", id=ws
    )
    assert (created["workspace_id"], created["version"]) == (ws, 1)
    with request(authenticator, OPERATOR):
        set_model = call(authenticator, "workspace.set_model", ws, "opus")
    assert set_model.model == "opus"
    changed = post(authenticator, OPERATOR, "change_runtime", ws=ws, runtime="google-adk")
    assert changed["model_was_reset"] is True
    assert changed["model_source"] == "default"
    assert changed["needs_restart"] is True
    with database.connect() as owner:
        actors = owner.execute("select distinct actor from workspace.history(%s)", [ws]).fetchall()
    assert actors == [(LOGIN,)]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"runtime": "no such runtime"}, 422, "RUNTIME_UNSUPPORTED"),
        ({"runtime": "hermes", "model": "no such model"}, 422, "MODEL_NOT_REGISTERED"),
        ({"runtime": "hermes", "ws": str(uuid4())}, 404, "WORKSPACE_NOT_FOUND"),
        ({"runtime": " "}, 400, "INVALID_ARGUMENT"),
    ],
)
def test_a_refusal_says_its_http_status_and_what_a_client_needs(
    authenticator: Conn, body: Json, status: int, code: str
) -> None:
    ws = str(uuid4())
    post(authenticator, OPERATOR, "create_workspace", name="w", runtime="claude-code", id=ws)
    with pytest.raises(psycopg.DatabaseError) as caught:
        post(authenticator, OPERATOR, "change_runtime", **{"ws": ws, **body})
    assert caught.value.sqlstate == f"PT{status}"
    diag = caught.value.diag
    assert json.loads(diag.message_detail or "")["code"] == code
    assert diag.message_primary
    assert diag.message_hint
    with request(authenticator, OPERATOR):
        assert call(authenticator, "workspace.get_workspace", ws).version == 1


@pytest.mark.parametrize("role", [ANONYMOUS, LOGIN])
def test_other_roles_may_call_nothing(authenticator: Conn, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        post(authenticator, role, "change_runtime", ws=str(uuid4()), runtime="hermes")


def test_the_operator_reads_no_table_and_does_not_load_a_registry(authenticator: Conn) -> None:
    for query in (
        "select from workspace.secrets",
        "select from registry.runtimes",
        "select from fleet.load_registry('{}')",
    ):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            request(authenticator, OPERATOR),
        ):
            authenticator.execute(query)


@pytest.mark.parametrize("runtime", ["google-adk", "no such runtime"])
def test_role_and_settings_end_with_the_request(authenticator: Conn, runtime: str) -> None:
    ws = str(uuid4())
    post(authenticator, OPERATOR, "create_workspace", name="w", runtime="claude-code", id=ws)
    with suppress(psycopg.DatabaseError):
        post(authenticator, OPERATOR, "change_runtime", ws=ws, runtime=runtime)
    assert one(authenticator, "select current_user") == LOGIN
    assert not one(authenticator, "select current_setting('request.jwt.claims', true)")
