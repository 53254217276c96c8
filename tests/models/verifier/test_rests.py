"""What remains of a sentence is a sentence: whole items, clauses and phrases are removed, or all of it."""

from __future__ import annotations

import itertools
import re

import pytest

from models.verifier.words.tokens import tokens_of
from tests.models.verifier.records import read, record
from tests.models.verifier.test_prose import planted, verified

KNOWN = record(
    ("a white cup", (150, 150, 200, 210)),
    ("a blue bowl with apples", (260, 140, 350, 210)),
    ("a silver refrigerator", (10, 10, 95, 300)),
    ("a yellow taxi", (20, 200, 220, 330)),
    ("a red double-decker bus", (240, 80, 420, 330)),
    ("a man riding a bicycle", (440, 180, 540, 360)),
    ("a boy in a blue shirt", (300, 120, 400, 360)),
    ("a girl", (430, 130, 520, 360)),
    ("a bench", (450, 220, 599, 330)),
    ("a brown horse", (150, 120, 380, 350)),
    ("two pedestrians", (225, 200, 245, 300)),
    ("a dog", (50, 200, 180, 330)),
    text=[("SURF SHOP", (480, 20, 590, 60))],
    size=(600, 400),
)
RESTS = {
    "The cup, which is black, is to the left of the bowl.": "The cup is to the left of the bowl.",
    "The image shows a yellow taxi and a blue double-decker bus.": "The image shows a yellow taxi.",
    "The boy holds an umbrella, while the girl stands next to the bench.": "The girl stands next to the bench.",
    "The boy sits on the horse, with two cats to his right.": "The boy sits on the horse.",
    "The street is lined with parked trucks.": None,
    "The boy wears a hat.": None,
}
TRUE = [
    "He is wearing a blue shirt.",
    "The boy, dressed in a blue shirt, sits on the horse.",
    "A cyclist is to the right of the bus.",
    "The horse is brown, and its rider wears red.",
    "To the right of the cup is a bowl.",
    "The fridge is silver.",
    "A yellow cab is near the left edge.",
    'A sign reads "SURF SHOP".',
    "The boy is trying to catch the dog.",
    "Overall, the image captures a joyful moment between children and their pet.",
    "A fridge stands on the left side of the room.",
]
FALSE = [
    "The boy is wearing a red shirt.",
    "A cyclist is to the left of the bus.",
    "To the left of the cup is a bowl.",
    "The fridge is black.",
    "A green cab is near the left edge.",
    "A dozen pedestrians are walking.",
    "A fridge stands on the right side of the room.",
    'A sign reads "SURF CLUB".',
    "A police officer directs the traffic.",
]


@pytest.mark.parametrize("sentence", RESTS)
def test_the_rest_is_a_sentence(sentence: str) -> None:
    assert read(sentence, KNOWN).kept == RESTS[sentence]


@pytest.mark.parametrize("sentence", TRUE)
def test_what_names_of_entries_and_roles_say_stays(sentence: str) -> None:
    found = read(sentence, KNOWN)
    assert found.kept == sentence, found.claims


@pytest.mark.parametrize("sentence", FALSE)
def test_false_words_of_modifiers_inverted_orders_and_synonyms_are_cut(sentence: str) -> None:
    assert read(sentence, KNOWN).kept != sentence


def test_rests_of_prose_have_no_torn_ends() -> None:
    rests = [
        one
        for _, picture, text, _ in planted()
        for one in verified(picture, text).sentences
        if one.kept and one.kept != one.text
    ]
    assert len(rests) > 20
    for one in rests:
        assert one.kept is not None
        assert not re.search(r",\s*,|\b(?:is|are|with|of|the|an?)[,.]", one.kept), one
        new = _pairs(one.kept) - _pairs(one.text)
        # no pair of words that the cut has made is a comma and a verb, or a verb and what was another one's subject
        assert not any(a == "," and b in ("is", "are", "was", "were") for a, b in new), one


def _pairs(text: str) -> set[tuple[str, str]]:
    words = [token.lower for token in tokens_of(text)]
    return set(itertools.pairwise(words))
