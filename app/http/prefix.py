"""Where the API lies: below V1, and that perhaps below a prefix that a proxy adds, as in `/strata/v1/jobs`.

Whether the proxy strips the prefix or not, the application sees paths with it and `root_path`, as ASGI has it. Routes
write addresses without it. The headers of answers get it here, and the links of jobs by `linked`.
What needs no key is here too: signing in, and images by signed links.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Message, Scope, Send

from strata.core import JobView

V1 = "/v1"
_ADDRESSES = frozenset({b"location", b"content-location", b"link"})
_OWN = re.compile(rb"(?:^|(?<=<))(?=/v1/)")  # where an address of ours begins, in a header of its own or in a link
SESSION = "/session"  # below V1: how people sign in, for which no key is needed
SIGNATURE = "signature"  # the parameter by which a link to an image is known
_IMAGE = re.compile(rf"{V1}/records/.+/(image|preview\.jpg|overlay\.png)", re.DOTALL)
_SIGNED = re.compile(rf"(^|&){SIGNATURE}=".encode())


def path_of(scope: Scope) -> str:
    """The decoded path of a request, without the prefix."""
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


def enter_prefix(scope: Scope, default: str, send: Send) -> Send:
    """Give a request's paths their prefix, and return how its answer is sent: its addresses have the prefix too.

    default: the prefix of requests for which no proxy tells one.
    """
    if scope["type"] != "http" or not (root := scope.get("root_path") or default):
        return send
    scope["root_path"] = root
    if not f"{scope['path']}/".startswith(f"{root}/"):
        scope["path"] = root + scope["path"]
        scope["raw_path"] = root.encode() + scope.get("raw_path", b"")

    async def send_prefixed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, _OWN.sub(root.encode(), value) if name in _ADDRESSES else value)
                for name, value in message["headers"]
            ]
        await send(message)

    return send_prefixed


async def _prefix(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


PrefixDep = Annotated[str, Depends(_prefix)]


def linked(view: JobView, prefix: str) -> JobView:
    """A job with the links by which this request's client reaches it."""
    if not prefix:
        return view
    return view.model_copy(update={"links": {name: prefix + path for name, path in view.links.items()}})
