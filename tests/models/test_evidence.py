from __future__ import annotations

import pytest

from models.evidence.support import describe, sentences_of, support
from strata.core.records import Caption, ImageReference, Mask, ObjectMask, Record, Region, TextLine

BOX = (0.0, 0.0, 10.0, 10.0)


def make_record() -> Record:
    return Record(
        key="0",
        image=ImageReference(uri="a.jpg", size=1),
        width=100,
        height=100,
        alt_text="cute icons set",
        caption=Caption(text="A dog and a red car on a blue background."),
        regions=[Region(box=BOX, phrase="a red car"), Region(box=BOX, phrase="a top hat", kept=False)],
        objects=[
            ObjectMask(box=BOX, phrase="a blue car", mask=Mask(size=(1, 1), counts="0"), area=1),
            ObjectMask(box=BOX, phrase="a dog", mask=Mask(size=(1, 1), counts="0"), area=1),
        ],
        text=[TextLine(box=BOX, text="OPEN"), TextLine(box=BOX, text="EXIT", kept=False)],
    )


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("A dog", ["A dog"]),
        ("A dog runs. A cat sits!  Who sees it?", ["A dog runs.", "A cat sits!", "Who sees it?"]),
        ('A sign says "STOP. GO!" at the top. A dog.', ['A sign says "STOP. GO!" at the top.', "A dog."]),
        ('It says "OPEN." A dog sits.', ['It says "OPEN."', "A dog sits."]),
        ("St. Paul is 3.5 m tall. Mr. Smith waits.", ["St. Paul is 3.5 m tall.", "Mr. Smith waits."]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert sentences_of(text) == sentences


@pytest.mark.parametrize(
    ("sentence", "evidence"),
    [
        ("The red car is at the left.", ["caption", "regions/0"]),
        ("Two cars stand there.", ["caption", "regions/0", "objects/0"]),
        ("A blue car.", ["caption", "objects/0"]),
        ("Dogs are at the left.", ["caption", "objects/1"]),
        ('The word "Open" is at the top.', ["text/0"]),
        ("The shop has opened.", []),
        ("A top hat.", []),
        ('"EXIT" is at the top.', []),
        ("The set is small.", ["alt_text"]),
        ("An elephant.", []),
    ],
)
def test_support(sentence: str, evidence: list[str]) -> None:
    assert support(sentence, make_record()) == evidence


def test_describe_keeps_the_text() -> None:
    description = describe("A dog is here. An owl is there.", make_record())
    assert description.text == "A dog is here. An owl is there."
    assert [sentence.evidence for sentence in description.sentences] == [["caption", "objects/1"], []]


def test_describe_nothing() -> None:
    empty = Record(key="0", image=ImageReference(uri="a.jpg", size=1))
    assert describe("", empty).sentences == []
    assert support("A dog.", empty) == []
