"""Records with chosen layers, for tests of the verifier."""

from __future__ import annotations

from collections.abc import Sequence

from models.verifier.entities import facts_of
from models.verifier.verifying import Reading
from strata.core import Box, Caption, CheckedSentence, ImageReference, Record, Region
from strata.core.layers import TextLine

Placed = tuple[str, Box]


def record(
    *things: Placed, text: Sequence[Placed] = (), caption: str = "", size: tuple[int, int] = (200, 200)
) -> Record:
    """A record with regions, lines of text and a caption."""
    return Record(
        key="0",
        image=ImageReference(uri="a", size=1),
        width=size[0],
        height=size[1],
        caption=Caption(text=caption) if caption else None,
        regions=[Region(box=box, phrase=phrase, score=0.9) for phrase, box in things],
        text=[TextLine(box=box, text=line, score=0.9) for line, box in text],
    )


def read(sentence: str, one: Record, strict: bool = False) -> CheckedSentence:
    """The verification of one sentence."""
    (found,) = Reading(facts_of(one), strict).read(sentence).sentences
    return found
