"""Parts of files: `Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi import Request, Response

from app.answers.tags import is_known, tag_of, unchanged
from app.problems import ProblemError

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)
_DIGITS = 18  # a number with more is larger than any file


class Unsatisfiable(ValueError):
    """A range has no byte of the file."""


def range_of(text: str, size: int) -> slice | None:
    """Which bytes of a file of `size` bytes a `Range` header asks for; None if the whole file is to be sent.

    That is so for what cannot be read, and for several ranges, which a server may answer with the file. Raises
    Unsatisfiable.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(size - _number(suffix), 0), size
    else:
        start, stop = _number(first), _number(last) + 1 if last else size
        if last and stop <= start:
            return None
    if start >= size:
        raise Unsatisfiable(f"the file has {size} bytes, and none of them is asked for")
    return slice(start, min(stop, size))


def _number(digits: str) -> int:
    kept = digits.lstrip("0")
    return int(kept or "0") if len(kept) <= _DIGITS else 10**_DIGITS


def send_file(request: Request, data: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """The bytes of a file: all, those of a range, or none if the caller has them. Raises ProblemError (416)."""
    tag = tag_of(data)
    sent = {**headers, "ETag": tag, "Accept-Ranges": "bytes"}
    if is_known(request, tag):
        return unchanged(tag, headers)
    wanted = request.headers.get("range")
    # a part of another version must not be put beside what the caller has; a date never holds, as none was sent
    if wanted is None or request.headers.get("if-range", tag) != tag:
        return Response(data, headers=sent, media_type=media_type)
    try:
        part = range_of(wanted, len(data))
    except Unsatisfiable as error:
        there = {"Content-Range": f"bytes */{len(data)}"}
        raise ProblemError("range-not-satisfiable", f"Range: {error}", headers=there) from error
    if part is None:
        return Response(data, headers=sent, media_type=media_type)
    sent["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(data)}"
    return Response(data[part], 206, sent, media_type=media_type)
