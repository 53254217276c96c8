"""Figures against a truth, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from strata.core.layers import ObjectMask, Region, TextLine
from strata.core.records import Caption, Description, ImageReference, Mask, Record
from strata.evaluation.figures import FIGURES
from strata.evaluation.mentions import Vocabulary
from strata.evaluation.texts import UNCHECKED, Text, texts_of
from strata.evaluation.truth import Thing, Truth
from strata.evaluation.with_truth import against_truth, iou

WORDS = Vocabulary.of(dict.fromkeys(("car", "dog", "cup", "hat", "lamp", "sign"), ()))
TRUTH = Truth(
    things=(
        Thing("car", (0, 0, 10, 10), frozenset({"red"})),
        Thing("car", (20, 0, 30, 10), frozenset({"blue"})),
        Thing("dog", (0, 20, 10, 30)),
        Thing("sign", (40, 40, 50, 50), judged=False),
    ),
    texts=("EXIT", "Main St."),
    known=frozenset({"attributes", "counts", "text"}),
    allowed=frozenset({"sign"}),
)


def of(text: str, truth: Truth = TRUTH) -> dict[str, Any]:
    return dict(against_truth(Text("description", text), truth, WORDS))


def test_things_are_recalled_and_invented_by_name_and_colour() -> None:
    found = of("A red car and a green car. A hat, another hat, a sign.")
    assert found["objects_recalled"] == (1, 3)
    assert found["objects_invented"] == (2, 3)  # the green car and the hat; the sign need not be there
    assert found["chair_i"] == (2, 4)  # CHAIR counts mentions, and no colours
    assert found["chair_s"] == (True, 1)
    assert found["attributes_right"] == (1, 2)


def test_a_name_without_a_colour_means_every_thing_of_it() -> None:
    found = of("Cars and a brown dog.")
    assert found["objects_recalled"] == (3, 3) and found["objects_invented"] == (0, 2)
    assert found["attributes_right"] == (0, 0)  # nobody knows the dog's colour


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Two cars.", (1, 1)), ("Three cars", (0, 1)), ("One red car, two dogs.", (1, 2)), ("Five hats", (0, 0))],
)
def test_numbers_are_judged_of_things_that_are_there(text: str, expected: tuple[int, int]) -> None:
    assert of(text)["counts_right"] == expected


def test_things_of_a_crowd_cannot_be_counted() -> None:
    crowd = TRUTH._replace(things=(*TRUTH.things, Thing("dog", None, crowd=True)))
    assert of("Two dogs and two cars", crowd)["counts_right"] == (1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The red car is to the left of the blue car.", (1, 1)),
        ("The blue car is to the left of the red car.", (0, 1)),
        ("A car is above the dog. The dog is below the car.", (2, 2)),
        ("The lamp is above the dog.", (0, 1)),
        ("The dog is near the car.", (0, 0)),  # nobody knows what is near
        ("The dog is above the sign.", (1, 1)),
    ],
)
def test_relations_follow_from_boxes(text: str, expected: tuple[int, int]) -> None:
    assert of(text)["relations_right"] == expected
    assert of(text)["relations_told"] == (expected[1] > 0, 1)


def test_annotated_relations_count_beside_boxes() -> None:
    truth = TRUTH._replace(relations=((2, "near", 0), (2, "behind", 1)))
    found = of("The dog is near the red car.", truth)
    assert found["relations_recalled"] == (1, 2)
    assert found["relations_right"] == (0, 0)  # what is not annotated may be true: none is judged
    complete = truth._replace(known=frozenset({"relations"}))
    assert of("The dog is near the red car.", complete)["relations_right"] == (1, 1)
    assert of("The dog is near the blue car.", complete)["relations_right"] == (0, 1)


def test_words_are_compared_letter_by_letter() -> None:
    found = of('It says "exit" and “Main”, "EXIL".')
    assert found["text_recalled"] == (1, 2)
    assert found["text_right"] == (2, 3)
    assert of('"Main" "St."')["text_recalled"] == (1, 2)


def test_what_a_truth_does_not_know_is_not_judged() -> None:
    bare = Truth((Thing("car"),))
    found = of('A red car, two dogs, "NO", a car above a hat', bare)
    assert set(found) == {"objects_recalled", "objects_invented", "chair_i", "chair_s", "relations_right"}
    assert found["objects_invented"] == (2, 4)


def record(**layers: Any) -> Record:
    return Record(key="k", image=ImageReference(uri="a.tar", size=9), width=60, height=60, **layers)


def test_boxes_are_paired_once_and_named() -> None:
    mask = Mask(size=(60, 60), counts="0")
    one = record(
        regions=[
            Region(box=(0, 0, 10, 10), phrase="a red car"),
            Region(box=(1, 0, 11, 10), phrase="a car"),
            Region(box=(0, 20, 10, 29), phrase="a hat"),
            Region(box=(40, 40, 50, 50), phrase="a sign", kept=False),
        ],
        objects=[ObjectMask(box=(20, 0, 30, 10), mask=mask, area=9, phrase="a blue car")],
        text=[TextLine(box=(0, 0, 5, 5), text="EXIT")],
    )
    found: dict[str, Any] = {text.name: against_truth(text, TRUTH, WORDS) for text in texts_of(one)}
    regions = found["regions"]
    assert regions["boxes_found"] == (2, 4) and regions["boxes_right"] == (2, 3)
    assert regions["boxes_named"] == (1, 2)
    assert regions["box_iou"] == pytest.approx((1.9, 2))
    assert found["objects"]["boxes_found"] == (1, 4)
    assert found["text"] == {"text_recalled": (1, 2), "text_right": (1, 1)}
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0


def test_the_composition_without_checks_tells_what_they_dropped() -> None:
    one = record(
        caption=Caption(text="A car."),
        regions=[
            Region(box=(0, 0, 9, 9), phrase="a red car"),
            Region(box=(0, 0, 9, 9), phrase="a hat", kept=False, reason="low_match"),
            Region(box=(0, 0, 9, 9), phrase="a lamp", kept=False, reason="duplicate"),
        ],
        description=Description(text="There is a red car.", sentences=[]),
    )
    texts = {text.name: text.text for text in texts_of(one)}
    assert texts[UNCHECKED] == "There is a red car. There is a hat."
    assert texts["regions"] == "a red car."


def test_truth_of_another_size_is_scaled() -> None:
    truth = Truth((Thing("car", (0, 0, 100, 50)),), size=(200, 100)).scaled(60, 60)
    assert truth.things[0].box == pytest.approx((0, 0, 30, 30))


def test_every_figure_has_a_meaning() -> None:
    assert all(
        one.meaning.startswith(("CHAIR", "CLIP", "CAPTURE")) or one.meaning[0].islower() for one in FIGURES.values()
    )
