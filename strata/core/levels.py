"""Levels: which of a record's layers is the text that a model learns to write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from strata.core.errors import InvalidInput

Row = Mapping[str, Any]


class LevelError(InvalidInput, ValueError):
    """A level that there is not; the message is one line that helps."""


class Level(StrEnum):
    """A layer as text; its value is the column of parts that holds it."""

    ALT_TEXT = "alt_text"
    CAPTION = "caption"
    REGIONS = "regions"
    OBJECTS = "objects"
    DESCRIPTION = "description"

    @classmethod
    def named(cls, name: str) -> Level:
        """The level of a name. Raises LevelError."""
        try:
            return cls(name)
        except ValueError:
            raise LevelError(f"no level {name!r}; there are {', '.join(cls)}") from None


def kept(entries: Iterable[Row] | None) -> list[Row]:
    """The entries of a layer that the matcher and the other stages kept."""
    return [entry for entry in entries or () if entry["kept"]]


def text_of(row: Row, level: Level) -> str | None:
    """The text of a level in a row of RECORD_SCHEMA (as `to_pylist` gives it), or None where it has none.

    regions and objects are the kept phrases in their order, separated by "; ". What was dropped is told on nowhere.
    """
    value = row[level]
    if value is None:
        return None
    if level is Level.ALT_TEXT:
        text = value
    elif level in (Level.REGIONS, Level.OBJECTS):
        text = "; ".join(entry["phrase"] for entry in kept(value))
    elif level is Level.CAPTION:
        text = value["text"] if kept([value]) else None
    else:
        text = value["text"]
    return (text or "").strip() or None
