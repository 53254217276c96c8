"""The field's scores of answers, with values that follow from the official definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.scores import ScoreError, anls, cider, distance, exact_match, relaxed_accuracy, vqa_accuracy
from training.evaluation.vqa_answers import CONTRACTIONS, normalized


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("The Dog.", "dog"),
        ("two dogs", "2 dogs"),
        ("None", "0"),
        ("black/white", "black white"),
        ("yes, please", "yes please"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("dont know", "don't know"),
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("t-shirt", "t shirt"),
        ("12:30", "12:30"),
        ("a\nred\tcar", "red car"),
        ("shes", "shes"),
        ("lets", "lets"),
    ],
)
def test_answers_are_normalised_as_the_official_code_does(answer: str, same: str) -> None:
    assert normalized(answer) == same


def test_the_contractions_are_those_of_the_official_table() -> None:
    # 120 in the original, without Id've, I'dve, Im, Ive (capitals) and let's, she's (map to themselves)
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["y'allll"] == CONTRACTIONS["yall'll"] == "y'all'll"
    assert all(key != value for key, value in CONTRACTIONS.items())


@pytest.mark.parametrize(
    ("agreeing", "score"),
    # k of ten agree: k sets lack one of them: (k * min(1, (k-1)/3) + (10-k) * min(1, k/3)) / 10
    [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)],
)
def test_vqa_accuracy_leaves_out_each_annotator(agreeing: int, score: float) -> None:
    references = ["Yes"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
    assert vqa_accuracy("yes.", references) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("Coca Cola", ["coca cola"], 1),
        ("cocacola", ["coca cola"], 8 / 9),
        ("coca  cola ", ["pepsi", "coca cola"], 1),
        ("ab", ["ax"], 0.5),  # exactly the threshold counts
        ("abc", ["axy"], 0),
        ("", ["x"], 0),
    ],
)
def test_anls_takes_the_best_reference_above_the_threshold(answer: str, references: list[str], score: float) -> None:
    assert anls(answer, references) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("105", "100", True),
        ("95", "100", True),
        ("105.1", "100", False),
        ("-10", "10", False),
        ("12%", "0.12", True),
        ("0", "0", True),
        ("0.01", "0", False),
        ("0.0", "0", False),
        ("Blue", "blue", True),
        ("blue ", "blu", False),
        ("nan", "5", False),
        ("inf", "5", False),
        ("2019", "2020", True),  # years are numbers too, in the original
    ],
)
def test_relaxed_accuracy_allows_five_percent(answer: str, reference: str, right: bool) -> None:
    assert relaxed_accuracy(answer, [reference]) == right


def test_exact_match_knows_no_case() -> None:
    assert exact_match(" Exit ", ["EXIT", "way out"]) == 1 and exact_match("Exits", ["EXIT"]) == 0


def test_cider_follows_its_definition() -> None:
    references = {"a": ["a red car"], "b": ["two blue birds"]}
    # equal texts of three words: similarity 1 for 1- to 3-grams, none for 4-grams, times 10
    assert cider({"a": "A red car.", "b": "Two blue birds!"}, references) == pytest.approx(7.5)
    # one of two is wrong altogether
    assert cider({"a": "a red car", "b": "nothing here seen"}, references) == pytest.approx(3.75)
    # "a red cat": cosines 2/3 and 1/2 of 1- and 2-grams; all idf are log 2, and the lengths are equal
    partly = (2 / 3 + 1 / 2) / 4 * 10
    assert cider({"a": "a red cat", "b": "x y z"}, references) == pytest.approx(partly / 2)
    # an answer with one bigram more is discounted by exp(-1 / 72)
    longer = (3 / math.sqrt(12) + 2 / math.sqrt(6) + 1 / math.sqrt(2)) / 4 * 10 * math.exp(-1 / 72)
    assert cider({"a": "a red car outside", "b": "x y z"}, references) == pytest.approx(longer / 2)
    with pytest.raises(ScoreError, match="at least two questions"):
        cider({"a": "a"}, {"a": ["a"]})


texts = st.text("ab ", max_size=8)


@given(texts, texts, texts)
def test_the_distance_is_a_metric(one: str, other: str, third: str) -> None:
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, other) == distance(other, one) >= abs(len(one) - len(other))
    assert distance(one, third) <= distance(one, other) + distance(other, third)
