"""Bootstrap intervals, and comparisons with an earlier evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from strata.core.records import Description, ImageReference, Record
from strata.errors import InvalidInput
from strata.evaluation.comparison import compared
from strata.evaluation.evaluation import Evaluation, finished, measure
from strata.evaluation.intervals import bounds, certain, ratios
from strata.evaluation.mentions import Vocabulary
from strata.evaluation.truth import Thing, Truth, TruthSet

WORDS = Vocabulary.of({"car": (), "hat": ()})


def test_intervals_are_those_of_scipy() -> None:
    random = np.random.default_rng(7)
    told = random.integers(0, 4, 80).astype(float)
    right = np.minimum(told, random.integers(0, 4, 80))
    low, high = bounds(ratios(right[:, None], told[:, None], 4000, 0), 0.025)

    def ratio(a: Any, b: Any, axis: int) -> Any:
        return a.sum(axis) / b.sum(axis)

    known = stats.bootstrap(
        (right, told), ratio, paired=True, n_resamples=4000, method="percentile", vectorized=True, rng=1
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx((known.low, known.high), abs=0.01)


def test_figures_without_a_denominator_have_no_interval() -> None:
    values = ratios(np.zeros((5, 2)), np.array([[0.0, 1.0]] * 5), 100, 0)
    low, high = bounds(values, 0.025)
    assert np.isnan(low[0]) and np.isnan(high[0]) and low[1] == high[1] == 0


def test_a_share_that_is_whole_has_the_exact_bound() -> None:
    assert 1 - certain(50, 0.025) == pytest.approx(stats.binomtest(50, 50).proportion_ci(method="exact").low)
    assert certain(0, 0.025) == 1


def evaluation(texts: dict[str, str], seed: int = 0) -> Evaluation:
    """Of images that have a car and no hat."""
    records = [
        Record(key=key, image=ImageReference(uri="a", size=1), description=Description(text=text, sentences=[]))
        for key, text in texts.items()
    ]
    truths = TruthSet(dict.fromkeys(texts, Truth((Thing("car"),))), WORDS, "test")
    return finished(measure(records, lambda *_: [], [truths]), seed, 200, source="a", kind="job", statuses={})


GOOD = {str(n): "There is a car." for n in range(60)}


def test_a_planted_drop_is_found_and_nothing_else() -> None:
    worse = {key: "There is a car and a hat." if int(key) % 3 == 0 else text for key, text in GOOD.items()}
    found = compared(evaluation(worse), evaluation(GOOD), "base")
    dropped = {(one.text, one.figure) for one in found.dropped}
    figures = {"objects_invented", "chair_i", "chair_s"}
    assert dropped == {(text, figure) for text in ("description", "unchecked") for figure in figures}
    assert not found.passed and found.images == 60
    assert {
        one.figure for one in compared(evaluation(GOOD), evaluation(worse), "base").changes if one.improved
    } == figures


def test_one_worse_image_is_noise() -> None:
    worse = GOOD | {"3": "There is a hat."}
    found = compared(evaluation(worse), evaluation(GOOD), "base")
    assert found.passed and not found.missing


def test_changes_by_chance_seldom_count_as_drops() -> None:
    random = np.random.default_rng(3)

    def drawn() -> Evaluation:
        return evaluation({key: "a car" if random.random() < 0.8 else "a hat" for key in GOOD})

    assert sum(not compared(drawn(), drawn(), "base").passed for _ in range(20)) <= 2


def test_images_that_only_one_has_do_not_count() -> None:
    other = {f"x{key}": "A hat." for key in GOOD}
    found = compared(evaluation(GOOD | other), evaluation(GOOD), "base")
    assert found.passed and found.images == 60
    with pytest.raises(InvalidInput, match="no image in common"):
        compared(evaluation(other), evaluation(GOOD), "base")


def test_few_images_are_told_apart_and_a_missing_text_fails() -> None:
    few = dict(list(GOOD.items())[:5])
    found = compared(evaluation(few), evaluation(few), "base")
    assert not found.changes and "description objects_recalled" in found.unsure
    base = evaluation(GOOD)
    base.texts["variant short"] = base.texts["description"]
    found = compared(evaluation(GOOD), base, "base")
    assert found.missing == ["variant short"] and not found.passed
