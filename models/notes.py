"""The notes for the composer's language model: a record's kept entries, merged, with positions and sizes in words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from models.boxes import area, inside, iou, min_overlap
from strata.core import THINGS, Box, Evidence, Record, head_of, kept

SAME_PLACE = 0.5  # IoU from which two boxes are one thing
INSIDE = 0.6  # share of a box inside another box from which it belongs to that box
# a caption is divided at commas, at "and" and before prepositions
_PIECES = re.compile(r"[,.;]\s*|\s+and\s+|\s+(?=(?:on|in|at|with|near|under|against)\s)")
_INDEFINITE = re.compile(r"^(?:(on|in|at|with|near|under|against)\s+)?((?:an?|some)\s+(?!.*\b(?:is|are)\b).+)$", re.I)
LARGE, SMALL = 0.2, 0.04  # shares of the image's area


@dataclass(frozen=True)
class Note:
    """One thing at one position in the image.

    phrases: its names from all layers, the most trusted first; none for text that stands on no thing. place: such as
    "top left"; size: "large", "small" or ""; texts: the lines of text on it.
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
    """The record's kept regions, objects and lines of text as notes, from left to right; at most `limit`."""
    things: list[_Thing] = []
    # merge entries at the same position into one thing, the most trusted first; of equals, objects before regions
    entries = [(layer, entry) for layer in reversed(THINGS) for entry in kept(getattr(record, layer.name))]
    for layer, entry in sorted(entries, key=lambda pair: _trust(pair[1]), reverse=True):
        if phrase := layer.words_of(entry).strip().rstrip("."):
            _add_phrase(things, entry.box, phrase)
    # add each line of text to the thing that it stands on
    for line in kept(record.text):
        if line.text.strip():
            _add_text(things, line.box, line.text.strip())
    # the limit bounds the prompt's length: the most trusted things stay, then sorted from left to right
    things = things[:limit]
    things.sort(key=lambda thing: (thing.box[0] + thing.box[2], thing.box[1] + thing.box[3]))
    # boxes in words: the prompt contains no coordinates
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


def _add_phrase(things: list[_Thing], box: Box, phrase: str) -> None:
    """Add a phrase to the thing at the same position, or as a new thing."""
    for thing in things:
        # same position, or a part of the other box with the same head noun ("a car", "a red car")
        named_alike = bool({head_of(phrase)} & {head_of(known) for known in thing.phrases})
        overlap = min_overlap(box, thing.box)
        if iou(box, thing.box) >= SAME_PLACE or (named_alike and overlap >= INSIDE):
            if phrase not in thing.phrases:
                thing.phrases.append(phrase)
            return
    things.append(_Thing(box, [phrase], []))


def _add_text(things: list[_Thing], box: Box, text: str) -> None:
    """Add a line of text to the smallest thing that it stands on, or as a new thing without a phrase."""
    carriers = [thing for thing in things if thing.phrases and inside(box, thing.box) >= INSIDE]
    if carriers:
        min(carriers, key=lambda thing: area(thing.box)).texts.append(text)
    else:
        things.append(_Thing(box, [], [text]))


def place_of(box: Box, width: int, height: int) -> str:
    """The position of a box's centre by thirds of the image: "left", "top right", "centre" and so on."""
    across = _third((box[0] + box[2]) / 2 / width, ("left", "", "right"))
    down = _third((box[1] + box[3]) / 2 / height, ("top", "", "bottom"))
    return " ".join(word for word in (down, across) if word) or "centre"


def _third(share: float, words: tuple[str, str, str]) -> str:
    return words[min(2, max(0, int(share * 3)))]


def size_of(box: Box, width: int, height: int) -> str:
    """ "large" or "small" by the box's share of the image's area, "" for sizes between."""
    share = area(box) / (width * height)
    return "large" if share >= LARGE else "small" if share <= SMALL else ""


def settings_of(caption: str, notes: Iterable[Note]) -> list[tuple[str, str]]:
    """The setting that a caption names, as (preposition, phrase), for example [("on", "a blue background")].

    A thing that only the caption names is left out: the matcher has not checked it, so it may be invented. If the
    caption names a single thing and nothing else, that thing is the setting.
    """
    # pieces of the caption that start with an indefinite article and name no noted thing
    noted = {head_of(phrase) for note in notes for phrase in note.phrases}
    settings: list[tuple[str, str]] = []
    pieces = [piece for piece in _PIECES.split(caption) if piece.strip()]
    for piece in pieces:
        found = _INDEFINITE.match(piece.strip())
        if found and (found[1] or len(pieces) == 1) and not noted & set(re.findall(r"[^\W\d_]+", found[2].lower())):
            settings.append(((found[1] or "").lower(), found[2][0].lower() + found[2][1:]))
    return settings
