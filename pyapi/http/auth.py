"""Who calls, and what their role lets them do."""

from __future__ import annotations

import re
from uuid import UUID

from starlette.requests import Request

from ..access import Caller, Role, authenticate_call, token_hash
from ..errors import WorkspaceNotFound
from .problems import Refused
from .service import Service

REALM = 'Bearer realm="runtime-registry"'
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,512}=*")
_RANK: dict[Role, int] = {"workspace": 0, "operator": 1, "admin": 2}


async def caller_of(service: Service, request: Request) -> Caller:
    """Return whose token the request carries. Raises Refused with 401, which never says why."""
    given = request.headers.getlist("authorization")
    if not given:
        raise _unauthorized(REALM)
    scheme, _, token = given[0].partition(" ")
    if len(given) == 1 and scheme.lower() == "bearer" and _TOKEN.fullmatch(token.strip()):
        caller = await service.run(authenticate_call(token_hash(token.strip())))
        if caller is not None:
            return caller
    raise _unauthorized(f'{REALM}, error="invalid_token"')


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


def _unauthorized(challenge: str) -> Refused:
    return Refused(
        401,
        "UNAUTHORIZED",
        "This takes a valid token: Authorization: Bearer ...",
        headers={"WWW-Authenticate": challenge},
    )
