"""The studio at `/`, and the pages of the problem types.

The studio (`static/studio`) is plain ES modules. It finds the API relative to its own address, so that it works below a
path prefix, and needs no inline script or style.
"""

from __future__ import annotations

import json
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from app.http.browsers import POLICY
from app.problem_types import PROBLEMS, document
from app.problems import ProblemError
from strata.core import LAYERS

router = APIRouter(include_in_schema=False)

PAGE = Path(__file__).parent.parent.parent / "static" / "index.html"
_LAYERS = '<script id="layers" type="application/json">{}</script>'
_MARKDOWN = "text/markdown; charset=utf-8"
_POLICY = f"{POLICY}; connect-src 'self'; img-src 'self' blob:; style-src 'self'; script-src 'self'"


@router.get("/")
def index() -> Response:
    """The studio's page, with the table of layers as JSON, which a browser does not execute."""
    text = PAGE.read_text(encoding="utf-8").replace(_LAYERS.format("[]"), _LAYERS.format(_layers_json()), 1)
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})


def _layers_json() -> str:
    """The table of layers, escaped for a script element."""
    return json.dumps(layer_table()).replace("<", "\\u003c")


def layer_table() -> list[dict[str, object]]:
    """The fields of each layer that the studio uses, in order."""
    names = ("name", "title", "entry", "form", "words", "quoted", "boxed", "stage")
    return [{name: getattr(layer, name) for name in names} for layer in LAYERS.values()]


@router.get("/problems")
def list_problems() -> Response:
    """All types of problems."""
    return PlainTextResponse(document(), media_type=_MARKDOWN)


@router.get("/problems/{name}")
def show_problem(name: str) -> Response:
    """The meaning of a type of problem, and its solution."""
    if name not in PROBLEMS:
        raise ProblemError("not-found", f"no type of problem has the name {name[:100]!r}; GET /problems lists them")
    return PlainTextResponse(PROBLEMS[name].page(), media_type=_MARKDOWN)
