"""What a text says: things, attributes, numbers, relations and quotations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samples.sprites import COLOURED, COLOURS, PHRASES
from samples.truth import things_named, vocabulary
from strata.evaluation.mentions import NUMBERS, Vocabulary, read

WORDS = Vocabulary.of(
    dict.fromkeys(("car", "dog", "cat", "hot dog", "cup", "key", "orange", "bus", "sheep", "sign", "knife"), ())
    | {"person": ("man", "woman"), "couch": ("sofa",)},
    ["wooden"],
)


def named(text: str) -> list[tuple[str, str | None, int | None]]:
    return [(one.name, one.colour, one.number) for one in read(text, WORDS).mentions]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red car.", [("car", "red", None)]),
        ("Two red cars and a dog.", [("car", "red", 2), ("dog", None, None)]),
        ("3 sheep stand there", [("sheep", None, 3)]),
        ("the knives", [("knife", None, None)]),
        ("Men sit on sofas.", [("person", None, None), ("couch", None, None)]),
        ("A hot dog.", [("hot dog", None, None)]),
        ("An orange cat.", [("cat", "orange", None)]),
        ("A car key.", [("key", None, None)]),
        ("The car is red and white, the dog black.", [("car", "red", None), ("dog", None, None)]),
        ("A gray wooden cup", [("cup", "grey", None)]),
        ("There is no dog. A cup without a cat.", [("cup", None, None)]),
        ("The carpet, a scar.", []),
        ('A sign that says "DOG CAT".', [("sign", None, None)]),
        ("A red and white bus on a road.", [("bus", "red", None)]),
        ("a red cup on a car", [("cup", "red", None), ("car", None, None)]),
    ],
)
def test_things(text: str, expected: list[tuple[str, str | None, int | None]]) -> None:
    assert named(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The car is to the left of the red dog.", [("car", "left of", "dog")]),
        ("A car stands directly above two dogs.", [("car", "above", "dog")]),
        ("A car, and a dog below the cup.", [("dog", "below", "cup")]),
        ("To the right of the car is a dog.", [("dog", "right of", "car")]),
        ('The sign that says "EXIT" is above the cat.', [("sign", "above", "cat")]),
        ("The car is red. Above the dog is a cat.", [("cat", "above", "dog")]),
        ("The car is here and the dog is there.", []),
        ("A car. Below the dog.", []),
        ("a man riding a sheep", [("person", "riding", "sheep")]),
        ("The car is in front of the dog", [("car", "in front of", "dog")]),
        ("a cup on top of a bus", [("cup", "on", "bus")]),
    ],
)
def test_relations(text: str, expected: list[tuple[str, str, str]]) -> None:
    found = read(text, WORDS).relations
    assert [(one.subject.name, one.predicate, one.object.name) for one in found] == expected


def test_quotations_are_read_with_any_marks() -> None:
    assert read('A "STOP" and “Go on!” and ‘no’, the dog’s.', WORDS).quotes == ("STOP", "Go on!", "no")


@settings(max_examples=50)
@given(
    st.text(max_size=80) | st.lists(st.sampled_from([*WORDS.forms, *NUMBERS, "is", ".", '"', "above"])).map(" ".join)
)
def test_any_text_can_be_read(text: str) -> None:
    found = read(text, WORDS)
    assert all(one.name in WORDS.forms.values() and one.start < one.end for one in found.mentions)
    assert all({one.subject, one.object} <= set(found.mentions) for one in found.relations)


@settings(max_examples=50)
@given(
    st.sampled_from(PHRASES), st.sampled_from(["There is {}.", "On the left, {} can be seen.", "I see {}, and more."])
)
def test_every_phrase_of_the_demo_world_is_read(phrase: str, sentence: str) -> None:
    _, noun = phrase.split(" ", 1)
    colour, _, rest = noun.partition(" ")
    coloured = colour in COLOURS and rest in {sprite.name for sprite in COLOURED}
    expected = {(rest, colour) if coloured else (noun, None)} - {("sign", None)}
    assert things_named(sentence.format(phrase)) == expected


def test_the_demo_world_has_no_ambiguous_names() -> None:
    assert len(vocabulary().forms) == len(set(vocabulary().forms.values()))
