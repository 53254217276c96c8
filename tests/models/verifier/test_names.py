"""What an entry's own name says is never cut, whatever its words are elsewhere."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.models.verifier.records import read, record

COCO = tomllib.loads(Path("models/kinds/coco.toml").read_text(encoding="utf-8"))
COMPOUNDS = (
    "street sign, park bench, life jacket, coffee mug, lamp post, face mask, police officer, license plate, palm tree, "
    "Christmas tree, double-decker bus, bath towel, bicycle wheel, jump rope, bus stop, ice cream cone, fire truck, "
    "train station, hot air balloon, swimming pool, watering can, guide dog, fish tank, light bulb, sail boat"
).split(", ")
OF = (
    "bowl of soup, slice of pizza, line of cars, bunch of bananas, glass of water, basket of fruit, plate of food, "
    "pair of shoes, statue of a man, stack of books, row of houses, crowd of people"
).split(", ")


def names() -> list[str]:
    classes = next(value for value in COCO.values() if isinstance(value, list))
    return [one["word"] for one in classes] + COMPOUNDS + OF


def test_coco_has_eighty_names() -> None:
    assert len(names()) == 80 + len(COMPOUNDS) + len(OF)


@pytest.mark.parametrize("name", names())
def test_sentences_with_the_name_of_an_entry_stay_whole(name: str) -> None:
    plural = name in ("scissors", "skis")
    verb, article = ("are", "") if plural else ("is", "an " if name[0] in "aeiou" else "a ")
    known = record((article + name, (50, 50, 150, 150)), ("a table", (0, 100, 200, 200)))
    for sentence in (
        f"The {name} {verb} at the centre of the picture.",
        f"There {verb} {article}{name}.",
        f"{'' if plural else 'A '}large {name} {verb} on the table.",
        f"In the middle, the {name} can be seen.",
        f"Nothing is near the {name}.",
    ):
        found = read(sentence, known)
        assert found.kept == sentence, found.claims


@pytest.mark.parametrize(
    "sentence",
    [
        "The bus stops at the light.",
        "A bus stops here.",
        "Two bus stops are here.",
        "Traffic lights hang above the bus stop.",
    ],
)
def test_a_verb_after_a_noun_is_no_compound(sentence: str) -> None:
    known = record(("a bus", (50, 50, 150, 150)), ("two bus stops", (0, 0, 40, 40)), ("traffic lights", (0, 0, 30, 20)))
    assert read(sentence, known).kept == sentence


def test_another_thing_of_the_same_last_word_is_cut() -> None:
    known = record(("a stop sign", (50, 50, 150, 150)), ("a bowl of soup", (0, 0, 50, 50)))
    assert read("A tennis racket is at the centre.", known).kept is None
    assert read("There is a bowl of cherries.", known).reason == "unsupported_object"
    assert read("There are three stop signs.", known).reason == "wrong_count"
