"""The notes for the composer's language model: a record's kept entries, merged, with positions and sizes in words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from models.boxes import area, inside, iou, min_overlap
from models.guards import QUOTED, printable, quotable
from strata.core import THINGS, Box, Evidence, Record, head_of

SAME_PLACE = 0.5  # IoU from which two boxes are one thing
INSIDE = 0.6  # share of a box inside another box from which it belongs to that box
# a caption is divided at commas, at "and" and before prepositions
_PIECES = re.compile(r"[,.;]\s*|\s+and\s+|\s+(?=(?:on|in|at|with|near|under|against)\s)")
_INDEFINITE = re.compile(r"^(?:(on|in|at|with|near|under|against)\s+)?((?:an?|some)\s+(?!.*\b(?:is|are)\b).+)$", re.I)
COLOURS = frozenset(
    "red orange yellow green blue purple pink brown black white grey gray beige gold golden silver turquoise".split()
)
_NUMBERS = frozenset("one two three four five six seven eight nine ten".split())
LARGE, SMALL = 0.2, 0.04  # shares of the image's area
_MARKS = (('"', '"'), ("“", "”"), ("«", "»"), ("「", "」"))  # around quotations


@dataclass(frozen=True)
class Note:
    """One thing at one position in the image.

    phrases: its names from all layers, the most trusted first, without those that contradict a more trusted one; none
    for text that stands on no thing. place: such as "top left"; size: "large", "small" or ""; texts: the lines of text
    on it, in reading order. sources: the entries that it was made from, such as "regions/0". box: in pixels.
    """

    phrases: tuple[str, ...]
    place: str
    size: str
    texts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    box: Box = (0, 0, 0, 0)


@dataclass
class _Thing:
    box: Box
    phrases: list[str]
    sources: list[str]
    lines: list[tuple[Box, str]] = field(default_factory=list)


def notes_of(record: Record, limit: int = 40) -> list[Note]:
    """The record's kept regions, objects and lines of text as notes, from left to right; at most `limit`."""
    things: list[_Thing] = []
    # merge entries at the same position into one thing, the most trusted first; of equals, objects before regions
    entries = [
        (layer, f"{layer.name}/{index}", entry)
        for layer in reversed(THINGS)
        for index, entry in enumerate(getattr(record, layer.name) or ())
        if entry.kept or entry.reason == "duplicate"  # a duplicate adds no phrase; it is a source of the thing
    ]
    for layer, source, entry in sorted(entries, key=lambda one: (one[2].kept, trust(one[2])), reverse=True):
        if phrase := layer.words_of(entry).strip().rstrip("."):
            _add_phrase(things, entry.box, phrase, source, entry.kept)
    # add the lines of text to the things that they stand on; of the others, those that belong together are one thing
    _add_lines(things, record)
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
            texts=tuple(in_reading_order(thing.lines)),
            sources=tuple(thing.sources),
            box=thing.box,
        )
        for thing in things
    ]


def trust(entry: Evidence) -> float:
    return entry.match if entry.match is not None else entry.score or 0.0


def _add_phrase(things: list[_Thing], box: Box, phrase: str, source: str, kept: bool) -> None:
    """Add a phrase to the thing at the same position, or as a new thing."""
    for thing in things:
        # same position, or a part of the other box with the same head noun ("a car", "a red car")
        named_alike = bool({head_of(phrase)} & {head_of(known) for known in thing.phrases})
        overlap = min_overlap(box, thing.box)
        if iou(box, thing.box) >= SAME_PLACE or (named_alike and overlap >= INSIDE):
            # the more trusted phrase came first: "a blue car" adds nothing to "a red car"
            if any(contradicts(phrase, known) for known in thing.phrases):
                return
            thing.sources.append(source)
            if phrase not in thing.phrases:
                thing.phrases.append(phrase)
            return
    if kept:
        things.append(_Thing(box, [phrase], [source]))


def contradicts(phrase: str, known: str) -> bool:
    """Whether two phrases with the same head noun give it different colours, or different numbers."""
    if head_of(phrase) != head_of(known):
        return False
    words, others = (set(re.findall(r"[^\W_]+", text.lower())) for text in (phrase, known))
    return any(words & kind and others & kind and not words & others & kind for kind in (COLOURS, _NUMBERS))


def quotation(lines: Sequence[str]) -> str:
    """Lines of text that were read, in double quotes; until `as_read` each is in the form of `quotable`."""
    return '"' + " ".join(map(quotable, lines)) + '"'


def as_read(record: Record) -> Record:
    """The record whose texts quote letter by letter what was read in the picture.

    While texts are made and checked, a line has the form of `quotable`, so that no model takes letters of the picture
    for marks of its own. Here that form becomes the line again, within quotation marks that the line does not have.
    Control characters and invisible ones stay away.
    """
    lines = [" ".join(printable(line.text).split()) for line in record.text or () if line.kept]
    forms = {form: line for line in lines if (form := quotable(line)) != line and form and form not in lines}
    if not forms:
        return record
    longest_first = sorted(forms, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, longest_first))})(?!\S)")

    def line_of(form: re.Match[str]) -> str:
        return forms[form[0]]

    def restored(text: str) -> str:
        return QUOTED.sub(lambda quote: _requoted(quote[0], pattern.sub(line_of, quote[0][1:-1])), text)

    # the variant `json` has no quotations: its strings are lines already
    variants = [one if one.name == "json" else _with_texts(one, restored) for one in record.variants or ()]
    return record.model_copy(
        update={
            "description": _with_texts(record.description, restored),
            "verification": _with_texts(record.verification, restored),
            "variants": variants if record.variants is not None else None,
        }
    )


def _requoted(quote: str, inner: str) -> str:
    """A quotation with other words, in the first marks that these do not have."""
    if inner == quote[1:-1]:
        return quote
    left, right = next(((a, b) for a, b in _MARKS if a not in inner and b not in inner), _MARKS[0])
    return f"{left}{inner}{right}"


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """The same model, list or text with all texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_with_texts(one, change) for one in value]
    if isinstance(value, BaseModel):
        given = {name: _with_texts(one, change) for name, one in value}
        return value.model_copy(update=given)
    return value


def _add_lines(things: list[_Thing], record: Record) -> None:
    """Add each line of text to the smallest thing that it stands on; lines below or beside each other are one thing."""
    loose: list[_Thing] = []
    for index, line in enumerate(record.text or ()):
        text = line.text.strip()
        if not text or not line.kept:
            continue
        carriers = [thing for thing in things if inside(line.box, thing.box) >= INSIDE]
        carriers = carriers or [block for block in loose if _adjoins(line.box, block)]
        if carriers:
            thing = min(carriers, key=lambda thing: area(thing.box))
        else:
            thing = _Thing(line.box, [], [])
            loose.append(thing)
        thing.lines.append((line.box, text))
        thing.sources.append(f"text/{index}")
        if not thing.phrases:
            thing.box = _around(thing.box, line.box)
    things += loose


def _adjoins(box: Box, block: _Thing) -> bool:
    """Whether a line lies within half its height of a line of the block, and overlaps it on the other axis."""
    height = box[3] - box[1]
    for other, _ in block.lines:
        across, down = max(box[0] - other[2], other[0] - box[2]), max(box[1] - other[3], other[1] - box[3])
        alike = 0.5 <= height / max(1e-6, other[3] - other[1]) <= 2
        if alike and max(across, down) <= height / 2 and min(across, down) < 0:
            return True
    return False


def _around(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def in_reading_order(lines: Sequence[tuple[Box, str]]) -> list[str]:
    """The texts of lines, row by row from the top, each row from the left; from the right in Arabic and Hebrew.

    Two lines are in one row if the centre of one lies between the top and the bottom of the other.
    """
    rows: list[list[tuple[Box, str]]] = []
    for box, text in sorted(lines, key=lambda line: line[0][1] + line[0][3]):
        centre = (box[1] + box[3]) / 2
        if rows and rows[-1][0][0][1] <= centre <= rows[-1][0][0][3]:
            rows[-1].append((box, text))
        else:
            rows.append([(box, text)])
    ordered: list[str] = []
    for row in rows:
        leftward = any(unicodedata.bidirectional(letter) in ("R", "AL") for _, text in row for letter in text)
        ordered += [text for _, text in sorted(row, key=lambda line: line[0][0], reverse=leftward)]
    return ordered


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
    caption names a single thing and nothing else, that thing is the setting. It is not "empty" if there are notes.
    """
    # pieces of the caption that start with an indefinite article and name no noted thing
    noted = {head_of(phrase) for note in notes for phrase in note.phrases}
    settings: list[tuple[str, str]] = []
    pieces = [piece for piece in _PIECES.split(caption) if piece.strip()]
    for piece in pieces:
        found = _INDEFINITE.match(piece.strip())
        if found and (found[1] or len(pieces) == 1) and not noted & set(re.findall(r"[^\W\d_]+", found[2].lower())):
            phrase = found[2][0].lower() + found[2][1:]
            settings.append(((found[1] or "").lower(), _filled(phrase) if noted else phrase))
    return settings


def _filled(phrase: str) -> str:
    """A setting in which there is something: "an empty white background" is a white one."""
    rest = phrase.removeprefix("an empty ")
    return phrase if rest == phrase else f"{'an' if rest[0] in 'aeiou' else 'a'} {rest}"
