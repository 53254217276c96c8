"""The pages `/docs` (Swagger UI) and `/redoc`: API documentation whose scripts and styles come from this service.

FastAPI's own pages load their assets from a CDN and stay blank without a network. Every URL here is relative to the
page, so that the pages also work below a path prefix (`root_path`, or a proxy that strips the prefix).
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

FOLDER = Path(__file__).parent.parent / "static" / "api_docs"
ASSETS = "static/api_docs"
# The policy makes the browser block other hosts: Redoc, for example, would load a logo from its vendor's CDN.
POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def install(app: FastAPI) -> None:
    """Add both pages and their assets to an app that was created with `docs_url=None, redoc_url=None`."""
    app.mount(f"/{ASSETS}", StaticFiles(directory=FOLDER), name="api_docs")
    app.add_api_route("/docs", swagger_ui, include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route("/redoc", redoc, include_in_schema=False, response_class=HTMLResponse)


def swagger_ui() -> HTMLResponse:
    """The API's operations, with a form to try each of them."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Strata API",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None},  # else the document's URL is sent to a public validator
    )
    return _with_policy(page)


def redoc() -> HTMLResponse:
    """The API as one page to read."""
    page = get_redoc_html(
        openapi_url="openapi.json",
        title="Strata API",
        redoc_js_url=f"{ASSETS}/redoc.standalone.js",
        redoc_favicon_url=f"{ASSETS}/favicon-32x32.png",
        with_google_fonts=False,
    )
    return _with_policy(page)


def _with_policy(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = POLICY
    return page
