"""A second opinion on claims: a matcher, or a vision-language model's P("Yes"), on the crops of their evidence.

It is asked about things and attributes that the rules have not found false: whether the crop of an entry shows the
phrase. A claim without an entry is asked of the whole image, and so is a sentence none of whose claims has an entry.
Its items are `CropQuestion`s, which `pairs_of` makes pairs of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from models.boxes import iou
from models.crops import crop_box, crop_segment, decode_mask
from models.items import CropQuestion, Pair, Segment
from models.kinds.nouns import with_article
from models.verifier.attributes import group_of
from models.verifier.checks.verdicts import Verdict
from models.verifier.claims.nouns import is_visible
from models.verifier.claims.statements import Statement
from strata.core import THINGS, Box, ObjectMask, Record, Region

MOST_CROPS = 4  # of the things that a claim may mean; the best answer counts
MOST_PAIRS = 60  # of a text; later claims are judged by the rules alone
LONGEST = 300  # characters of a phrase or a sentence
SAME_PLACE = 0.8  # IoU from which two boxes of a claim's entries are one crop
_BOXED = tuple(f"{layer.name}/" for layer in THINGS)


def question_of(statement: Statement, verdict: Verdict) -> CropQuestion | None:
    """What is asked of a claim; None if nothing is: it is false by the rules, of another kind, or not visible."""
    phrase = statement.phrase
    if statement.kind not in ("thing", "attribute") or verdict.supported is False or phrase is None:
        return None
    # a part of a thing ("its tail") is too small for the whole image, and has no crop
    if phrase.negated or phrase.owned or not is_visible(phrase.noun):
        return None
    boxed = tuple(name for name in verdict.evidence if name.startswith(_BOXED))
    return CropQuestion(boxed, _worded(statement)[:LONGEST])


def _worded(statement: Statement) -> str:
    """A claim as a phrase about one thing: of "two red cars" "a car" for the thing, "a red car" for the attribute."""
    phrase = statement.phrase
    assert phrase is not None
    if statement.kind == "attribute":
        return with_article(f"{statement.value} {phrase.noun}")
    # words that are claims of their own are asked with them
    own = [word for word in phrase.attributes if group_of(word) is None]
    return with_article(" ".join([*own, phrase.noun]))


def with_opinion(verdict: Verdict, score: float | None, least: float) -> Verdict:
    """The verdict with a second opinion: below the threshold "low_match"; else what nobody has judged is supported."""
    if score is None or verdict.supported is False:
        return verdict
    if score < least:
        return Verdict(False, "low_match", verdict.evidence, score)
    return Verdict(True, None, verdict.evidence, score)


def pairs_of(questions: Sequence[CropQuestion], record: Record, image: Image.Image) -> list[tuple[CropQuestion, Pair]]:
    """The pairs of a text's questions, at most MOST_PAIRS. Questions about one crop have the same image."""
    crops: dict[Box, Image.Image] = {}
    found: list[tuple[CropQuestion, Pair]] = []
    for question in questions:
        places: list[tuple[Box, str]] = []
        for name in question.entries:
            box = _entry(name, record).box
            if not any(iou(box, other) >= SAME_PLACE for other, _ in places):
                places.append((box, name))
        # the whole image where no entry has a box
        if not places:
            found.append((question, Pair(image, question.phrase)))
        for box, name in places[:MOST_CROPS]:
            if box not in crops:
                crops[box] = _crop(name, record, image)
            found.append((question, Pair(crops[box], question.phrase)))
    return found[:MOST_PAIRS]


def best_scores(asked: Sequence[tuple[CropQuestion, object]]) -> Mapping[CropQuestion, float]:
    """The best score of each question; what could not be judged, or has failed, has none.

    A question of which only some crops have scores has none either: the best crop may be among the others.
    """
    answers: dict[CropQuestion, list[object]] = {}
    for question, score in asked:
        answers.setdefault(question, []).append(score)
    found: dict[CropQuestion, float] = {}
    for question, scores in answers.items():
        numbers = [min(1.0, max(0.0, float(one))) for one in scores if isinstance(one, int | float)]
        if len(numbers) == len(scores):
            found[question] = max(numbers)
    return found


def _entry(name: str, record: Record) -> Region | ObjectMask:
    """The entry of a name such as "regions/0"."""
    layer, _, number = name.partition("/")
    entry: Region | ObjectMask = getattr(record, layer)[int(number)]
    return entry


def _crop(name: str, record: Record, image: Image.Image) -> Image.Image:
    """The crop of an entry as the vision group makes it: of an object its mask on white, else its box."""
    entry = _entry(name, record)
    # the image may be smaller than the record's
    across, down = image.width / (record.width or image.width), image.height / (record.height or image.height)
    if isinstance(entry, ObjectMask) and tuple(entry.mask.size) == (image.height, image.width):
        return crop_segment(image, Segment(decode_mask(entry.mask), entry.box, 1.0))
    x1, y1, x2, y2 = entry.box
    return crop_box(image, (x1 * across, y1 * down, x2 * across, y2 * down))
