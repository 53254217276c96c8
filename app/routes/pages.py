"""What people look at: the page at `/`, and the text behind each problem's type."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, PlainTextResponse

from app.problem_types import PROBLEMS, document
from app.problems import ProblemError

router = APIRouter(include_in_schema=False)

PAGE = Path(__file__).parent.parent / "static" / "index.html"
_MARKDOWN = "text/markdown; charset=utf-8"
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
def index() -> Response:
    """Jobs with their progress, and a place to drop an image."""
    return FileResponse(PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


@router.get("/problems")
def list_problems() -> Response:
    """All types of problems."""
    return PlainTextResponse(document(), media_type=_MARKDOWN)


@router.get("/problems/{name}")
def show_problem(name: str) -> Response:
    """What a type of problem means, and how to solve it."""
    if name not in PROBLEMS:
        raise ProblemError("not-found", f"no type of problem is called {name[:100]!r}; GET /problems lists them")
    return PlainTextResponse(PROBLEMS[name].page(), media_type=_MARKDOWN)
