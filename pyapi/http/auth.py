"""Who calls, and what their role lets them do."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from uuid import UUID

from starlette.requests import Request

from ..access import Caller, Role, authenticate_call, token_hash
from ..errors import WorkspaceNotFound
from .problems import Refused
from .service import Service

REALM = 'Bearer realm="runtime-registry"'
_BASIC = 'Basic realm="runtime-registry", charset="UTF-8"'
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,512}=*")
_RANK: dict[Role, int] = {"workspace": 0, "operator": 1, "admin": 2}


async def caller_of(service: Service, request: Request) -> Caller:
    """Return whose token the request carries. Raises Refused with 401, which never says why."""
    caller = await _bearer_of(service, request, {"bearer": str.strip})
    if caller is not None:
        return caller
    invalid = ', error="invalid_token"' if "authorization" in request.headers else ""
    raise _unauthorized("Authorization: Bearer ...", REALM + invalid)


async def viewer_of(service: Service, request: Request) -> Caller:
    """Return who looks at the page: a token is also a password there, whatever the user's name.

    Only there: what browsers send by themselves, for another site too, must not change anything.
    """
    caller = await _bearer_of(service, request, {"basic": _password, "bearer": str.strip})
    if caller is not None:
        return caller
    raise _unauthorized("as the password, with any user name.", _BASIC)


def authorize(caller: Caller, needs: Role, ws: UUID | None) -> None:
    """Refuse what a caller may not do.

    A token for one workspace is told that every other does not exist, whether it does or not.
    Otherwise a role that does not reach is 403, with the one that does.
    """
    if caller.role == "workspace" and ws is not None and ws != caller.workspace_id:
        raise not_found(ws)
    if _RANK[caller.role] < _RANK[needs]:
        raise Refused(
            403,
            "FORBIDDEN",
            f"This takes a token with the role {needs}.",
            headers={"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{needs}"'},
            role=caller.role,
            needs=needs,
        )


def not_found(ws: UUID) -> WorkspaceNotFound:
    """Make the error as the database would."""
    code = "WORKSPACE_NOT_FOUND"
    return WorkspaceNotFound(
        404,
        code,
        f"There is no workspace {ws}.",
        "It was deleted, or never created; workspace.history shows which.",
        {"code": code, "workspace_id": str(ws)},
    )


async def _bearer_of(
    service: Service, request: Request, schemes: Mapping[str, Callable[[str], str]]
) -> Caller | None:
    given = request.headers.getlist("authorization")
    if len(given) != 1:
        return None
    scheme, _, credentials = given[0].partition(" ")
    read = schemes.get(scheme.lower())
    token = read(credentials) if read else ""
    if not _TOKEN.fullmatch(token):
        return None
    return await service.run(authenticate_call(token_hash(token)))


def _password(credentials: str) -> str:
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _unauthorized(how: str, challenge: str) -> Refused:
    return Refused(
        401,
        "UNAUTHORIZED",
        f"This takes a valid token: {how}",
        headers={"WWW-Authenticate": challenge},
    )
