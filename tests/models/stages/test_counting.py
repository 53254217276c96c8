"""The composer of `everyday`: counts and places by a fixed grammar, which says nothing that the layers do not say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.boxes import area, inside
from models.building import build_stage
from models.evidence.support import describe
from models.guards import Asked
from models.guards.guard import guarded
from models.items import ComposeRequest
from models.kinds.coco import KINDS_BY_ID, kind_of
from models.kinds.counting import counts_and_places
from models.kinds.nouns import is_plural, plural, several, with_article
from models.notes import place_of
from models.weights.inventory import PROFILES
from models.writers import ComposerStage, write
from strata.core.layers import NOTHING_FOUND, Tag
from strata.core.profiles import load_profile
from strata.core.records import ImageReference, Record, Region, TextLine

LEFT, MIDDLE, RIGHT = (5.0, 40.0, 25.0, 60.0), (42.0, 40.0, 62.0, 60.0), (75.0, 40.0, 95.0, 60.0)
TABLE = (2.0, 30.0, 98.0, 80.0)
LOW: Any = {"kept": False, "reason": "low_score"}


def region(phrase: str, box: tuple[float, ...] = MIDDLE, **fields: object) -> Region:
    return Region.model_validate({"box": box, "phrase": phrase, "score": 0.9} | fields)


def record(*regions: Region, text: tuple[str, ...] = (), tags: tuple[str, ...] = ()) -> Record:
    return Record(
        key="0",
        image=ImageReference(uri="a.jpg", size=1),
        width=100,
        height=100,
        regions=list(regions),
        text=[TextLine(box=LEFT, text=line) for line in text],
        tags=[Tag(word=word, score=0.9) for word in tags],
    )


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (record(), NOTHING_FOUND),
        (record(region("a cup", **LOW)), NOTHING_FOUND),
        (record(region("a cup")), "A cup is at the centre of the picture."),
        (record(region("a cat", (0, 0, 90, 90))), "A cat takes up most of the picture."),
        (record(region("skis", LEFT)), "Skis are at the left of the picture."),
        (record(region("broccoli", LEFT)), "Broccoli is at the left of the picture."),
        (record(region("a mouse"), region("a mouse")), "Two mice are at the centre of the picture."),
        (
            record(region("a person", LEFT), region("a person", RIGHT)),
            "Two people are in the picture, one at the left and one at the right.",
        ),
        (
            record(region("a bus", LEFT), region("a bus"), region("a bus", RIGHT)),
            "Three buses are in the picture.",
        ),
        # a third person is in doubt
        (
            record(region("a person", LEFT), region("a person", RIGHT), region("a person", **LOW)),
            "At least two people are in the picture.",
        ),
        # a duplicate is nobody else, and a car in doubt says nothing about people
        (
            record(
                region("a person", LEFT),
                region("a person", RIGHT),
                region("a person", kept=False, reason="duplicate"),
                region("a car", **LOW),
            ),
            "Two people are in the picture, one at the left and one at the right.",
        ),
        (record(*[region("a boat", (x, 0, x + 9, 9)) for x in range(0, 90, 18)]), "Several boats are in the picture."),
        (record(region("a cup"), region("a dining table", TABLE)), "A cup is on a dining table."),
        (
            record(region("a cup"), region("a cup", LEFT), region("a bowl", RIGHT), region("a dining table", TABLE)),
            "Two cups and a bowl are on a dining table.",
        ),
        # half of it lies beside the table; a dog does not stand on tables; of two tables nobody knows which
        (
            record(region("a cup", (60, 60, 70, 90)), region("a dining table", TABLE)),
            "A dining table is at the centre of the picture. A cup is at the bottom of the picture.",
        ),
        (
            record(region("a dog"), region("a dining table", TABLE)),
            "A dining table is at the centre of the picture. A dog is at the centre of the picture.",
        ),
        (
            record(region("a cup"), region("a dining table", TABLE), region("a dining table", TABLE)),
            "Two dining tables are at the centre of the picture. A cup is at the centre of the picture.",
        ),
        (record(text=('EXIT "A"', "", "27")), 'The picture has the text "EXIT \'A\'" and "27".'),
        (record(tags=("ice bear", "hammer")), "As a whole, the picture looks like an ice bear."),
        (
            record(region("a red car at a kerb"), region("a red car at a kerb", LEFT)),
            "Two red cars at a kerb are in the picture, one at the centre and one at the left.",
        ),
    ],
)
def test_description(told: Record, expected: str) -> None:
    assert counts_and_places(told, 12) == expected


def stage() -> ComposerStage:
    made = build_stage("composer", load_profile("everyday", PROFILES).stages["composer"])
    made.load()
    return made  # type: ignore[return-value]


def test_each_sentence_names_its_evidence() -> None:
    told = record(
        *[region("a person", LEFT), region("a person", RIGHT), region("a cup"), region("a dining table", TABLE)],
        text=("EXIT",),
        tags=("hammer",),
    )
    (text,) = write(stage(), [ComposeRequest(told)])
    assert isinstance(text, str)
    sentences = {sentence.text: sentence.evidence for sentence in describe(text, told).sentences}
    assert sentences == {
        "A cup is on a dining table.": ["regions/2", "regions/3"],
        "Two people are in the picture, one at the left and one at the right.": ["regions/0", "regions/1"],
        'The picture has the text "EXIT".': ["text/0"],
        "As a whole, the picture looks like a hammer.": ["tags/0"],
    }


def test_probe_and_a_record_without_layers() -> None:
    made = stage()
    made.probe()
    bare = Record(key="0", image=ImageReference(uri="a.jpg", size=1))
    assert made.run([ComposeRequest(bare)]) == [NOTHING_FOUND]
    assert describe(NOTHING_FOUND, bare).sentences[0].evidence == []


def test_limit() -> None:
    told = record(region("a cat", (0, 0, 60, 60)), region("a cup"), region("a dog", LEFT), text=("A", "B", "C"))
    assert counts_and_places(told, 1) == 'A cat is at the top left of the picture. The picture has the text "A".'


# whatever the layers are: every count and every place of the text is one of theirs

KINDS = [kind.phrase for kind in KINDS_BY_ID.values()]
SIDES = st.integers(0, 9).map(lambda tenth: tenth * 10.0)
BOXES = st.tuples(SIDES, SIDES, st.integers(1, 9), st.integers(1, 9)).map(
    lambda box: (box[0], box[1], min(100.0, box[0] + 10 * box[2]), min(100.0, box[1] + 10 * box[3]))
)
REGIONS = st.lists(
    st.builds(
        lambda phrase, box, kept: region(phrase, box, **({} if kept else LOW)),
        st.sampled_from(["a person", "a cup", "a dining table", "skis", "a knife"]) | st.sampled_from(KINDS),
        BOXES,
        st.booleans() | st.just(True),
    ),
    max_size=9,
)
NUMBERS = {"two": 2, "three": 3, "four": 4}


def named(text: str) -> tuple[str, int | None, int]:
    """The kind, the number if one is told, and the least number of a subject such as "at least two people"."""
    for number, value in NUMBERS.items():
        for prefix, exact in ((f"at least {number} ", None), (f"{number} ", value)):
            if text.startswith(prefix):
                return singular(text.removeprefix(prefix)), exact, value
    if text.startswith("several "):
        return singular(text.removeprefix("several ")), None, 3
    kind = kind_of(text)
    assert kind is not None and kind.phrase == text, text
    return kind.word, None if is_plural(text) or text == "broccoli" else 1, 1


def singular(text: str) -> str:
    found = [kind.word for kind in KINDS_BY_ID.values() if several("two", kind.phrase) == f"two {text}"]
    assert len(found) == 1, text
    return found[0]


def check_sentence(sentence: str, told: Record) -> None:
    body = sentence[0].lower() + sentence[1:-1]
    match = re.fullmatch(
        r"(.+?) (?:is|are|takes|take) (on|at the|in the picture|up most of the picture)\b,? ?(.*)", body
    )
    assert match is not None, sentence
    subjects, relation, rest = match.groups()
    kept = [one for one in told.regions or () if one.kept]
    boxes_of = {word: [one.box for one in kept if kind_of(one.phrase).word == word] for word in map(kind_word, kept)}  # type: ignore[union-attr]
    for subject in re.split(r", | and ", subjects):
        word, exact, least = named(subject)
        assert len(boxes_of[word]) >= least
        if exact is not None and exact > 1:
            assert len(boxes_of[word]) == exact
            assert not any(one.reason == "low_score" and kind_word(one) == word for one in told.regions or ())
        if relation == "on":
            (table,) = boxes_of["dining table"]
            assert rest == "a dining table"
            assert all(inside(box, table) >= 0.9 for box in boxes_of[word])
        elif relation == "at the":
            place = rest.removesuffix(" of the picture")
            assert {place_of(box, 100, 100) for box in boxes_of[word]} == {place}
        elif relation == "up most of the picture":
            assert [area(box) >= 5000 for box in boxes_of[word]] == [True]
        elif rest:
            ends = sorted(re.findall(r"one at the (\w+(?: \w+)?)(?= and|$)", rest))
            assert ends == sorted(place_of(box, 100, 100) for box in boxes_of[word])


def kind_word(one: Region) -> str:
    kind = kind_of(one.phrase)
    assert kind is not None
    return kind.word


@settings(max_examples=60)
@given(REGIONS)
def test_nothing_is_said_that_the_layers_do_not_say(regions: list[Region]) -> None:
    told = record(*regions)
    text = counts_and_places(told, 99)
    kinds = {kind_word(one) for one in regions if one.kept}
    if not kinds:
        assert text == NOTHING_FOUND
        return
    description = describe(text, told)
    for sentence in description.sentences:
        check_sentence(sentence.text, told)
    # every kept region supports a sentence, and no guard rejects the text
    evidence = {name for sentence in description.sentences for name in sentence.evidence}
    assert evidence == {f"regions/{i}" for i, one in enumerate(regions) if one.kept}
    assert guarded(text, Asked()).rejected is None
    assert guarded(text, Asked()).text == text


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("person", "people"),
        ("bus", "buses"),
        ("knife", "knives"),
        ("sheep", "sheep"),
        ("couch", "couches"),
        ("toy", "toys"),
        ("berry", "berries"),
        ("box", "boxes"),
        ("mouse", "mice"),
        ("glass", "glasses"),
    ],
)
def test_plural(noun: str, many: str) -> None:
    assert plural(noun) == many


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [
        ("hammer", "a hammer"),
        ("ice bear", "an ice bear"),
        ("unicycle", "a unicycle"),
        ("hourglass", "an hourglass"),
        ("umbrella", "an umbrella"),
        ("sunglasses", "sunglasses"),
        ("Egyptian cat", "an Egyptian cat"),
        ("European fire salamander", "a European fire salamander"),
        ("glass", "a glass"),
    ],
)
def test_article(noun: str, phrase: str) -> None:
    assert with_article(noun) == phrase


def test_more_than_one() -> None:
    assert several("two", "a man in a black shirt") == "two men in a black shirt"
    assert several("three", "a wine glass") == "three wine glasses"
    assert several("several", "skis") == "skis"
