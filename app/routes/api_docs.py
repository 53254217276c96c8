"""`/openapi.json`, and the pages `/docs` (Swagger UI) and `/redoc`, whose scripts and styles come from this service.

FastAPI's own pages load their assets from a CDN and stay blank without a network. Every URL in them is relative to the
page, so that the pages also work below a path prefix (`root_path`, or a proxy that strips the prefix).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from app.answers.tags import tagged_json
from app.http.browsers import POLICY

STATIC = Path(__file__).parent.parent / "static"
FOLDER = STATIC / "api_docs"
ASSETS = "static/api_docs"
# The policy makes the browser block other hosts: Redoc, for example, would load a logo from its vendor's CDN.
_POLICY = (
    f"{POLICY}; connect-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "worker-src blob:"
)
# Redoc makes style elements in the browser, and has no way to give them a nonce
_REDOC_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


class Assets(StaticFiles):
    """Files that a browser keeps, but asks for before each use whether they have changed."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        """The answer with a file."""
        response = super().file_response(*args, **more)
        response.headers["Cache-Control"] = "no-cache"
        return response


def install(app: FastAPI) -> None:
    """Add them and their assets to an app that was created with `openapi_url=None, docs_url=None, redoc_url=None`."""

    @lru_cache(8)  # a proxy tells the prefix of each request
    def document(root_path: str) -> bytes:
        schema = app.openapi()
        return bytes(JSONResponse({**schema, "servers": [{"url": root_path}]} if root_path else schema).body)

    async def openapi(request: Request) -> Response:
        path = request.scope.get("root_path", "").rstrip("/")
        return tagged_json(request, document(path))

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.mount(f"/{ASSETS}", Assets(directory=FOLDER), name="api_docs")
    app.mount("/static/page", Assets(directory=STATIC / "page"), name="page")
    app.mount("/static/studio", Assets(directory=STATIC / "studio"), name="studio")
    app.add_api_route("/docs", swagger_ui, include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route("/redoc", redoc, include_in_schema=False, response_class=HTMLResponse)


def swagger_ui() -> HTMLResponse:
    """The API's operations, with a form to try each of them."""
    return _page("docs.html", _POLICY)


def redoc() -> HTMLResponse:
    """The API as one page to read."""
    return _page("redoc.html", _REDOC_POLICY)


def _page(name: str, policy: str) -> HTMLResponse:
    text = (STATIC / name).read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})
