"""Entity tags: an answer that the caller has already is not sent again (RFC 9110, sections 8.8.3 and 13.1.2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from fastapi import Request, Response

import strata

# what a caller may keep, and asks for before each use whether it still holds: its key may not, and things are deleted
ASKED = {"Cache-Control": "private, no-cache"}
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def tag_of(*content: bytes | str) -> str:
    """A strong entity tag for an answer that this version of Strata makes of this content."""
    digest = hashlib.sha256()
    for one in (strata.__version__, *content):
        data = one.encode() if isinstance(one, str) else one
        digest.update(len(data).to_bytes(8, "big") + data)
    return f'"{digest.hexdigest()[:32]}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether the request's `If-None-Match` has a tag, weak or strong; what cannot be read in it has no effect."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return given.strip() == "*" or tag in _TAG.findall(given)


def unchanged(tag: str, headers: Mapping[str, str]) -> Response:
    """The answer to a caller who has the content: 304, with the headers that the content would have."""
    return Response(status_code=304, headers={**headers, "ETag": tag})


def tagged_json(request: Request, text: str | bytes, headers: Mapping[str, str] = ASKED) -> Response:
    """A JSON text with its tag; without the text if the caller has it."""
    tag = tag_of(text)
    if is_known(request, tag):
        return unchanged(tag, headers)
    return Response(text, headers={**headers, "ETag": tag}, media_type="application/json")
