"""The notes that the composer gives its language model: a record's kept entries, merged, with boxes turned to words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from models.boxes import area, inside, iou, min_overlap
from strata.core import THINGS, Box, Evidence, Record, head_of, kept

SAME_PLACE = 0.5  # intersection over union from which two boxes are one thing
INSIDE = 0.6  # share of a box inside another from which it belongs to it
_PIECES = re.compile(r"[,.;]\s*|\s+and\s+|\s+(?=(?:on|in|at|with|near|under|against)\s)")
_INDEFINITE = re.compile(r"^(?:(on|in|at|with|near|under|against)\s+)?((?:an?|some)\s+(?!.*\b(?:is|are)\b).+)$", re.I)
LARGE, SMALL = 0.2, 0.04  # shares of the picture's area


@dataclass(frozen=True)
class Note:
    """One thing at one place. phrases: what observers call it, the most trusted first, none for bare text.

    place: "top left"; size: "large", "small" or ""; texts: the lines that can be read on it.
    """

    phrases: tuple[str, ...]
    place: str
    size: str
    texts: tuple[str, ...] = ()


@dataclass
class _Thing:
    box: Box
    phrases: list[str]
    texts: list[str]


def notes_of(record: Record, limit: int = 40) -> list[Note]:
    """The record's kept regions, objects and text lines as notes, from left to right; the most trusted `limit`."""
    things: list[_Thing] = []
    # the most trusted name of a place comes first; of equals, objects before regions
    seen = [(layer, entry) for layer in reversed(THINGS) for entry in kept(getattr(record, layer.name))]
    for layer, entry in sorted(seen, key=lambda pair: _trust(pair[1]), reverse=True):
        if phrase := layer.words_of(entry).strip().rstrip("."):
            _join(things, entry.box, phrase)
    # a line of text is joined to what it stands on
    for line in kept(record.text):
        if line.text.strip():
            _read(things, line.box, line.text.strip())
    things = things[:limit]
    things.sort(key=lambda thing: (thing.box[0] + thing.box[2], thing.box[1] + thing.box[3]))
    width, height = record.width or 1, record.height or 1
    return [
        Note(
            phrases=tuple(thing.phrases),
            place=place_of(thing.box, width, height),
            size=size_of(thing.box, width, height),
            texts=tuple(thing.texts),
        )
        for thing in things
    ]


def _trust(entry: Evidence) -> float:
    return entry.match if entry.match is not None else entry.score or 0.0


def _join(things: list[_Thing], box: Box, phrase: str) -> None:
    """Add an observation: to the thing at the same place, or as a new thing."""
    for thing in things:
        named_alike = bool({head_of(phrase)} & {head_of(known) for known in thing.phrases})
        overlap = min_overlap(box, thing.box)
        if iou(box, thing.box) >= SAME_PLACE or (named_alike and overlap >= INSIDE):
            if phrase not in thing.phrases:
                thing.phrases.append(phrase)
            return
    things.append(_Thing(box, [phrase], []))


def _read(things: list[_Thing], box: Box, text: str) -> None:
    """Add a line of text: to the smallest thing that it stands on, or as a thing of its own."""
    carriers = [thing for thing in things if thing.phrases and inside(box, thing.box) >= INSIDE]
    if carriers:
        min(carriers, key=lambda thing: area(thing.box)).texts.append(text)
    else:
        things.append(_Thing(box, [], [text]))


def place_of(box: Box, width: int, height: int) -> str:
    """Where a box's middle lies: "left", "top right", "centre"…, by thirds of the picture."""
    across = _third((box[0] + box[2]) / 2 / width, ("left", "", "right"))
    down = _third((box[1] + box[3]) / 2 / height, ("top", "", "bottom"))
    return " ".join(word for word in (down, across) if word) or "centre"


def _third(share: float, words: tuple[str, str, str]) -> str:
    return words[min(2, max(0, int(share * 3)))]


def size_of(box: Box, width: int, height: int) -> str:
    """ "large" or "small" by the box's share of the picture, "" between."""
    share = area(box) / (width * height)
    return "large" if share >= LARGE else "small" if share <= SMALL else ""


def settings_of(caption: str, notes: Iterable[Note]) -> list[tuple[str, str]]:
    """The setting that a caption gives, as (preposition, phrase): [("on", "a blue background")].

    A thing that the caption alone names is left out, because no crop was matched with it and it may be invented. Only
    where a caption names one thing and nothing else, that thing is the setting.
    """
    noted = {head_of(phrase) for note in notes for phrase in note.phrases}
    rest: list[tuple[str, str]] = []
    pieces = [piece for piece in _PIECES.split(caption) if piece.strip()]
    for piece in pieces:
        found = _INDEFINITE.match(piece.strip())
        if found and (found[1] or len(pieces) == 1) and not noted & set(re.findall(r"[^\W\d_]+", found[2].lower())):
            rest.append(((found[1] or "").lower(), found[2][0].lower() + found[2][1:]))
    return rest
