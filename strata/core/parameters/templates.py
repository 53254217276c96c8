"""Templates: a job's own prompt, in which `{name}` stands for a field of a sample's metadata.

Only names stand in braces: there are no expressions, formats or attributes, so that a template can read nothing but
the sample's fields. `{a.b}` is the field `b` of the object in field `a`. `{{` and `}}` are braces. What stands in a
field is data: it is cleaned to one line, cut, and never read as a template.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

RECORD_FIELDS = ("alt_text", "key", "width", "height")  # of the record; all others are of the sample's metadata
MOST_VALUE = 500  # bytes of a field's value that are used
MOST_FILLED = 8000  # bytes of a filled template
_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.:-]{0,63})\}|[{}]")


def fields_of(template: str) -> list[str]:
    """The names of a template's fields, each once. Raises ValueError for a brace that begins or ends no name."""
    names: dict[str, None] = {}
    for piece in _PIECE.finditer(template):
        if piece[1]:
            names[piece[1]] = None
        elif len(piece[0]) == 1:
            around = template[max(0, piece.start() - 10) : piece.end() + 20]
            raise ValueError(
                f"at {around!r}: in braces stands the name of a field, such as {{alt_text}}; write {{{{ for a brace"
            )
    return list(names)


def metadata_fields(template: str | None) -> list[str]:
    """The names of a template's fields that are of the sample's metadata."""
    return [name for name in fields_of(template or "") if name not in RECORD_FIELDS]


def value_of(values: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of one inside it ("exif.model"); None if there is none."""
    found: Any = values
    if name in values:
        return values[name]
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def filled(template: str, values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A template with its fields' values, at most MOST_FILLED bytes, and the names of the fields that are missing.

    A missing field is empty.
    """
    texts = {name: one_line(value_of(values, name)) for name in fields_of(template)}

    def replaced(piece: re.Match[str]) -> str:
        return texts[piece[1]] if piece[1] else piece[0][0]

    text = _cut(_PIECE.sub(replaced, template), MOST_FILLED)
    return text, [name for name, value in texts.items() if not value]


def longest_filled(template: str) -> str:
    """A text that has as many bytes as the template can have when it is filled."""
    most = len(template.encode()) + MOST_VALUE * len(_PIECE.findall(template))
    return "x" * min(MOST_FILLED, most)


def one_line(value: Any) -> str:
    """A value as one line without control characters, at most MOST_VALUE bytes; "" for none, and for NaN.

    A number, a truth value, a list or an object is written as JSON. Characters that are not seen, such as those that
    turn the direction of text, are left out too.
    """
    if value is None or value != value:
        return ""
    # what is cut away is not looked at
    text = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))[: 8 * MOST_VALUE]
    text = text.encode(errors="replace").decode()
    shown = (
        " " if character.isspace() or unicodedata.category(character) in ("Cc", "Zl", "Zp") else character
        for character in text
        if unicodedata.category(character) not in ("Cf", "Cs", "Co", "Cn")
    )
    return _cut(" ".join("".join(shown).split()), MOST_VALUE)


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore").strip()
