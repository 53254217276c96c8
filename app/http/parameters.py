"""The parameters of URLs: one that a route does not have is refused, and so is a second value of one that takes one.

A mistyped filter would be ignored else, and the answer would have all rows. What a route has is read from the OpenAPI
document, so that the document and the service agree.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from app.http.prefix import V1
from app.problems import invalid_request
from strata.core.registry import suggestion

NAMED = 100  # characters of a name in a message
_KNOWN = "query_parameters"  # where the application's state has them


async def known_parameters(request: Request) -> None:
    """A dependency of the routes below V1. Raises ProblemError, which names each wrong parameter."""
    if not request.scope["query_string"]:
        return
    # the route knows its path below V1 only
    known = _of_application(request.app)[request.method, V1 + request.scope["route"].path_format]
    wrong = []
    for name in dict.fromkeys(request.query_params):
        if name not in known:
            wrong.append(("unknown_parameter", name, f"unknown parameter; {suggestion(name, known)}"))
        elif not known[name] and len(request.query_params.getlist(name)) > 1:
            wrong.append(("repeated_parameter", name, "this parameter takes one value, and several are given"))
    if wrong:
        raise invalid_request(
            [{"type": kind, "loc": ("query", name[:NAMED]), "msg": text} for kind, name, text in wrong]
        )


def _of_application(app: FastAPI) -> dict[tuple[str, str], dict[str, bool]]:
    """The query parameters of each method and path, and whether each takes several values."""
    found: dict[tuple[str, str], dict[str, bool]] | None = getattr(app.state, _KNOWN, None)
    if found is None:
        found = {
            (method.upper(), path): {
                one["name"]: _takes_several(one["schema"])
                for one in operation.get("parameters", ())
                if one["in"] == "query"
            }
            for path, operations in app.openapi()["paths"].items()
            for method, operation in operations.items()
        }
        setattr(app.state, _KNOWN, found)
    return found


def _takes_several(schema: dict[str, Any]) -> bool:
    return any(one.get("type") == "array" for one in (schema, *schema.get("anyOf", ())))
