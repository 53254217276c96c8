"""The entries of layers: captions, regions, objects, lines of text, tags, and a description's sentences.

Boxes are absolute pixels (x1, y1, x2, y2) in the EXIF-upright image. Scores are probabilities in 0..1. Masks are COCO
run-length encodings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Box = tuple[float, float, float, float]
Probability = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """Base class of the models in a record: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Evidence(Frozen):
    """One observation with its scores.

    score: the stage's own confidence; match: the matcher's probability that the phrase is true of the crop (null if
    no matcher scored it); kept: whether the composer gets it; reason: why it was dropped ("low_match",
    "low_second_match", "low_score", "low_evidence", "contradicted", "duplicate"; "too_large", "too_short" and
    "no_letters" of text; the guard that rejected its phrase, as "captioner_loop"; the stage that failed on its crop, as
    "matcher_failed"), null when kept.
    """

    score: Probability | None = None
    match: Probability | None = None
    kept: bool = True
    reason: str | None = None


class Caption(Evidence):
    """The caption of the whole image."""

    text: str


class Region(Evidence):
    """A box and the phrase for what is in it."""

    box: Box
    phrase: str


class Mask(Frozen):
    """COCO compressed run-length encoding; size is (height, width) in pixels."""

    size: tuple[int, int]
    counts: str


class ObjectMask(Evidence):
    """A mask, its box, its area in pixels, and the phrase for what it covers; null if no captioner described it."""

    box: Box
    mask: Mask
    area: int
    phrase: str | None = None


class TextLine(Evidence):
    """A line of text that the OCR recognized."""

    box: Box
    text: str


class Tag(Evidence):
    """A word for the whole image, out of the tagger's list."""

    word: str


class Sentence(Frozen):
    """A sentence of the description; evidence names entries of layers: "caption", "regions/0", "text/1"."""

    text: str
    evidence: list[str]


class Description(Frozen):
    """The composer's text, whole and sentence by sentence."""

    text: str
    sentences: list[Sentence]


def kept(entries: Iterable[Any] | None) -> list[Any]:
    """The entries of a layer that are kept; models, or rows as `to_pylist` gives them."""
    return [entry for entry in entries or () if (entry["kept"] if isinstance(entry, Mapping) else entry.kept)]


# words that begin the modifier after a noun; the head noun is before the first of them
_FIRST = re.compile(r"\b(?:with|of|on|in|at|that|wearing)\b")
_WORD = re.compile(r"[^\W\d_]+")


def head_of(phrase: str) -> str:
    """The head noun of a phrase, in lower case: "a red car on a road" -> "car".

    Takes the last word before the first preposition or relative pronoun.
    """
    words: list[str] = _WORD.findall(_FIRST.split(phrase, maxsplit=1)[0].lower())
    return words[-1] if words else phrase.lower()
