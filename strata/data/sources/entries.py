"""Stream the entries of JSON files: elements of an array, lines, members of an object, or of a list inside of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import IO, Any

import ijson

from strata.errors import DataError

MEMBERS = "*"  # place: the members of the top-level object, as pairs of name and value
_PIECE = 2**16  # bytes parsed at a time


class EntryError(DataError, ValueError):
    """A file, or one of its entries, is not of the format that was named. The message is one line."""


def json_entries(file: IO[bytes], place: str = "") -> Iterator[Any]:
    """Yield a file's entries one at a time, so that a file of any length can be read.

    place: "" for the elements of an array or the lines of JSON Lines, MEMBERS, or the name of a list in the top-level
    object. Raises EntryError.
    """
    start = file.read(_PIECE).lstrip(b"\xef\xbb\xbf \t\r\n")
    # the first character distinguishes an array from an object and from lines
    array = start.startswith(b"[")
    if place and start and not start.startswith(b"{"):
        raise EntryError("the file is not a JSON object")
    pieces = ijson.from_iter(itertools.chain([start], iter(lambda: file.read(_PIECE), b"")))
    if place == MEMBERS:
        found = ijson.kvitems(pieces, "", use_float=True)
    elif place:
        found = ijson.items(pieces, f"{place}.item", use_float=True)
    else:
        found = ijson.items(pieces, "item" if array else "", multiple_values=not array, use_float=True)
    yield from _checked(found if start else iter(()))


def _checked(found: Iterator[Any]) -> Iterator[Any]:
    number = 0
    try:
        for entry in found:
            number += 1
            yield entry
    except ijson.JSONError as error:
        # some of ijson's messages are bytes, and have several lines
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error.args[0])
        line = f"entry {number + 1:,} is not JSON: {reason.partition(chr(10))[0]}"
        raise EntryError(line) from None


def text_of(entry: Any, name: str) -> str:
    """The text of a field; a number is converted. Raises EntryError if there is none."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise EntryError(f'no text "{name}"')


def list_of(entry: Any, name: str) -> list[Any]:
    """The list in a field. Raises EntryError if there is none, or an empty one."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, list) or not value:
        raise EntryError(f'no list "{name}"')
    return value


def texts_of(entry: Any, name: str) -> list[str]:
    """The texts in a list; numbers are converted. Raises EntryError if there is no list, or something else in it."""
    return [text_of({name: value}, name) for value in list_of(entry, name)]
