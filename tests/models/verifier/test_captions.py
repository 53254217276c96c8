"""Captions without what the other layers contradict."""

from __future__ import annotations

import pytest

from models.verifier.captions import without_false_claims
from strata.core.layers import Caption, Region
from strata.core.records import Record
from tests.described import described

RABBIT, STAR, CAP = (
    Region(box=box, phrase=phrase, score=0.9, match=0.99)
    for phrase, box in (
        ("a rabbit", (5.0, 5.0, 20.0, 20.0)),
        ("a star", (5.0, 30.0, 20.0, 45.0)),
        ("a red cap", (40.0, 5.0, 60.0, 20.0)),
    )
)


def record(caption: Caption | None, *regions: Region) -> Record:
    return described("k").model_copy(update={"caption": caption, "regions": list(regions), "objects": [], "text": []})


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # as written of samples/images/one.jpg and two.jpg: a thing that is not there, a relation that is false
        (
            "A rabbit, a star and a red backpack on a yellow background.",
            "A rabbit and a star on a yellow background.",
        ),
        ("A rabbit, a whale and a star on a pink background.", "A rabbit and a star on a pink background."),
        (
            "A rabbit, a star, a whale and a red backpack on a pink background.",
            "A rabbit and a star on a pink background.",
        ),
        ("A rabbit and a whale on a pink background.", "A rabbit on a pink background."),
        (
            "A rabbit and a star on a pink background. The star is above the rabbit.",
            "A rabbit and a star on a pink background.",
        ),
        (
            "A rabbit and a red cap on a pink background. The rabbit is to the left of the red cap.",
            "A rabbit and a red cap on a pink background. The rabbit is to the left of the red cap.",
        ),
    ],
)
def test_what_the_regions_contradict_is_cut(text: str, left: str) -> None:
    caption = without_false_claims(record(Caption(text=text, match=0.9), RABBIT, STAR, CAP)).caption
    assert caption and (caption.text, caption.kept, caption.match) == (left, True, 0.9)


def test_a_caption_of_which_nothing_is_left_is_dropped() -> None:
    caption = without_false_claims(record(Caption(text="A whale.", match=0.9), RABBIT, STAR)).caption
    assert caption and (caption.text, caption.kept, caption.reason) == ("A whale.", False, "contradicted")


def test_a_dropped_or_missing_caption_stays() -> None:
    dropped = Caption(text="A whale.", match=0.01, kept=False, reason="low_match")
    for caption in (None, dropped):
        assert without_false_claims(record(caption, RABBIT)).caption == caption
