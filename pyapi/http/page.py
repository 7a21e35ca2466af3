"""The page `/`, for people who would rather look: what runs, what may, what changed, what would.

It has no script, loads nothing but its style sheet, and changes nothing: every form is a GET. A
token for one workspace sees that workspace.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Generic, TypeVar

from fastapi import FastAPI, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from ..access import Caller
from ..calls import Call, Row, Statement, columns
from ..errors import InvalidArgument, RegistryError, StatementTimeout
from ..fleet import Orphan, OverviewEntry, overview_call, recent_changes_call
from ..registry import RuntimeEntry, list_models_call, list_runtimes_call, status_call
from ..responses import Response as Answer
from ..responses import respond
from ..workspace import get_workspace_call, preview_runtime_change_call
from .auth import authorize, viewer_of
from .exchange import observed, uuid_of
from .service import Service

T = TypeVar("T")

MOST_MODELS = 500
"""How many models the page lists of one runtime."""
MOST_ORPHANS = 100
SOURCES = ("requested", "default", "equivalent", "restored", "kept", "none")

_PATIENCE = 20
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_FIELDS = {
    "WORKSPACE_NOT_FOUND": "workspace_id",
    "RUNTIME_UNSUPPORTED": "runtime",
    "NO_DEFAULT_MODEL": "runtime",
    "MODEL_NOT_REGISTERED": "model",
}
"""Which field of the form a refusal is about."""


def _first_and_count(rows: list[Row]) -> tuple[list[Orphan], int]:
    return [Orphan(*row[:-1]) for row in rows], rows[0][-1] if rows else 0


# There can be as many as there are workspaces: the rest is counted where it is.
_ORPHANS = Statement(
    f"""
    select {columns(Orphan)}, count(*) over ()
    from fleet.orphans(runtime => null) limit %(limit)s::integer
    """,
    _first_and_count,
    reads_only=True,
)

_templates = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "count": "{:,}".format,
    "moment": lambda at: f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
}


def add(app: FastAPI, service: Service) -> None:
    """Add the page and its style sheet."""
    style = (files(__package__) / "templates" / "page.css").read_bytes()
    fleet = Held(service, overview_call())
    orphans = Held(service, Call(_ORPHANS, {"limit": MOST_ORPHANS}))

    async def page(request: Request) -> Response:
        caller = request.state.caller = await viewer_of(service, request)
        return await _page(service, caller, request.query_params, fleet, orphans)

    async def stylesheet(_: Request) -> Response:
        return Response(style, headers={"Cache-Control": "no-cache"}, media_type="text/css")

    for path, endpoint in {
        "/": observed(service, "page", page, _problem),
        "/page.css": observed(service, "page", stylesheet),
    }.items():
        app.add_api_route(path, endpoint, methods=["GET"], include_in_schema=False)


class Held(Generic[T]):
    """The answer to a call that takes its time on a large fleet: everybody sees the same one.

    It is asked for anew when it is 20 times as old as it took to get. However often the page is
    looked at, that keeps a twentieth of one connection busy.
    """

    def __init__(self, service: Service, call: Call[T]) -> None:
        self._service, self._call = service, call
        self._lock = asyncio.Lock()
        self._good_until = 0.0
        self._held: tuple[T | None, datetime]

    async def get(self, actor: str) -> tuple[T | None, datetime]:
        """Return the answer, None if it took too long, and the time it is of."""
        async with self._lock:
            began = time.monotonic()
            if began >= self._good_until:
                moment = datetime.now(UTC)
                try:
                    answer = await self._service.run(self._call, actor)
                    self._held = answer, moment
                except StatementTimeout:
                    self._held = None, moment
                now = time.monotonic()
                self._good_until = now + _PATIENCE * (now - began)
            return self._held


async def _page(
    service: Service,
    caller: Caller,
    query: Mapping[str, str],
    fleet: Held[list[OverviewEntry]],
    orphans: Held[tuple[list[Orphan], int]],
) -> Response:
    runtimes = await service.run(list_runtimes_call(), caller.name)
    shown: dict[str, Any] = {
        "viewer": caller,
        "registry": await service.run(status_call(), caller.name),
        "runtimes": runtimes,
        "fleet": None,
        "workspace": None,
        **await _menu(service, caller, runtimes, query),
    }
    if caller.workspace_id:
        own = get_workspace_call(caller.workspace_id)
        shown["workspace"] = await service.run(own, caller.name)
    else:
        found, counted_at = await fleet.get(caller.name)
        shown["fleet"] = _table(found) if found is not None else None
        shown["counted_at"] = counted_at
        # These have every model opened, so only if somebody asks.
        shown["orphans"] = await orphans.get(caller.name) if "orphans" in query else None
        shown["changes"] = await service.run(recent_changes_call(), caller.name)
    status, preview = await _preview(service, caller, query)
    return _html("page.html", status, shown | preview)


def _table(entries: list[OverviewEntry]) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for entry in entries:
        counts[entry.runtime][entry.model_source] = entry.workspaces
    return {
        "counts": counts,
        "sources": [source for source in SOURCES if any(source in row for row in counts.values())],
        "largest": max((sum(row.values()) for row in counts.values()), default=0),
        "total": sum(entry.workspaces for entry in entries),
    }


async def _menu(
    service: Service, caller: Caller, runtimes: list[RuntimeEntry], query: Mapping[str, str]
) -> dict[str, Any]:
    """The models of the runtime that was asked for, else of the first that has any."""
    menus = [entry.runtime for entry in runtimes if entry.models]
    shown = query.get("models") or next(iter(menus), None)
    if shown not in menus:
        return {"menu": None, "models": [], "more_models": 0}
    models = await service.run(list_models_call(shown), caller.name)
    more = max(0, len(models) - MOST_MODELS)
    return {"menu": shown, "models": models[:MOST_MODELS], "more_models": more}


async def _preview(
    service: Service, caller: Caller, query: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    own = str(caller.workspace_id) if caller.workspace_id else ""
    form = {name: query.get(name, "").strip() for name in ("workspace_id", "runtime", "model")}
    form["workspace_id"] = form["workspace_id"] or own
    form["restore"] = query.get("restore", "")
    shown: dict[str, Any] = {"form": form, "preview": None, "refusal": None, "wrong": None}
    if "runtime" not in query:
        return 200, shown
    try:
        ws = uuid_of("workspace_id", form["workspace_id"])
        authorize(caller, "workspace", ws)
        call = preview_runtime_change_call(
            ws, form["runtime"], model=form["model"] or None, restore=bool(form["restore"])
        )
        shown["preview"] = await service.run(call, caller.name)
    except RegistryError as error:
        if error.status >= 500:
            raise
        argument = error.argument if isinstance(error, InvalidArgument) else None
        refusal = respond(error)
        shown["refusal"], shown["wrong"] = refusal.body, argument or _FIELDS.get(error.code)
        return refusal.status, shown
    return 200, shown


def _problem(problem: Answer, headers: Mapping[str, str]) -> Response:
    return _html("problem.html", problem.status, {"problem": problem.body}, headers)


def _html(
    template: str, status: int, shown: dict[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    text = _templates.get_template(template).render(shown)
    return HTMLResponse(text, status, {"Content-Security-Policy": _POLICY, **(headers or {})})
