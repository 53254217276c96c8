"""The prefix of the API's addresses, below which a key is needed, and what of it is open in another way."""

from __future__ import annotations

import re

from starlette.types import Scope

V1 = "/v1"
SESSION = "/session"  # below V1: how people sign in, for which no key is needed
SIGNATURE = "signature"  # the parameter by which a link to an image is known
_IMAGE = re.compile(rf"{V1}/records/.+/(image|preview\.jpg|overlay\.png)", re.DOTALL)
_SIGNED = re.compile(rf"(^|&){SIGNATURE}=".encode())


def path_of(scope: Scope) -> str:
    """The decoded path of a request, without the prefix that the server was told that it is served below."""
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def is_below_v1(scope: Scope) -> bool:
    """Whether a connection is a request below V1."""
    return scope["type"] == "http" and f"{path_of(scope)}/".startswith(f"{V1}/")


def is_session(scope: Scope) -> bool:
    """Whether a request concerns the session of a person."""
    return path_of(scope) == V1 + SESSION


def is_link(scope: Scope) -> bool:
    """Whether a request is for an image by a signed link. Then the link alone decides, whatever else the request has.

    So a page of another site may show such an image, and gets nothing by a link that is none.
    """
    return (
        scope["method"] in ("GET", "HEAD")
        and _SIGNED.search(scope["query_string"]) is not None
        and _IMAGE.fullmatch(path_of(scope)) is not None
    )
