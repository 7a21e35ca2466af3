"""The HTTP service as it really runs: what it answers, checks in turn, and survives."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import jsonschema
import psycopg
import pytest
from fastapi import FastAPI

import databases
import pyapi.http
from databases import Database, in_thread
from pyapi import (
    create_workspace,
    get_workspace,
    history,
    revoke_token,
    set_model,
)
from pyapi.access import new_token
from pyapi.http import Settings, app_factory
from pyapi.http.operations import OPERATIONS, Operation
from services import SECONDS, Answer, Service, running, token_for
from support import one

KIMI = "moonshot/kimi-k2.6"
GEMINI = "platform:gemini-2.5-pro"
Conn = psycopg.Connection[Any]


@dataclass(slots=True)
class World:
    """A running service, its database, and a token of each kind."""

    service: Service
    dsn: str
    conn: Conn
    tokens: dict[str, str]
    own: UUID
    """The workspace of the token with the role workspace."""

    def ask(self, method: str, path: str, **given: Any) -> Answer:
        """Ask as operator unless told otherwise."""
        given.setdefault("token", self.tokens["operator"])
        return self.service.ask(method, path, **given)

    def made(self, runtime: str = "claude-code", model: str | None = KIMI) -> UUID:
        """A new workspace."""
        return create_workspace(self.conn, "w", runtime, model=model).workspace_id


def world_on(database: Database, service: Service) -> World:
    conn = database.connect(autocommit=True)
    own = create_workspace(conn, "own", "claude-code", model=KIMI).workspace_id
    tokens = {
        "admin": token_for(conn, "root", "admin"),
        "operator": token_for(conn, "deploy", "operator"),
        "workspace": token_for(conn, "assistant", "workspace", own),
        "revoked": token_for(conn, "former", "admin"),
        "expired": token_for(conn, "late", "admin"),
    }
    revoke_token(conn, "former")
    conn.execute("update access.tokens set expires_at = now() where name = 'late'")
    return World(service, database.dsn, conn, tokens, own)


@pytest.fixture(scope="module")
def world(template: Database) -> Iterator[World]:
    with databases.create(template.server, template) as database, running(database.dsn) as service:
        yield world_on(database, service)


def body_for(operation: Operation) -> Any:
    return dict(operation.body.example) if operation.body else None


def path_for(operation: Operation, ws: object) -> str:
    return operation.path.format(workspace_id=ws, runtime="hermes")


# What clients have always sent


def curl(command: str) -> tuple[int, Any]:
    """Run curl, and return the status and the JSON it got."""
    done = subprocess.run(
        ["curl", "-sS", "-w", "\n%{http_code}", *shlex.split(command)],
        capture_output=True,
        text=True,
        check=True,
    )
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text)


def test_with_curl_a_switch_takes_one_call_and_the_old_dance_still_works(world: World) -> None:
    ws = world.made()
    authorized = f"-H 'Authorization: Bearer {world.tokens['operator']}'"
    at = f"{world.service.url}/workspaces/{ws}"

    def send(method: str, path: str, body: str = "") -> tuple[int, Any]:
        data = f"--json '{body}'" if body else ""
        return curl(f"{authorized} {data} -X {method} {at}{path}")

    status, body = send("PATCH", "", '{"runtime":"google-adk"}')
    assert status == 200
    told = {key: body[key] for key in ("status", "needs_restart", "model_was_reset", "model")}
    assert told == {
        "status": "updated",
        "needs_restart": True,
        "model_was_reset": True,
        "model": GEMINI,
    }

    status, body = send("PUT", "/model", f'{{"model":"{KIMI}"}}')
    assert (status, body["code"], body["runtime"], body["model"]) == (
        422,
        "MODEL_NOT_REGISTERED",
        "google-adk",
        KIMI,
    )
    assert body["valid_models"][0] == GEMINI
    assert send("GET", "/model")[1]["model"] == GEMINI

    assert send("DELETE", "/model")[1]["model"] is None
    assert send("PATCH", "", '{"runtime":"hermes"}')[1]["model_was_reset"] is False
    status, body = send("PUT", "/model", f'{{"model":"{KIMI}"}}')
    assert (status, body["status"], body["needs_restart"], body["model"]) == (
        200,
        "updated",
        True,
        KIMI,
    )


# Who may what

ROLES = ["admin", "operator", "workspace", "foreign", "revoked", "expired", "unknown", "none"]
RANK = {"workspace": 0, "foreign": 0, "operator": 1, "admin": 2}
MALFORMED_AUTHORIZATION = [
    "",
    "Bearer",
    "Bearer ",
    "Basic abc",
    "Bearer a b",
    "Bearer " + "x" * 600,
    "Bearer é",
]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_lets_in_whom_it_should(
    world: World, operation: Operation, role: str
) -> None:
    ws = world.made()
    tokens: dict[str, str | None] = {
        **world.tokens,
        "workspace": token_for(world.conn, f"of {ws}", "workspace", ws),
        "foreign": world.tokens["workspace"],
        "unknown": new_token(),
        "none": None,
    }
    answer = world.ask(
        operation.method, path_for(operation, ws), token=tokens[role], body=body_for(operation)
    )
    if role not in RANK:
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        invalid = ', error="invalid_token"' if role != "none" else ""
        assert answer.headers["www-authenticate"] == f'Bearer realm="runtime-registry"{invalid}'
    elif role == "foreign" and "workspace_id" in operation.path:
        assert (answer.status, answer.code) == (404, "WORKSPACE_NOT_FOUND")
        nowhere = world.ask(operation.method, path_for(operation, uuid4()), token=tokens[role])
        assert nowhere.code == "WORKSPACE_NOT_FOUND"
    elif RANK[role] < RANK[operation.role]:
        assert (answer.status, answer.code) == (403, "FORBIDDEN")
        assert (answer.body["role"], answer.body["needs"]) == (
            tokens_role(role),
            operation.role,
        )
        assert f'scope="{operation.role}"' in answer.headers["www-authenticate"]
    else:
        assert answer.status in (200, 201) or answer.code == "MODEL_NOT_REGISTERED"
        return
    after = get_workspace(world.conn, ws)
    assert (after.version, after.runtime, after.model) == (1, "claude-code", KIMI)
    assert not {"needs_restart", "model_was_reset"} & set(answer.body)


def tokens_role(role: str) -> str:
    return "workspace" if role == "foreign" else role


@pytest.mark.parametrize("header", MALFORMED_AUTHORIZATION)
def test_what_is_no_bearer_token_is_nobodys(world: World, header: str) -> None:
    sent = {"Authorization": header.encode().decode("latin-1")}
    answer = world.service.ask("GET", "/runtimes", headers=sent)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


def test_the_scheme_may_be_in_any_case(world: World) -> None:
    sent = {"Authorization": f"bEARER {world.tokens['operator']}"}
    assert world.service.ask("GET", "/runtimes", headers=sent).status == 200


@pytest.mark.parametrize(("role", "status"), [("operator", 200), ("workspace", 403), (None, 401)])
def test_metrics_need_an_operator(world: World, role: str | None, status: int) -> None:
    token = world.tokens[role] if role else None
    assert world.ask("GET", "/metrics", token=token).status == status


def test_without_any_token_nobody_gets_in_and_health_still_answers(database: Database) -> None:
    with running(database.dsn) as service:
        for operation in OPERATIONS:
            path = path_for(operation, uuid4())
            assert service.ask(operation.method, path, new_token()).status == 401
            assert service.ask(operation.method, path).status == 401
        assert service.ask("GET", "/metrics").status == 401
        assert service.ask("GET", "/health").status == 200
        assert service.ask("GET", "/ready").status == 200


def test_the_callers_name_is_the_actor_and_no_other_request_has_it(world: World) -> None:
    ws = world.made()
    world.ask("PATCH", f"/workspaces/{ws}", body={"runtime": "hermes"})
    world.ask("PUT", f"/workspaces/{ws}/model", token=world.tokens["admin"], body={"model": KIMI})
    world.ask("DELETE", f"/workspaces/{ws}/model", token=world.tokens["admin"])
    actors = [entry.actor for entry in history(world.conn, ws)]
    assert actors[1:] == ["deploy", "root"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_deleted_workspace_is_gone_but_for_its_history(
    world: World, operation: Operation
) -> None:
    if "workspace_id" not in operation.path:
        return
    ws = world.made()
    assert world.ask("DELETE", f"/workspaces/{ws}", token=world.tokens["admin"]).status == 200
    answer = world.ask(
        operation.method,
        path_for(operation, ws),
        token=world.tokens["admin"],
        body=body_for(operation),
    )
    assert answer.status == (200 if operation.name == "list_changes" else 404)


# What is asked


def test_a_patch_of_several_fields_is_one_change_or_none(world: World) -> None:
    ws = world.made()
    path = f"/workspaces/{ws}"
    body = {"name": "new", "runtime": "codex", "model": "gpt-5.4"}
    answer = world.ask("PATCH", path, body=body)
    assert (answer.status, answer.body["version"]) == (200, 2)
    for body in (
        {"name": "newer", "runtime": "hermes", "model": "gpt-5.4"},
        {"name": "newer", "runtime": "nowhere"},
        {"name": "\0", "runtime": "hermes"},
    ):
        assert world.ask("PATCH", path, body=body).status in (400, 422)
    now = get_workspace(world.conn, ws)
    assert (now.name, now.runtime, now.model, now.version) == ("new", "codex", "gpt-5.4", 2)
    assert world.ask("PATCH", path, body={"model": "gpt-5.5"}).body["model"] == "gpt-5.5"
    assert world.ask("PATCH", path, body={"name": "newest"}).body["needs_restart"] is False
    answer = world.ask("PATCH", path, body={"runtime": "claude-code", "restore": True})
    assert (answer.body["model"], answer.body["model_source"]) == (KIMI, "restored")


BODIES: list[tuple[bytes, int, str, str | None]] = [
    (b"", 400, "MALFORMED_BODY", None),
    (b"{", 400, "MALFORMED_BODY", None),
    (b'{"runtime":"hermes"}x', 400, "MALFORMED_BODY", None),
    (b'{"runtime":"hermes"}{}', 400, "MALFORMED_BODY", None),
    (b'{"runtime":"codex","runtime":"hermes"}', 400, "MALFORMED_BODY", None),
    (b'{"runtime":"hermes\xff"}', 400, "MALFORMED_BODY", None),
    (b'\xef\xbb\xbf{"runtime":"hermes"}', 400, "MALFORMED_BODY", None),
    (b'{"runtime":NaN}', 400, "MALFORMED_BODY", None),
    (b"[" * 10_000, 400, "MALFORMED_BODY", None),
    (b'{"runtime":' + b"9" * 5000 + b"}", 400, "MALFORMED_BODY", None),
    (b'"hermes"', 400, "MALFORMED_BODY", None),
    (b"null", 400, "MALFORMED_BODY", None),
    (b"[]", 400, "MALFORMED_BODY", None),
    (b"{}", 422, "INVALID_BODY", ""),
    (b'{"runtme":"hermes"}', 422, "INVALID_BODY", "/runtme"),
    (b'{"runtime":"hermes","a/b~":1}', 422, "INVALID_BODY", "/a~1b~0"),
    (b'{"\\ud800":1}', 400, "MALFORMED_BODY", None),
    (b'{"runtime":null}', 422, "INVALID_BODY", "/runtime"),
    (b'{"runtime":1}', 422, "INVALID_BODY", "/runtime"),
    (b'{"runtime":["hermes"]}', 422, "INVALID_BODY", "/runtime"),
    (b'{"runtime":"hermes","model":null}', 422, "INVALID_BODY", "/model"),
    (b'{"runtime":"hermes","model":false}', 422, "INVALID_BODY", "/model"),
    (b'{"runtime":"hermes","restore":"true"}', 422, "INVALID_BODY", "/restore"),
    (b'{"runtime":"hermes","restore":1}', 422, "INVALID_BODY", "/restore"),
    (b'{"restore":true,"name":"x"}', 422, "INVALID_BODY", "/restore"),
    (b'{"runtime":""}', 400, "INVALID_ARGUMENT", None),
    (b'{"runtime":"her\\u0000mes"}', 400, "INVALID_ARGUMENT", None),
    (b'{"runtime":"\\ud800"}', 400, "INVALID_ARGUMENT", None),
    (b'{"name":"' + b"x" * 256 + b'"}', 400, "INVALID_ARGUMENT", None),
    (b'{"name":"' + b"x" * 20_000 + b'"}', 413, "BODY_TOO_LARGE", None),
]


@pytest.mark.parametrize(
    ("body", "status", "code", "path"), BODIES, ids=lambda value: repr(value)[:40]
)
def test_a_body_that_is_not_what_it_should_be_is_refused_and_changes_nothing(
    world: World, body: bytes, status: int, code: str, path: str | None
) -> None:
    ws = world.made()
    answer = world.ask("PATCH", f"/workspaces/{ws}", body=body)
    assert (answer.status, answer.code) == (status, code)
    if path is not None:
        assert [problem["path"] for problem in answer.body["problems"]] == [path]
    now = get_workspace(world.conn, ws)
    assert (now.version, now.name, now.runtime, now.model) == (1, "w", "claude-code", KIMI)


@pytest.mark.parametrize("body", [b"{}", b'{"modle":"opus"}', b'{"model":null}', b'{"model":""}'])
def test_no_body_clears_a_model(world: World, body: bytes) -> None:
    ws = world.made()
    assert world.ask("PUT", f"/workspaces/{ws}/model", body=body).status in (400, 422)
    assert get_workspace(world.conn, ws).model == KIMI


def test_a_body_without_a_length_is_measured_as_it_comes(world: World) -> None:
    ws = world.made()

    chunks = [b'{"name":"', *[b"x" * 1000] * 40, b'"}', b""]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    sent = {"Transfer-Encoding": "chunked"}
    answer = world.ask("PATCH", f"/workspaces/{ws}", body=framed, headers=sent)
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip"},
    ],
)
def test_only_plain_json_is_read(world: World, headers: dict[str, str]) -> None:
    body = b'{"runtime":"hermes"}'
    answer = world.ask("PATCH", f"/workspaces/{world.own}", body=body, headers=headers)
    assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_checks_come_in_order(world: World) -> None:
    """Authentication, id, rights, body, headers, existence, state."""
    ws = world.made()
    big, wrong = b"x" * 20_000, b"{"
    good = {"runtime": "hermes"}
    stale = {"If-Match": '"99"'}
    asked: list[tuple[str | None, object, object, dict[str, str], int]] = [
        (None, "no-uuid", big, {"If-Match": "?"}, 401),
        ("workspace", "no-uuid", big, {"If-Match": "?"}, 400),
        ("workspace", uuid4(), big, {"If-Match": "?"}, 404),
        ("workspace", world.own, big, {"If-Match": "?"}, 403),
        ("operator", uuid4(), big, {"If-Match": "?"}, 413),
        ("operator", uuid4(), wrong, {"If-Match": "?"}, 400),
        ("operator", uuid4(), {"x": 1}, {"If-Match": "?"}, 422),
        ("operator", uuid4(), good, {"If-Match": "?"}, 400),
        ("operator", uuid4(), good, stale, 404),
        ("operator", ws, good, stale, 412),
        ("operator", ws, good, {}, 200),
    ]
    for role, at, body, headers, status in asked:
        token = world.tokens[role] if role else None
        answer = world.ask("PATCH", f"/workspaces/{at}", token=token, body=body, headers=headers)
        assert answer.status == status, (role, at, body, headers)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=%C2%B2", "limit=1&limit=1", "after=x", "x=1"],
)
def test_a_query_that_is_not_known_is_refused(world: World, query: str) -> None:
    answer = world.ask("GET", f"/workspaces?{query}")
    assert (answer.status, answer.code) == (400, "INVALID_ARGUMENT")


def test_pages_follow_each_other(world: World) -> None:
    for _ in range(3):
        world.made()
    found, query = [], "limit=2"
    while True:
        page = world.ask("GET", f"/workspaces?{query}").body
        found += [item["workspace_id"] for item in page["items"]]
        if page["next"] is None:
            break
        query = f"limit=2&after={page['next']}"
    assert found == [
        str(ws) for (ws,) in world.conn.execute("select id from workspace.workspaces order by id")
    ]


# Versions and repeated requests


def test_an_etag_is_the_version_and_if_match_expects_it(world: World) -> None:
    ws = world.made()
    path = f"/workspaces/{ws}"
    read = world.ask("GET", path)
    assert read.headers["etag"] == world.ask("GET", f"{path}/model").headers["etag"] == '"1"'
    first = world.ask("PATCH", path, body={"runtime": "hermes"}, headers={"If-Match": '"1"'})
    assert (first.status, first.headers["etag"]) == (200, '"2"')
    for method, at, body in (
        ("PATCH", path, {"runtime": "codex"}),
        ("PUT", f"{path}/model", {"model": KIMI}),
        ("DELETE", f"{path}/model", None),
        ("DELETE", path, None),
    ):
        for tag in ('"1"', 'W/"2"', '"02"', '"x"', f'"{2**64}"'):
            answer = world.ask(
                method, at, token=world.tokens["admin"], body=body, headers={"If-Match": tag}
            )
            assert (answer.status, answer.code) == (412, "VERSION_CONFLICT"), tag
            assert answer.body["version"] == 2
            assert "expected_version" not in answer.body
        for tag in ("2", '"2', '"1", "2"'):
            answer = world.ask(
                method, at, token=world.tokens["admin"], body=body, headers={"If-Match": tag}
            )
            assert (answer.status, answer.code) == (400, "INVALID_ARGUMENT"), tag
    anyhow = world.ask("PATCH", path, body={"runtime": "codex"}, headers={"If-Match": "*"})
    assert anyhow.status == 200


def test_a_repeated_key_gets_the_same_answer_and_another_request_is_refused(world: World) -> None:
    ws = world.made()
    path = f"/workspaces/{ws}"
    key = {"Idempotency-Key": "switch 42"}
    for method, at, body, other in (
        ("PATCH", path, {"runtime": "hermes", "name": "n"}, {"runtime": "hermes"}),
        ("PUT", f"{path}/model", {"model": KIMI}, {"model": "moonshot/kimi-k2.5"}),
    ):
        key = {"Idempotency-Key": f"{method} 42"}
        first = world.ask(method, at, body=body, headers=key)
        again = world.ask(method, at, body=body, headers={**key, "If-Match": '"1"'})
        assert first.status == again.status == 200
        assert first.body == again.body
        assert world.ask(method, at, body=other, headers=key).code == "REQUEST_ID_REUSED"
    assert world.ask("DELETE", f"{path}/model", headers=key).code == "REQUEST_ID_REUSED"

    body = {"name": "n", "runtime": "hermes"}
    made = [world.ask("POST", "/workspaces", body=body, headers=key) for _ in range(2)]
    assert [answer.status for answer in made] == [201, 201]
    assert made[0].body == made[1].body
    assert made[0].headers["location"] == f"/workspaces/{made[0].body['workspace_id']}"
    other_body = {"name": "m", "runtime": "hermes"}
    answer = world.ask("POST", "/workspaces", body=other_body, headers=key)
    assert answer.code == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "\x7f", "é"])
def test_a_key_that_is_none_is_refused(world: World, key: str) -> None:
    answer = world.ask(
        "PATCH",
        f"/workspaces/{world.own}",
        body={"runtime": "hermes"},
        headers={"Idempotency-Key": key},
    )
    assert (answer.status, answer.code) == (400, "INVALID_ARGUMENT")


# What fails


def test_a_failing_update_is_500_and_nothing_is_changed(world: World) -> None:
    ws = world.made()
    world.conn.execute(
        f"alter table workspace.workspaces add constraint stuck"
        f" check (id <> '{ws}' or runtime = 'claude-code') not valid"
    )
    try:
        answer = world.ask("PATCH", f"/workspaces/{ws}", body={"runtime": "google-adk"})
    finally:
        world.conn.execute("alter table workspace.workspaces drop constraint stuck")
    assert (answer.status, answer.code) == (500, "INTERNAL")
    assert set(answer.body) == {"type", "title", "status", "detail", "error", "code"}
    assert "stuck" not in answer.text
    assert len(history(world.conn, ws)) == 1
    assert get_workspace(world.conn, ws).model == KIMI
    logged = world.service.log_of(answer.headers["x-request-id"])
    assert logged["level"] == "error"
    assert "CheckViolation 23514" in logged["exception"]


@pytest.mark.parametrize("key", ["settle", None])
def test_a_server_process_killed_in_the_middle_of_a_patch(world: World, key: str | None) -> None:
    ws = world.made()
    headers = {"Idempotency-Key": key} if key else {}

    def patch() -> Answer:
        return world.ask(
            "PATCH", f"/workspaces/{ws}", body={"runtime": "google-adk"}, headers=headers
        )

    with held(world, ws) as holder:
        asking = in_thread(patch)
        pid = blocked_by(world, holder)
        assert one(world.conn, "select pg_terminate_backend(%s)", pid)
        if key:
            # Sent again by the service itself, which may do so because of the key.
            assert blocked_by(world, holder, but=pid)
        holder.rollback()
        answer = asking.result(SECONDS)
    if key:
        assert (answer.status, answer.body["model"]) == (200, GEMINI)
        assert patch().body == answer.body
    else:
        # It might have been committed, for all that the service can know: the client decides.
        assert (answer.status, answer.code) == (503, "CONNECTION_LOST")
        assert answer.body["retry"] is False
        assert answer.headers["retry-after"] == "1"
        assert patch().status == 200
    assert len(history(world.conn, ws)) == 2


def held(world: World, ws: UUID) -> Conn:
    """A connection that holds a workspace's row."""
    holder = psycopg.connect(world.dsn)
    set_model(holder, ws, "opus")
    return holder


def blocked_by(world: World, holder: Conn, but: int = 0) -> int:
    """Wait until a session other than `but` waits for this one, and return its pid."""
    with psycopg.connect(world.dsn, autocommit=True) as observer:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            row = observer.execute(
                "select pid from pg_stat_activity"
                " where %s = any (pg_blocking_pids(pid)) and pid <> %s",
                [holder.info.backend_pid, but],
            ).fetchone()
            if row:
                return int(row[0])
            threading.Event().wait(0.002)
    raise AssertionError("nobody waits")


def test_a_lock_that_is_not_to_be_had_is_503_and_leaves_no_transaction(template: Database) -> None:
    with (
        databases.create(template.server, template) as database,
        running(database.dsn, lock_timeout="50ms") as service,
    ):
        world = world_on(database, service)
        with held(world, world.own) as holder:
            body = {"runtime": "hermes"}
            answer = world.ask("PATCH", f"/workspaces/{world.own}", body=body)
            assert (answer.status, answer.code) == (503, "LOCK_TIMEOUT")
            assert (answer.body["retry"], answer.headers["retry-after"]) == (True, "1")
            holder.rollback()
        open_ = one(
            world.conn,
            "select count(*) from pg_stat_activity"
            " where application_name = 'runtime-registry' and state like 'idle in%%'",
        )
        assert open_ == 0


def test_a_lost_database_is_503_until_it_is_back(template: Database) -> None:
    with (
        databases.create(template.server, template) as database,
        running(database.dsn, pool_timeout="0.5") as service,
    ):
        world = world_on(database, service)
        path = f"/workspaces/{world.own}"
        assert world.ask("GET", path).status == 200
        with template.server.connect(autocommit=True) as admin:
            name = psycopg.sql.Identifier(database.name)
            admin.execute(psycopg.sql.SQL("alter database {} allow_connections false").format(name))
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                [database.name],
            )
            for method, at, body in (("GET", path, None), ("PATCH", path, {"runtime": "hermes"})):
                answer = world.ask(method, at, body=body)
                assert (answer.status, answer.code) == (503, "CONNECTION_LOST")
                assert answer.body["retry"] is True
                assert answer.headers["retry-after"] == "1"
            ready = service.ask("GET", "/ready")
            assert ready.status == 503
            assert ready.body["checks"]["database"] is False
            assert service.ask("GET", "/health").status == 200
            admin.execute(psycopg.sql.SQL("alter database {} allow_connections true").format(name))
        for _ in range(1000):  # each try waits for the pool
            if world.ask("GET", path).status == 200:
                break
        assert world.ask("PATCH", path, body={"runtime": "hermes"}).status == 200
        assert service.ask("GET", "/ready").status == 200


def test_connections_that_died_unnoticed_cost_no_request(world: World) -> None:
    ws = world.made()
    for _ in range(3):
        world.conn.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where application_name = 'runtime-registry' and datname = current_database()"
        )
        answer = world.ask("PATCH", f"/workspaces/{ws}", body={"name": "w"})
        assert answer.status == 200


def test_it_is_ready_only_on_its_own_schema_with_a_registry(
    empty_database: Callable[[], Database],
) -> None:
    database = empty_database()
    with running(database.dsn) as service:
        ready = service.ask("GET", "/ready")
        assert ready.status == 503
        assert ready.body["checks"] == {
            "database": True,
            "schema": False,
            "registry": False,
            "keyring": False,
        }
        databases.install(database)
        assert service.ask("GET", "/ready").body == {
            "status": "ready",
            "checks": {"database": True, "schema": True, "registry": True, "keyring": True},
        }
        conn = database.connect(autocommit=True)
        conn.execute("update registry.state set revision = 0")
        conn.execute("update registry.alembic_version set version_num = '9999'")
        ready = service.ask("GET", "/ready")
        assert ready.body["checks"] == {
            "database": True,
            "schema": False,
            "registry": False,
            "keyring": True,
        }


def test_sealed_models_need_the_key_and_it_is_told_nobody(
    empty_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = empty_database()
    databases.install(database)
    kek = "5a" * 32
    conn = database.connect(autocommit=True)
    conn.execute("select set_config('runtime_registry.kek', %s, false), keyring.init()", [kek])
    ws = create_workspace(conn, "w", "claude-code", model=KIMI).workspace_id
    token = token_for(conn, "deploy", "operator")
    path, body = f"/workspaces/{ws}", {"runtime": "google-adk"}
    # The tests' server gives every session a key, which is not this one.
    with running(database.dsn) as service:
        assert service.ask("GET", "/ready").body["checks"]["keyring"] is False
        assert service.ask("PATCH", path, token, body).code == "INTERNAL"
        assert get_workspace(conn, ws).version == 1
    monkeypatch.setenv("RUNTIME_REGISTRY_KEK", kek)
    with running(database.dsn) as service:
        assert service.ask("GET", "/ready").status == 200
        answer = service.ask("PATCH", path, token, body)
        assert (answer.status, answer.body["previous_model"]) == (200, KIMI)
        service.log_of(answer.headers["x-request-id"])
        assert kek not in json.dumps(service.logged)
    assert kek not in repr(Settings.from_environment())


def test_told_to_stop_it_finishes_what_it_began(template: Database) -> None:
    with (
        databases.create(template.server, template) as database,
        running(database.dsn) as service,
    ):
        world = world_on(database, service)
        path = f"/workspaces/{world.own}"
        with held(world, world.own) as holder:
            asking = in_thread(world.ask, "PATCH", path, body={"runtime": "google-adk"})
            blocked_by(world, holder)
            stopping = in_thread(service.stop)
            service.line(lambda line: "Shutting down" in line["message"])
            holder.rollback()
            assert asking.result(SECONDS).status == 200
            assert stopping.result(SECONDS) == 0
        assert get_workspace(world.conn, world.own).runtime == "google-adk"


# What is told besides


def test_metrics_count_calls_resets_and_refusals(world: World) -> None:
    def metrics() -> dict[str, float]:
        text = world.ask("GET", "/metrics").text
        found = re.findall(r"^(runtime_registry_\S+) (\S+)$", text, re.M)
        return {name: float(value) for name, value in found}

    names = [
        'runtime_registry_requests_total{operation="change_workspace",status="200"}',
        'runtime_registry_request_seconds_count{operation="change_workspace"}',
        'runtime_registry_model_resets_total{model_source="default",runtime="google-adk"}',
        'runtime_registry_refusals_total{code="MODEL_NOT_REGISTERED"}',
        'runtime_registry_refusals_total{code="NOT_FOUND"}',
    ]
    ws = world.made()
    before = metrics()
    assert world.ask("PATCH", f"/workspaces/{ws}", body={"runtime": "google-adk"}).status == 200
    assert world.ask("POST", f"/workspaces/{ws}/preview", body={"runtime": "hermes"}).status == 200
    assert world.ask("PUT", f"/workspaces/{ws}/model", body={"model": "x"}).status == 422
    assert world.ask("GET", "/no/such/path").status == 404
    after = metrics()
    assert [after[name] - before.get(name, 0) for name in names] == [1, 1, 1, 1, 1]
    preview = 'runtime_registry_model_resets_total{model_source="default",runtime="hermes"}'
    assert after.get(preview) == before.get(preview)
    assert after['runtime_registry_pool_connections{state="used"}'] == 0
    assert after["runtime_registry_pool_waiting"] == 0


def test_the_log_has_a_line_for_every_request_and_no_value(world: World) -> None:
    ws = world.made()
    sent = ["secret-model", "secret-name", "secret-key", "secret-runtime", "secret-query"]
    asked = [
        world.ask("PUT", f"/workspaces/{ws}/model", body={"model": sent[0]}),
        world.ask(
            "PATCH",
            f"/workspaces/{ws}",
            body={"name": sent[1], "runtime": "hermes"},
            headers={"Idempotency-Key": sent[2]},
        ),
        world.ask("PATCH", f"/workspaces/{ws}", body={"runtime": sent[3]}),
        world.ask("PATCH", f"/workspaces/{ws}", body={sent[3]: sent[3]}),
        world.ask("GET", f"/workspaces?x={sent[4]}"),
        world.ask("GET", f"/runtimes/{sent[3]}/models"),
        world.ask("GET", f"/{sent[4]}"),
    ]
    lines = [world.service.log_of(answer.headers["x-request-id"]) for answer in asked]
    assert [line["status"] for line in lines] == [422, 200, 422, 422, 400, 422, 404]
    assert lines[0]["code"] == "MODEL_NOT_REGISTERED"
    assert lines[1]["operation"] == "change_workspace"
    assert (lines[1]["caller"], lines[1]["workspace_id"]) == ("deploy", str(ws))
    everything = json.dumps(world.service.logged)
    hidden = [*sent, KIMI, "claude-code", *world.tokens.values()]
    assert [value for value in hidden if value in everything] == []
    assert not [line for line in world.service.logged if line["message"].startswith("NOT JSON")]


@pytest.mark.parametrize(
    ("given", "kept"), [("trace-1.a_B", True), ("x" * 65, False), ("a b", False)]
)
def test_a_request_id_that_is_sent_is_kept_if_it_is_one(
    world: World, given: str, kept: bool
) -> None:
    answer = world.ask("GET", "/health", headers={"X-Request-ID": given})
    assert (answer.headers["x-request-id"] == given) is kept


def test_answers_are_for_nobody_elses_eyes(world: World) -> None:
    for path in ("/runtimes", f"/workspaces/{world.own}/model", "/nowhere", "/health"):
        headers = world.ask("GET", path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/x", 404), ("PUT", "/runtimes", 405), ("GET", "//", 404), ("GET", "/runtimes/", 404)],
)
def test_what_is_not_there_is_a_problem_too(
    world: World, method: str, path: str, status: int
) -> None:
    answer = world.ask(method, path)
    assert answer.status == status
    assert answer.code in ("NOT_FOUND", "METHOD_NOT_ALLOWED")
    assert ("allow" in answer.headers) is (status == 405)


# The documentation


def test_the_docs_load_nothing_from_elsewhere(world: World) -> None:
    page = world.service.ask("GET", "/docs")
    assert page.status == 200
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 4
    for address in loaded:
        if address != "data:,":
            assert "//" not in address
            assert world.service.ask("GET", f"/{address}").status == 200


def test_the_docs_can_be_left_out(database: Database) -> None:
    with running(database.dsn, docs="off") as service:
        assert service.ask("GET", "/docs").status == 404
        assert service.ask("GET", "/openapi.json").status == 404


DOCUMENT: dict[str, Any] = app_factory(Settings(database="none")).openapi()


def documented(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return found


@dataclass(slots=True)
class Worlds:
    """Services in every state that an answer can come from."""

    well: World
    strict: Service
    broken: Service
    gone: Service

    def reach(self, operation: Operation, status: int) -> Answer:
        """Make an operation answer with a status."""
        ws = self.well.made()
        body, headers = body_for(operation), {}
        path, token, service = path_for(operation, ws), self.well.tokens["admin"], self.well.service
        match status:
            case 200 | 201:
                if operation.name == "set_model":
                    body = {"model": "opus"}
            case 400:
                path += "?x=1"
            case 401:
                token = new_token()
            case 403:
                own = token_for(self.well.conn, f"reaches {uuid4()}", "workspace", ws)
                token = own
            case 404:
                path = path_for(operation, uuid4())
            case 409:
                body["id"] = str(ws)
            case 412:
                headers = {"If-Match": '"7"'}
            case 413:
                body = b"x" * 20_000
            case 415:
                headers = {"Content-Type": "text/plain"}
            case 422 if operation.name == "clear_model":
                headers = {"Idempotency-Key": "k"}
                self.well.ask("PATCH", f"/workspaces/{ws}", body={"name": "n"}, headers=headers)
            case 422 if operation.name == "list_models":
                path = "/runtimes/nowhere/models"
            case 422:
                body = {"unknown": 1}
            case 428:
                service = self.strict
            case 500:
                service = self.broken
            case 503:
                service = self.gone
        return service.ask(operation.method, path, token, body, headers)


@pytest.fixture(scope="module")
def worlds(world: World, template: Database) -> Iterator[Worlds]:
    with ExitStack() as stack:
        broken = stack.enter_context(databases.create(template.server, template))
        broken.connect(autocommit=True).execute(
            "create or replace function access.authenticate(hash bytea)"
            " returns setof access.caller language plpgsql as 'begin return next 1/0; end'"
        )
        yield Worlds(
            world,
            stack.enter_context(running(world.dsn, require_if_match="on")),
            stack.enter_context(running(broken.dsn)),
            stack.enter_context(running(f"{world.dsn} dbname=nowhere", pool_timeout="0.1")),
        )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_documented_status_is_reached_and_looks_as_documented(
    worlds: Worlds, operation: Operation
) -> None:
    for status, about in documented(operation)["responses"].items():
        answer = worlds.reach(operation, int(status))
        assert answer.status == int(status), answer.text
        ((media_type, content),) = about["content"].items()
        assert answer.headers["content-type"] == media_type
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        check = jsonschema.Draft202012Validator(schema)
        check.validate(answer.body)
        for name in about.get("headers", {}):
            assert name.lower() in answer.headers, (status, name)
        if media_type == "application/json":
            assert list(content["example"]) == list(answer.body)
            check.validate(content["example"])
            continue
        for code, example in content["examples"].items():
            assert example["value"]["code"] == code
            check.validate(example["value"])
        if code := answer.code:
            like = content["examples"][code]["value"]
            assert set(like) == set(answer.body)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_the_documented_body_is_the_one_that_is_read(operation: Operation) -> None:
    if operation.body is None:
        assert "requestBody" not in documented(operation)
        return
    content = documented(operation)["requestBody"]["content"]["application/json"]
    check = jsonschema.Draft202012Validator(content["schema"])
    bodies: list[dict[str, Any]] = [
        content["example"],
        {},
        *({name: value} for name in operation.body.fields for value in ("x", True, None, 1)),
        {"runtime": "r", "restore": True},
        {"name": "n", "restore": True},
        {"unknown": "x"},
        {"name": "n", "runtime": "r", "id": str(uuid4())},
    ]
    for body in bodies:
        assert check.is_valid(body) is not bool(operation.body.problems(body)), body


# In an app of one's own


def test_the_router_can_be_mounted_in_another_app(world: World) -> None:
    shared = pyapi.http.Service(Settings(database=world.dsn))
    app = FastAPI(lifespan=shared.lifespan)
    app.include_router(pyapi.http.router(shared), prefix="/registry")

    async def send(method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], Any]:
        sent: list[Any] = []
        headers = [
            (b"authorization", f"Bearer {world.tokens['operator']}".encode()),
            (b"content-type", b"application/json"),
        ]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "scheme": "http",
            "server": ("x", 80),
            "client": ("y", 1),
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def answer(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, answer)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, json.loads(sent[1]["body"])

    async def use() -> None:
        async with shared.lifespan(app):
            made = b'{"name":"n","runtime":"hermes"}'
            status, headers, body = await send("POST", "/registry/workspaces", made)
            assert status == 201
            assert headers["location"] == f"/registry/workspaces/{body['workspace_id']}"
            status, headers, body = await send("GET", headers["location"])
            assert (status, body["runtime"], headers["etag"]) == (200, "hermes", '"1"')
            status, headers, body = await send("GET", "/registry/workspaces/x")
            assert (status, headers["content-type"]) == (400, "application/problem+json")

    asyncio.run(use())
