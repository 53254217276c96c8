from __future__ import annotations

import pytest

from models.evidence.filter import objects_matched, regions_matched
from models.evidence.support import describe, sentences_of, support
from strata.core.profiles import EvidenceSettings
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


def _things(*boxes: tuple[float, float, float, float], phrase: str = "a red car") -> list[ObjectMask]:
    mask = Mask(size=(1, 1), counts="0")
    return [ObjectMask(box=box, phrase=phrase, mask=mask, area=1, score=1.0) for box in boxes]


def test_monkey_drops_objects_by_boxes_in_fractions_with_one_added_to_their_sides() -> None:
    # a tenth of a picture of 1000 × 1000 each: side by side, one apart, two apart, in the opposite corner
    first, beside, near, apart, far = (
        (x, y, x + 100.0, y + 100.0) for x, y in ((0, 0), (100, 0), (200, 0), (300, 0), (900, 900))
    )
    record = make_record().model_copy(
        update={
            "width": 1000,
            "height": 1000,
            "objects": [*_things(first, beside, near, apart, far), *_things(first, phrase="a dog")],
        }
    )
    monkey = EvidenceSettings(duplicates="monkey")
    kept = [thing.kept for thing in objects_matched(record, None, monkey).objects or ()]
    assert kept == [True, False, False, True, True, True]
    # measured in pixels none of them is a duplicate
    assert all(thing.kept for thing in objects_matched(record, None, EvidenceSettings()).objects or ())


def test_monkey_compares_with_the_first_of_a_phrase_alone_and_leaves_regions() -> None:
    # the third is near the second, which was kept, and not near the first
    boxes = (0.0, 0.0, 100.0, 100.0), (600.0, 0.0, 700.0, 100.0), (620.0, 0.0, 720.0, 100.0)
    same = Region(box=boxes[0], phrase="a red car")
    record = make_record().model_copy(
        update={"width": 1000, "height": 1000, "objects": _things(*boxes), "regions": [same, same.model_copy()]}
    )
    monkey = EvidenceSettings(duplicates="monkey")
    record = objects_matched(regions_matched(record, None, monkey), None, monkey)
    assert [thing.kept for thing in record.objects or ()] == [True, True, True]
    assert [region.kept for region in record.regions or ()] == [True, True]
    usual = regions_matched(record, None, EvidenceSettings())
    assert [region.kept for region in usual.regions or ()] == [True, False]
