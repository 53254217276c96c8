"""What words refer to: "a green one", "the one on the right", "the man's suit", lists, orders and bounds."""

from __future__ import annotations

import pytest

from models.verifier.entities import facts_of
from models.verifier.structure import structure_of
from models.verifier.verifying import Reading
from tests.models.verifier.records import read, record

FRUIT = record(
    ("a red apple", (40, 160, 140, 260)),
    ("a green apple", (170, 160, 270, 260)),
    ("a red apple", (300, 160, 400, 260)),
    ("a yellow apple", (440, 160, 540, 260)),
    ("a slice of cake", (200, 300, 300, 390)),
    caption="Four apples and a slice of cake.",
    size=(600, 400),
)
PEOPLE = record(
    ("a man in a black suit", (60, 100, 160, 390)),
    ("a woman in a red dress", (240, 100, 340, 390)),
    ("a cyclist", (430, 120, 560, 390)),
    ("two cushions", (200, 10, 300, 60)),
    caption="A street with three people.",
    text=[("TAXI", (20, 20, 80, 50))],
    size=(600, 400),
)
FARM = record(
    ("a brown cow", (60, 100, 160, 200)),
    ("a white cow", (200, 100, 300, 200)),
    ("a chicken", (330, 150, 370, 200)),
    ("a chicken", (400, 150, 440, 200)),
    ("a chicken", (500, 150, 540, 200)),
    size=(600, 400),
)
TRUE = {
    "Beside the red apples lie a green one and a yellow one.": FRUIT,
    "There are four apples: two red ones, a green one and a yellow one.": FRUIT,
    "The apple on the far right is yellow.": FRUIT,
    "The green apple lies between two red ones.": FRUIT,
    "A piece of cake lies below the apples.": FRUIT,
    "The man's suit is black.": PEOPLE,
    "The woman wears a red dress.": PEOPLE,
    "From left to right, one sees a man in a suit, a woman in a dress and a cyclist.": PEOPLE,
    "The woman stands between the man and the cyclist.": PEOPLE,
    "Apart from the man, the woman and the cyclist, nobody is there.": PEOPLE,
    'The sign bears the word "TAXI".': PEOPLE,
    "Two pillows are at the top.": PEOPLE,
    "Five animals can be seen: two cows and three chickens.": FARM,
    "At least three animals are visible.": FARM,
    "More than two chickens are in the picture.": FARM,
    "At most six animals are in the picture.": FARM,
    "The cow's color is white.": FARM,
}
FALSE = {
    "Beside the red apples lie a purple one and a yellow one.": FRUIT,
    "The apple on the far right is green.": FRUIT,
    "The yellow apple lies between two red ones.": FRUIT,
    "Two pieces of cake lie below the apples.": FRUIT,
    "The man's suit is red.": PEOPLE,
    "The man wears a red dress.": PEOPLE,
    "From left to right, one sees a woman in a dress, a man in a suit and a cyclist.": PEOPLE,
    "The man stands between the woman and the cyclist.": PEOPLE,
    "The street is empty.": PEOPLE,
    "No one is there.": PEOPLE,
    "Seven animals can be seen: four cows and three chickens.": FARM,
    "At least eight animals are visible.": FARM,
    "More than ten chickens are in the picture.": FARM,
    "At most three animals are in the picture.": FARM,
    "The cow's color is green.": FARM,
}


@pytest.mark.parametrize("sentence", TRUE)
def test_a_true_sentence_stays(sentence: str) -> None:
    assert read(sentence, TRUE[sentence]).kept == sentence


@pytest.mark.parametrize("sentence", FALSE)
def test_a_false_sentence_is_cut(sentence: str) -> None:
    assert read(sentence, FALSE[sentence]).kept != sentence


@pytest.mark.parametrize(
    ("sentence", "nouns"),
    [
        ("A red kite and a blue one dance.", ["kite", "kite"]),
        ("Four apples lie on a table: two red ones.", ["apple", "table", "apple"]),
        ("The boy has a red bike, the girl has a blue one.", ["boy", "bike", "girl", "bike"]),
        ("The black one is a poodle.", ["poodle", "poodle"]),
        ("A piece of cake and a pair of cattle stand there.", ["cake", "cattle"]),
    ],
)
def test_nouns_that_are_left_out_are_found(sentence: str, nouns: list[str]) -> None:
    assert [phrase.noun for phrase in structure_of(sentence).phrases] == nouns


def test_one_of_an_earlier_sentence() -> None:
    reading = Reading(facts_of(FRUIT))
    first, second = reading.read("Two red apples lie there. The one on the right is green.").sentences
    assert first.kept and second.kept is None


def test_a_verb_agrees_with_the_subject_that_remains() -> None:
    assert read("A man and three dogs sit on a bench.", PEOPLE).kept in (None, "A man sits.")
    assert read("A man and three dogs sit on the street.", PEOPLE).kept == "A man sits on the street."
