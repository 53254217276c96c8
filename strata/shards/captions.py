"""The text of an image, its alt text, from the files and fields that hold it."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, NamedTuple

CAPTION_FIELDS = ("caption", "text", "alt_text")  # of JSON objects and of the columns of lists; the first counts
MAX_CHARACTERS = 4096
MAX_TEXT = 4 * MAX_CHARACTERS + 4  # bytes of a text file that are used: UTF-8 and UTF-16 take at most 4 a character
MAX_JSON = 16 * 2**20  # bytes of a JSON object; a longer one is not parsed, since Python objects need much more memory

_UNREADABLE = "\ufffd"
_WINDOWS = "its text is not valid UTF-8: it was read as Windows-1252"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# by the byte order mark; that of UTF-32 begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Caption(NamedTuple):
    """A text, None if there is none. note: what the row of the image tells of how it was read, mostly nothing."""

    text: str | None = None
    note: str | None = None


def from_txt(data: bytes) -> Caption:
    """The text of a text file, of which only the first MAX_TEXT bytes are used."""
    characters, note = decoded(data[:MAX_TEXT], len(data) > MAX_TEXT)
    text = from_text(characters)
    return Caption(text, note if text else None)


def from_json(data: bytes) -> Caption:
    """The first text of CAPTION_FIELDS in a JSON object; none if it is another JSON or longer than MAX_JSON bytes."""
    if len(data) > MAX_JSON:
        return Caption(None, f"its JSON file is longer than {MAX_JSON:,} bytes, and was not read")
    characters, note = decoded(data)
    try:
        fields = json.loads(characters)
    except (ValueError, RecursionError):
        return Caption(None, "its JSON file is not valid JSON")
    text = from_fields(fields) if isinstance(fields, dict) else None
    return Caption(text, note_of(text, Caption(characters, note)))


def from_fields(fields: dict[str, Any]) -> str | None:
    """The first text among CAPTION_FIELDS, or None."""
    found = (from_text(fields[name]) for name in CAPTION_FIELDS if isinstance(fields.get(name), str))
    return next((text for text in found if text), None)


def from_text(text: str) -> str | None:
    """Trim a text and make it one that can be stored; None if nothing is left.

    NUL is removed, since neither terminals nor databases take it. A lone surrogate (\\ud800) is legal in JSON but
    cannot be encoded as UTF-8: it becomes U+FFFD, of which `note_of` tells.
    """
    kept = text[: 4 * MAX_CHARACTERS].replace("\0", "").lstrip("\ufeff")
    return _LONE_SURROGATE.sub(_UNREADABLE, kept).strip()[:MAX_CHARACTERS] or None


def decoded(data: bytes, cut: bool = False) -> tuple[str, str | None]:
    """A text's characters, and a note if they are not certain. cut: the last character may be incomplete.

    Its byte order mark tells the encoding. Without one it is UTF-8, or if it is not valid UTF-8, Windows-1252, as web
    browsers read such texts (WHATWG Encoding Standard). Five bytes have no meaning in it: each becomes U+FFFD.
    """
    mark, encoding = marked(data)
    body = data[len(mark) :]
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(body) if cut else body.decode(encoding)
    except UnicodeDecodeError:
        if not mark:
            text = body.decode("cp1252", "replace")
            lossy = ", in which some of its bytes have no meaning" if _UNREADABLE in text else ""
            return text, f"{_WINDOWS}{lossy}"
        text = body.decode(encoding, "replace")
        return text, f"its text is damaged: some of its characters are none of {encoding.upper()}"
    return text, note_of(text)


def marked(data: bytes) -> tuple[bytes, str]:
    """The byte order mark with which a text begins, empty if there is none, and its encoding, UTF-8 without a mark."""
    return next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", "utf-8"))


def note_of(text: str | None, file: Caption | None = None) -> str | None:
    """The note of a text that is a part of a file, or None if the text is certain.

    file: the whole file's text and note, if it was decoded as a whole. Not all of its parts have the characters that
    its note is about: the unreadable ones, or those beyond ASCII of a file that was read as Windows-1252.
    """
    whole = file or Caption()
    if text and _UNREADABLE in text:
        known = whole.note if _UNREADABLE in (whole.text or "") else None
        return known or "its text has characters that another program could not read"
    windows = (whole.note or "").startswith(_WINDOWS) and not (text or "").isascii()
    return _WINDOWS if windows else None


# the files beside an image that may have its text, by extension, with how they are read and how many bytes of them
TEXT_FILES = (("txt", from_txt, MAX_TEXT), ("json", from_json, MAX_JSON))
