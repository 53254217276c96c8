"""Krippendorff's alpha against published values and against the package of that name."""

from __future__ import annotations

import warnings
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.judgments import agreement_of, alpha
from tests.judged import judgment

# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section C: four observers, nominal data
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_the_published_value_is_computed() -> None:
    units = [[value for value in unit if value is not None] for unit in zip(*OBSERVERS, strict=True)]
    found = alpha(units)
    assert found is not None and round(found, 3) == 0.743


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from([None, 0, 1, 2]), min_size=3, max_size=3), min_size=1, max_size=12))
def test_the_package_computes_the_same(units: list[list[int | None]]) -> None:
    found = alpha([[value for value in unit if value is not None] for unit in units])
    data = np.array([[np.nan if value is None else value for value in unit] for unit in units]).T
    pairable = [value for unit in units if sum(v is not None for v in unit) > 1 for value in unit if value is not None]
    if len(set(pairable)) < 2:  # the package refuses, or divides by zero
        assert found is None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = krippendorff.alpha(data, level_of_measurement="nominal", value_domain=[0, 1, 2])
    assert found == pytest.approx(expected)


def test_only_verdicts_that_count_are_compared() -> None:
    wrong = judgment("1", 0, "rejected", key="a")
    judgments = [
        wrong,
        judgment("2", 1, key="a", supersedes=wrong.id),
        *(judgment(f"3{key}", 2, key=key) for key in "bc"),
        judgment("4", 2, "rejected", key="d"),
        *(judgment(f"5{key}", 3, key=key, reviewer="Bob") for key in "abc"),
        judgment("6", 3, "rejected", key="d", reviewer="Bob"),
        judgment("7", 3, "rejected", key="e", reviewer="Bob"),
    ]
    found = agreement_of(judgments)
    assert (found.reviewers, found.records, found.alpha) == ({"Ada": 4, "Bob": 5}, 4, 1.0)
    assert [(pair.records, pair.equal) for pair in found.pairs] == [(4, 4)]
    assert found.disagreements == []
    differing = agreement_of([*judgments, judgment("8", 4, "edited", key="e")])
    assert differing.alpha is not None and differing.alpha < 1
    assert [one.verdicts for one in differing.disagreements] == [{"Ada": "edited", "Bob": "rejected"}]


def test_sentences_are_compared_where_somebody_judged_them() -> None:
    rejects: dict[str, Any] = {
        "verdict": "edited",
        "sentences": ({"index": 1, "verdict": "rejected", "reason": "wrong_count"},),
    }
    both = [judgment(who, 0, reviewer=who, key=key, **rejects) for who in ("Ada", "Bob") for key in "a"]
    accepts = judgment("3", 0, reviewer="Ada", key="b", verdict="edited")
    other = judgment("4", 0, reviewer="Bob", key="b")
    found = agreement_of([*both, accepts, other])
    # one sentence rejected by both, one edited by one and accepted by the other
    assert found.sentence_alpha == pytest.approx(alpha([["rejected", "rejected"], ["edited", "accepted"]]))


def test_nothing_to_compare_has_no_agreement() -> None:
    assert agreement_of([]).alpha is None
    assert agreement_of([judgment("1"), judgment("2", reviewer="Bob")]).alpha is None  # all are equal
    assert agreement_of([judgment("1"), judgment("2", key="b", reviewer="Bob")]).records == 0
