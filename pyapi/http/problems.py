"""Everything that is not an answer: one kind of body, RFC 9457's problem document."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from ..errors import DatabaseFailure, RegistryError, VersionConflict
from ..responses import Response, respond

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"


class Refused(Exception):
    """The request is refused before the database is asked to do it."""

    def __init__(
        self,
        status: int,
        code: str,
        error: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(code)
        self.response = Response(status, {"error": error, "code": code, **more})
        self.headers = dict(headers or {})


def of(error: BaseException) -> tuple[Response, dict[str, str]]:
    """Return the problem, and the headers that go with it, for whatever was raised."""
    if isinstance(error, Refused):
        return document(error.response), error.headers
    if isinstance(error, DatabaseFailure) and error.status != 503:
        # What the service's own role may not do is no fault of the caller's.
        error = RegistryError(500, "INTERNAL", "")
    response = respond(error)
    if isinstance(error, VersionConflict):  # Here versions are expected by If-Match only.
        body = {key: value for key, value in response.body.items() if key != "expected_version"}
        response = Response(412, body)
    headers = {"Retry-After": RETRY_AFTER} if response.status == 503 else {}
    return document(response), headers


def document(response: Response) -> Response:
    """Make a problem document of a refusal: its own fields, and those that RFC 9457 names."""
    title = title_of(response.status)
    standard = {"type": "about:blank", "title": title, "status": response.status}
    body = {**standard, "detail": response.body["error"], **response.body}
    return Response(response.status, body)


def title_of(status: int) -> str:
    """Return the status's name, by RFC 9110; older Pythons have older names."""
    return _RENAMED.get(status) or HTTPStatus(status).phrase


_RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}


def sent(response: Response, headers: Mapping[str, str]) -> JSONResponse:
    """Make the response that goes out."""
    return JSONResponse(response.body, response.status, dict(headers), MEDIA_TYPE)
