"""Sentences about all, none and one of several things, and about what things are not."""

from __future__ import annotations

import pytest

from models.verifier.entities import facts_of
from models.verifier.verifying import Reading
from strata.core import Box, CheckedSentence, ImageReference, Record, Region
from strata.core.layers import TextLine

THINGS: dict[str, Box] = {
    "a red car": (20, 200, 150, 330),
    "a blue car": (400, 200, 560, 330),
    "a man in a suit": (250, 100, 300, 330),
    "a woman in a red dress": (320, 100, 360, 330),
    "five balloons": (200, 10, 300, 80),
    "a stop sign": (545, 20, 599, 90),
}
RECORD = Record(
    key="0",
    image=ImageReference(uri="a", size=1),
    width=600,
    height=400,
    regions=[Region(box=box, phrase=phrase, score=0.9) for phrase, box in THINGS.items()],
    text=[TextLine(box=(550, 30, 595, 80), text="STOP", score=0.9)],
)
FACTS = facts_of(RECORD, trust_caption=False)


def checked(sentence: str) -> CheckedSentence:
    return Reading(FACTS).sentence(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        'The word "STOP" can be read on the sign.',
        'The words "STOP" can be read.',
        'On the sign one can read "STOP".',
        "One car is red, and the other one is blue.",
        "One car is red while another is blue.",
        "One person is a man and the other is a woman.",
        "There is one car that is red.",
        "A single car is blue.",
        "The red car is left of the blue car.",
        "Both cars can be seen.",
        "None of the cars is green.",
        "The blue car is not red.",
        "Five balloons float above the street.",
    ],
)
def test_true_sentences_stay(sentence: str) -> None:
    found = checked(sentence)
    assert (found.kept, found.reason) == (sentence, None)


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("The blue car is left of the red car.", "wrong_relation"),
        ("Both cars are red.", "wrong_attribute"),
        ("All of the cars are red.", "wrong_attribute"),
        ("Each car is blue.", "wrong_attribute"),
        ("None of the cars is red.", "wrong_attribute"),
        ("Neither of the cars is blue.", "wrong_attribute"),
        ("The red car is not red.", "wrong_attribute"),
        ("The blue car isn't blue.", "wrong_attribute"),
        ("Hundreds of balloons float in the air.", "wrong_count"),
        ("Dozens of cars are parked.", "wrong_count"),
        ("Thousands of people fill the street.", "wrong_count"),
        ("A single balloon floats in the air.", "wrong_count"),
        ("There is one balloon.", "wrong_count"),
        ("There isn't a car.", "contradicts"),
        ("There aren't any cars.", "contradicts"),
    ],
)
def test_false_sentences_are_cut(sentence: str, reason: str) -> None:
    found = checked(sentence)
    assert found.kept != sentence and found.reason == reason
