"""The app, and the router for whoever has an app already."""

from __future__ import annotations

from importlib.metadata import version
from inspect import cleandoc

from fastapi import APIRouter, FastAPI, Request, Security
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from . import documentation, page, problems, swagger
from .auth import authorize, caller_of
from .exchange import endpoint, observed
from .health import readiness
from .metrics import MEDIA_TYPE
from .operations import OPERATIONS
from .problems import Refused
from .service import Service
from .settings import Settings

_ABOUT = (
    "Which models each agent runtime can run, and one call that switches a workspace's runtime. "
    "Every refusal is a problem document (RFC 9457); programs branch on its `code`."
)
_TOKEN = HTTPBearer(auto_error=False, scheme_name="token", description="An access token.")


def router(service: Service) -> APIRouter:
    """Make a router with every operation, for an app of your own.

    The app has to hold the service open: `FastAPI(lifespan=service.lifespan)`.
    """
    made = APIRouter()
    for operation in OPERATIONS:
        made.add_api_route(
            operation.path,
            endpoint(service, operation),
            methods=[operation.method],
            name=operation.name,
            operation_id=operation.name,
            summary=operation.name.replace("_", " ").capitalize(),
            description=cleandoc(operation.call.__doc__ or ""),
            tags=[operation.path.split("/")[1]],
            status_code=documentation.status_of(operation),
            response_class=JSONResponse,
            response_model=None,
            responses=documentation.responses(operation),
            openapi_extra=documentation.extra(operation),
            dependencies=[Security(_TOKEN)],
        )
    return made


def app_factory(settings: Settings | None = None) -> FastAPI:
    """Make the app: the router, the page, health, metrics and documentation.

    It serves no request yet.
    """
    settings = settings or Settings.from_environment()
    service = Service(settings)
    app = FastAPI(
        title="Runtime Registry",
        version=version("runtime-registry"),
        description=_ABOUT,
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
        # A redirect would be told to anybody, and lead to whatever host the request names.
        redirect_slashes=False,
        openapi_url="/openapi.json" if settings.docs else None,
    )
    app.state.service = service
    app.include_router(router(service))
    _add_health(app, service)
    page.add(app, service)
    if settings.docs:
        swagger.add(app, service)

    # What is told by itself are the methods of one operation on the path, not of all.
    methods = [(compile_path(each.path)[0], each.method) for each in OPERATIONS]

    async def unmatched(request: Request, error: Exception) -> Response:
        # No such path, or not this method: nothing of the request was looked at.
        refused = Refused(404, "NOT_FOUND", "There is nothing here.")
        if isinstance(error, HTTPException) and error.status_code == 405:
            path = request.url.path
            allowed = ", ".join(method for at, method in methods if at.fullmatch(path))
            headers = {"Allow": allowed} if allowed else error.headers
            text = "This takes other methods."
            refused = Refused(405, "METHOD_NOT_ALLOWED", text, headers=headers)

        async def refuse(_: Request) -> Response:
            raise refused

        return await observed(service, "unmatched", refuse)(request)

    app.add_exception_handler(HTTPException, unmatched)
    document = documentation.complete(app.openapi())
    app.openapi = lambda: document  # type: ignore[method-assign]
    return app


def _add_health(app: FastAPI, service: Service) -> None:
    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> Response:
        found = await readiness(service)
        headers = {} if found.status == 200 else {"Retry-After": problems.RETRY_AFTER}
        return JSONResponse(found.body, found.status, headers)

    async def metrics(request: Request) -> Response:
        caller = request.state.caller = await caller_of(service, request)
        authorize(caller, "operator", None)
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)

    for path, handle in {"/health": alive, "/ready": ready, "/metrics": metrics}.items():
        observing = observed(service, path.removeprefix("/"), handle)
        app.add_api_route(path, observing, methods=["GET"], include_in_schema=False)
