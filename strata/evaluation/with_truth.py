"""The figures of one text against the truth of its image."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from strata.core import Box
from strata.evaluation.figures import Counts
from strata.evaluation.mentions import COLOURS, Mention, Reading, Relation, Vocabulary, read
from strata.evaluation.texts import Text
from strata.evaluation.truth import Thing, Truth

LEAST_IOU = 0.5  # from which a box counts as found: Everingham et al., "The PASCAL VOC Challenge", 2010
_AXES = ("left of", "right of", "above", "below")
Named = tuple[str, str | None]  # a thing's name and its colour, None: the text gives none


def against_truth(text: Text, truth: Truth, vocabulary: Vocabulary) -> Counts:
    """The figures of a text that need a truth. A figure that the truth or the text cannot have is left out."""
    found = read(text.text, vocabulary)
    quotes = [*found.quotes, *text.lines]
    counts = _read(quotes, truth) if "text" in truth.known and (text.quoted or not text.listed) else {}
    # a layer of lines of text names no things
    if text.quoted:
        return counts
    counts |= _named(found, truth) | _numbers(found, truth)
    # a list of entries tells no relations
    if not text.listed:
        return counts | _related(found, truth)
    return counts | (_boxes(text.entries, truth, vocabulary) if text.boxed else {})


# things


def named_by(mentions: Sequence[Mention]) -> set[Named]:
    """The distinct things that mentions name, with their colours."""
    return {(one.name, one.colour) for one in mentions}


def fits(name: str, colour: str | None, thing: Thing) -> bool:
    """Whether a thing can be meant by a name and a colour. A colour that is not known contradicts none."""
    if name != thing.name:
        return False
    colours = thing.attributes & COLOURS
    return colour is None or not colours or colour in colours


def _named(found: Reading, truth: Truth) -> Counts:
    judged = [thing for thing in truth.things if thing.judged]
    unjudged = (truth.allowed - {thing.name for thing in judged}) | {t.name for t in truth.things if not t.judged}
    mentions = [one for one in found.mentions if one.name not in unjudged]
    # things of one name and colour are one thing to a text that lists what is there
    present = {(thing.name, thing.attributes & COLOURS): thing for thing in judged}
    named = named_by(mentions)
    recalled = sum(any(fits(name, colour, thing) for name, colour in named) for thing in present.values())
    invented = sum(not any(fits(name, colour, thing) for thing in judged) for name, colour in named)
    absent = sum(not any(one.name == thing.name for thing in judged) for one in mentions)
    counts: Counts = {
        "objects_recalled": (recalled, len(present)),
        "objects_invented": (invented, len(named)),
        "chair_i": (absent, len(mentions)),
        "chair_s": (absent > 0, 1),
    }
    return counts | (_attributes(mentions, truth) if "attributes" in truth.known else {})


def _attributes(mentions: Sequence[Mention], truth: Truth) -> Counts:
    """The told colours of things that are there and whose colours are known. Other attributes exclude nothing."""
    right = told = 0
    for name, colour in named_by(mentions):
        colours = [thing.attributes & COLOURS for thing in truth.things if thing.name == name]
        if colour is not None and colours and all(colours):
            told += 1
            right += any(colour in known for known in colours)
    return {"attributes_right": (right, told)}


def _numbers(found: Reading, truth: Truth) -> Counts:
    """The told numbers of things that are there and can be counted."""
    if "counts" not in truth.known:
        return {}
    right = told = 0
    for mention in found.mentions:
        things = [thing for thing in truth.things if fits(mention.name, mention.colour, thing)]
        if mention.number is not None and things and not any(thing.crowd for thing in things):
            told += 1
            right += mention.number == len(things)
    return {"counts_right": (right, told)}


# relations


def _related(found: Reading, truth: Truth) -> Counts:
    judged = [holds(relation, truth) for relation in dict.fromkeys(found.relations)]
    told = [right for right in judged if right is not None]
    counts: Counts = {"relations_right": (sum(told), len(told))}
    if len({thing.name for thing in truth.things}) >= 2:
        counts["relations_told"] = (bool(told), 1)
    return counts | (_recalled_relations(found, truth) if truth.relations else {})


def _recalled_relations(found: Reading, truth: Truth) -> Counts:
    """The annotated relations that a text tells, each once by the names of its things."""
    wanted = {(truth.things[a].name, predicate, truth.things[b].name) for a, predicate, b in truth.relations}
    told = {(one.subject.name, one.predicate, one.object.name) for one in found.relations}
    return {"relations_recalled": (len(wanted & told), len(wanted))}


def holds(relation: Relation, truth: Truth) -> bool | None:
    """Whether any two things that a relation can mean have it; None if the truth cannot tell.

    Left, right, above and below follow from the centres of boxes; one of a thing that is not there is false.
    """
    one, predicate, other = relation
    pairs = [
        (a, b)
        for a, first in enumerate(truth.things)
        for b, second in enumerate(truth.things)
        if a != b and fits(one.name, one.colour, first) and fits(other.name, other.colour, second)
    ]
    if predicate in _AXES:
        boxes = [(truth.things[a].box, truth.things[b].box) for a, b in pairs]
        placed = [(first, second) for first, second in boxes if first and second]
        if len(placed) < len(boxes):
            return None
        return any(_stands(first, predicate, second) for first, second in placed)
    # annotated relations are seldom complete: those that are not annotated may be true, so that none can be judged
    return any((a, predicate, b) in truth.relations for a, b in pairs) if "relations" in truth.known else None


def _stands(one: Box, predicate: str, other: Box) -> bool:
    across = one[0] + one[2] - other[0] - other[2]
    down = one[1] + one[3] - other[1] - other[3]
    return {"left of": across < 0, "right of": across > 0, "above": down < 0, "below": down > 0}[predicate]


# words that can be read


def letters(text: str) -> str:
    """The letters and digits of a text, without case, accents, spaces and marks."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text).casefold()))


def _read(quotes: Sequence[str], truth: Truth) -> Counts:
    wanted = [letters(text) for text in truth.texts if letters(text)]
    read = dict.fromkeys(filter(None, map(letters, quotes)))  # in their order
    # a line with several words is read if a quotation has it, and a word of a line is right
    whole = "".join(read)
    words = {letters(word) for text in truth.texts for word in re.findall(r"\w+", text)}
    recalled = sum(line in read or (len(line) > 3 and line in whole) for line in wanted)
    right = sum(quote in words or any(quote in line for line in wanted) for quote in read)
    return {"text_recalled": (recalled, len(wanted)), "text_right": (right, len(read))}


# boxes


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    both = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return shared / both if both > 0 else 0.0


def _boxes(entries: Sequence[tuple[str, Box]], truth: Truth, vocabulary: Vocabulary) -> Counts:
    """Entries and things paired greedily, the pairs with the largest overlap first."""
    things = [thing for thing in truth.things if thing.box is not None and not thing.crowd]
    if len(things) < sum(not thing.crowd for thing in truth.things):
        return {}
    pairs = sorted(
        (
            (iou(box, thing.box), n, m)
            for n, (_, box) in enumerate(entries)
            for m, thing in enumerate(things)
            if thing.box
        ),
        reverse=True,
    )
    used: set[int] = set()
    found: dict[int, tuple[int, float]] = {}  # by the thing's index: the entry's, and their overlap
    for overlap, entry, thing in pairs:
        if overlap >= LEAST_IOU and entry not in used and thing not in found:
            used.add(entry)
            found[thing] = entry, overlap
    named = sum(_names(entries[entry][0], things[thing], vocabulary) for thing, (entry, _) in found.items())
    return {
        "boxes_found": (len(found), len(things)),
        "boxes_right": (len(found), len(entries)),
        "boxes_named": (named, len(found)),
        "box_iou": (sum(overlap for _, overlap in found.values()), len(found)),
    }


def _names(phrase: str, thing: Thing, vocabulary: Vocabulary) -> bool:
    return any(fits(one.name, one.colour, thing) for one in read(phrase, vocabulary).mentions)
