"""Whether the service lives, and whether it can serve."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from ..errors import ConnectionLost, RegistryError
from ..keyring import opens_call
from ..registry import Installation, status_call
from ..responses import Response
from ..schema import head_revision
from .service import Service

_head = cache(head_revision)  # it looks at the disk

# What must hold of a database that we serve from, besides that its keyring opens.
_CHECKS: dict[str, Callable[[Installation], bool]] = {
    "schema": lambda found: found.schema_revision == _head(),
    "registry": lambda found: found.registry_revision > 0,
}


async def readiness(service: Service) -> Response:
    """Look at the database: 200, or 503 with what is wrong."""
    try:
        found = await service.run(status_call())
        opens = await service.run(opens_call(), actor="")
    except RegistryError as error:
        reached = not isinstance(error, ConnectionLost)
        return _answer({"database": reached} | dict.fromkeys([*_CHECKS, "keyring"], False))
    checks = {name: look(found) for name, look in _CHECKS.items()}
    return _answer({"database": True, **checks, "keyring": opens})


def _answer(checks: dict[str, bool]) -> Response:
    ready = all(checks.values())
    body = {"status": "ready" if ready else "not ready", "checks": checks}
    return Response(200 if ready else 503, body)
