"""/docs: Swagger UI, out of a package that brings its files along, so from no other host."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI, Request
from starlette.responses import Response

from .exchange import observed
from .service import Service

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# Relative, so that it works behind a proxy that serves it under a path.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Runtime Registry</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""
_START = """SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#swagger-ui",
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_STATIC = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}


def add(app: FastAPI, service: Service) -> None:
    """Add /docs and what it loads."""
    bundled = files("fastapi_offline") / "static"
    contents = {name: ((bundled / name).read_bytes(), kind) for name, kind in _STATIC.items()}
    contents["start.js"] = _START.encode(), "text/javascript"

    def serve(path: str, content: bytes, kind: str) -> None:
        async def handle(_: Request) -> Response:
            headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
            return Response(content, headers=headers, media_type=kind)

        handler = observed(service, "docs", handle)
        app.add_api_route(path, handler, methods=["GET"], include_in_schema=False)

    serve("/docs", _PAGE.encode(), "text/html")
    for name, (content, kind) in contents.items():
        serve(f"/docs/{name}", content, kind)
