"""From a request to its response, the same way for every operation.

The order of checks is fixed: who calls, which workspace, whether they may, the body and the
headers; then the database says whether it exists, and whether its state allows it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..access import Caller
from ..errors import InvalidArgument
from ..responses import Response as Answer
from ..workspace import Change, Workspace
from . import problems
from .auth import authorize, caller_of
from .bodies import UUID as UUID_TEXT
from .logs import logger, trace
from .operations import Asked, Operation
from .problems import Refused
from .service import Service

Endpoint = Callable[[Request], Awaitable[Response]]

NO_VERSION = -1
"""Stands for an entity tag that is none of ours: no workspace has it."""
_TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*')
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NOWHERE = UUID(int=0)


def endpoint(service: Service, operation: Operation) -> Endpoint:
    """Make the handler of an operation."""

    async def handle(request: Request) -> Response:
        caller = request.state.caller = await caller_of(service, request)
        asked = await _well_formed(service, operation, request, caller)
        call = operation.call(asked)
        result = await service.run(call, caller.name)
        answer = operation.answer(result, asked)
        headers = {}
        if isinstance(result, Change) and not call.statement.reads_only:
            service.metrics.changed(result)
            if answer.status == 201:
                headers["Location"] = f"{request.url.path}/{result.workspace_id}"
        if isinstance(result, (Change, Workspace)) and result.runtime is not None:
            headers["ETag"] = f'"{result.version}"'
        return JSONResponse(answer.body, answer.status, headers)

    return observed(service, operation.name, handle)


async def _well_formed(
    service: Service, operation: Operation, request: Request, caller: Caller
) -> Asked:
    ws = _NOWHERE
    if (text := request.path_params.get("workspace_id")) is not None:
        ws = uuid_of("workspace_id", text)
        request.state.workspace_id = str(ws)
    authorize(caller, operation.role, ws if text is not None else None)
    query = _query(operation, request)
    body = {}
    if operation.body:
        body = await operation.body.read(request, service.settings.max_body)
    guards: dict[str, Any] = {}
    if operation.if_match:
        guards["expected_version"] = _expected(request, service.settings.require_if_match)
    if operation.idempotency_key:
        guards["request_id"] = _key(request)
    return Asked(request.path_params, ws, query, body, guards)


def uuid_of(name: str, text: str) -> UUID:
    """Read an id that was sent as the argument `name`."""
    if not UUID_TEXT.fullmatch(text):
        raise InvalidArgument.make(name, "is not a UUID")
    return UUID(text)


def _query(operation: Operation, request: Request) -> dict[str, str]:
    for name in request.query_params:
        if name not in operation.query:
            raise InvalidArgument.make("query", "has a parameter that is not known")
        if len(request.query_params.getlist(name)) > 1:
            raise InvalidArgument.make(name, "is there twice")
    query = dict(request.query_params)
    if "after" in query:
        uuid_of("after", query["after"])
    return query


def _expected(request: Request, required: bool) -> int | None:
    if "if-match" not in request.headers:
        if required:
            raise Refused(
                428,
                "PRECONDITION_REQUIRED",
                "This takes If-Match with the ETag that the workspace had when it was read, or *.",
            )
        return None
    given = ", ".join(request.headers.getlist("if-match"))
    if given.strip() == "*":
        return None
    if not (tag := _TAG.fullmatch(given)):
        raise InvalidArgument.make("If-Match", "is not one entity tag")
    weak, version = tag.groups()
    return int(version) if not weak and _VERSION.fullmatch(version) else NO_VERSION


def _key(request: Request) -> str | None:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise InvalidArgument.make("Idempotency-Key", "is not 1 to 255 characters of ASCII")
    return given[0]


def observed(
    service: Service,
    name: str,
    handle: Endpoint,
    show: Callable[[Answer, Mapping[str, str]], Response] = problems.sent,
) -> Endpoint:
    """Wrap a handler: whatever it raises becomes a problem, and all is counted and logged."""

    async def observe(request: Request) -> Response:
        began = time.perf_counter()
        given = request.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid4())
        code: str | None = None
        level, exception = logging.INFO, None
        try:
            response = await handle(request)
        except Exception as error:
            problem, headers = problems.of(error)
            response, code = show(problem, headers), problem.body["code"]
            if problem.status >= 500:
                level, exception = logging.ERROR, trace(error)
        protect(response)
        response.headers["X-Request-ID"] = request_id
        seconds = time.perf_counter() - began
        service.metrics.answered(name, response.status_code, code, seconds)
        caller: Caller | None = getattr(request.state, "caller", None)
        fields = {
            "request_id": request_id,
            "operation": name,
            "status": response.status_code,
            "code": code,
            "milliseconds": round(seconds * 1000, 2),
            "caller": caller.name if caller else None,
            "workspace_id": getattr(request.state, "workspace_id", None),
            "exception": exception,
        }
        fields = {key: value for key, value in fields.items() if value is not None}
        logger.log(level, "request", extra={"fields": fields})
        return response

    return observe


def protect(response: Response) -> None:
    """Set the headers of every answer: models are nobody else's, least of all a cache's."""
    for name, value in _PROTECTION.items():
        response.headers.setdefault(name, value)


_PROTECTION = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
