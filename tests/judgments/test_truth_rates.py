"""Rates of what people said, with intervals, and `strata evaluate --judgments`."""

from __future__ import annotations

import json

import pytest

from strata.evaluation.intervals import wilson
from strata.evaluation.truth_rates import rates_of, truth_rates
from strata.judgments import Judgments, Subject
from strata.snapshots import Selection, Snapshots
from strata.store import Store
from tests.cli.test_cli import code_of
from tests.described import FINGERPRINT, described, write_part
from tests.judged import judgment


@pytest.mark.parametrize(
    ("right", "judged", "low", "high"),
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_intervals_are_the_published_ones(right: int, judged: int, low: float, high: float) -> None:
    found = wilson(right, judged)
    assert found.rate == right / judged
    assert (round(found.low or 0, 4), round(found.high or 0, 4)) == (low, high)


def test_one_reviewer_who_finds_a_fault_is_enough() -> None:
    wrong = ({"index": 1, "verdict": "rejected", "reason": "wrong_count"},)
    said = [
        judgment("1", 0, key="a"),
        judgment("2", 0, "edited", key="a", reviewer="Bob", sentences=wrong),
        judgment("3", 0, key="b"),
        judgment("4", 0, "rejected", key="c", reason="incomplete"),
        judgment("5", 0, key="d"),
    ]
    counts = {Subject(FINGERPRINT, "a" * 16, key): 2 for key in "abcd"}
    found = rates_of(said, counts)
    assert (found.records, found.reviewers) == (4, ["Ada", "Bob"])
    assert (found.accepted.right, found.not_rejected.right, found.accepted.judged) == (2, 3, 4)
    assert (found.sentences.right, found.sentences.judged) == (5, 6)
    assert found.reasons == {"incomplete": 1, "wrong_count": 1}
    assert rates_of([], {}).accepted.rate is None


def test_only_rows_of_the_source_count(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    part = write_part(store, [described(key) for key in "abcd"])
    Snapshots(store).create("few", [part], Selection(where="key == 'a' or key == 'b'"))
    Judgments(store).append([judgment("1", 0, key="a"), judgment("2", 1, "rejected", key="b")])
    Judgments(store).append([judgment("3", 2, key="c"), judgment("4", 3, key="none")])
    assert (truth_rates(store, "few").records, truth_rates(store, FINGERPRINT).records) == (2, 3)
    assert code_of("evaluate", "few", "--judgments", "--json", "--resamples", "100", "--store", store.uri) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["judgments"]["accepted"]["rate"] == 0.5
    assert code_of("evaluate", "few", "--judgments", "--resamples", "100", "--store", store.uri) == 0
    assert "accepted: 0.500 (0.095 to 0.905), 1 of 2" in capsys.readouterr().out
