"""Records of pictures that are known, for the tests of variants."""

from __future__ import annotations

from strata.core import Box, Caption, ImageReference, ObjectMask, Record, Region
from strata.core.layers import Mask, Tag, TextLine

SIZE = (640, 480)


def record(
    *regions: tuple[str, Box],
    key: str = "a",
    lines: tuple[tuple[str, Box], ...] = (),
    dropped: tuple[tuple[str, Box], ...] = (),
    tags: tuple[str, ...] = (),
    caption: str | None = None,
    alt_text: str | None = None,
) -> Record:
    """A picture of 640 by 480 pixels with these regions and lines; `dropped`: regions that were not sure."""
    found = [Region(box=box, phrase=phrase, score=0.9, match=0.9) for phrase, box in regions]
    found += [
        Region(box=box, phrase=phrase, score=0.9, match=0.2, kept=False, reason="low_match") for phrase, box in dropped
    ]
    return Record(
        key=key,
        image=ImageReference(uri="x", size=0),
        width=SIZE[0],
        height=SIZE[1],
        alt_text=alt_text,
        caption=Caption(text=caption, score=1.0) if caption else None,
        regions=found,
        objects=[],
        text=[TextLine(box=box, text=text, score=0.99) for text, box in lines],
        tags=[Tag(word=word, score=0.9) for word in tags],
    )


def an_object(phrase: str, box: Box, match: float = 0.8) -> ObjectMask:
    """An object with a mask of nothing."""
    return ObjectMask(box=box, mask=Mask(size=(SIZE[1], SIZE[0]), counts=""), area=1, phrase=phrase, match=match)


CAR, DOG, SIGN, DOG2 = (10, 200, 200, 400), (400, 220, 500, 330), (520, 10, 620, 100), (520, 220, 620, 310)
STREET = record(
    ("a red car", CAR),
    ("a dog", DOG),
    ("a sign", SIGN),
    ("a dog", DOG2),
    lines=(("OPEN", (530, 20, 610, 60)),),
    caption="a red car and a dog on a beach",
)
