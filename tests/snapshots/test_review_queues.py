"""Which rows people are asked about: samples that stay when rows are added, and the most doubtful first."""

from __future__ import annotations

import pytest

from strata.core import CheckedSentence, Record, Sentence, Verification
from strata.core.layers import Description
from strata.snapshots import records_of, review_queue
from strata.snapshots.reviewing import queues as review_queues
from strata.store import Store
from tests.described import described, write_part


def keys(store: Store, parts: list[object], sample: int = 100, **more: object) -> list[str]:
    return [row.key for row in review_queue(store, parts, sample, **more).rows]  # type: ignore[arg-type]


def test_a_sample_keeps_its_rows_when_rows_are_added(store: Store) -> None:
    first = write_part(store, [described(f"a{n}") for n in range(20)])
    second = write_part(store, [described(f"b{n}") for n in range(20)], identity="b" * 16)
    before, after = keys(store, [first], seed=3), keys(store, [first, second], seed=3)
    assert [key for key in after if key.startswith("a")] == before
    assert keys(store, [first, second], sample=7, seed=3) == after[:7]
    assert keys(store, [first], seed=4) != before


def test_rows_without_a_description_are_not_asked_about(store: Store) -> None:
    bare = described("none").model_copy(update={"description": None})
    failed = described("failed").failed("composer", "x", "y")
    part = write_part(store, [described("one"), bare, failed, described("two", ["cat"])])
    found = review_queue(store, [part], 10)
    assert (found.considered, found.passed, sorted(row.key for row in found.rows)) == (2, 2, ["one", "two"])
    only = review_queue(store, [part], 10, where="objects > 0")
    assert (only.considered, only.passed, [row.key for row in only.rows]) == (2, 1, ["two"])
    assert review_queue(store, [], 10).rows == []


def checked(key: str, cut: int, unsupported: int, match: float) -> Record:
    """A record of four composed sentences: some were cut, and some of the four in the description have no evidence."""
    record = described(key, ["cat"])
    sentences = [Sentence(text="S.", evidence=[] if n < unsupported else ["objects/0"]) for n in range(4)]
    found = [CheckedSentence(text="S.", kept=None, reason="wrong_count") for _ in range(cut)]
    found += [CheckedSentence(text="S.", kept="S.") for _ in range(4 - cut)]
    (thing,) = record.objects or []
    update = {
        "description": Description(text="S. S. S. S.", sentences=sentences),
        "verification": Verification(text="S. S. S. S.", sentences=found),
        "objects": [thing.model_copy(update={"match": match})],
        "caption": None,
    }
    return record.model_copy(update=update)


def test_the_most_doubtful_come_first(store: Store) -> None:
    rows = [checked("sure", 0, 0, 1), checked("cut", 2, 0, 1), checked("low", 0, 0, 0.25), checked("all", 4, 4, 0)]
    part = write_part(store, rows)
    found = review_queue(store, [part], 10, order="doubtful").rows
    assert [row.key for row in found] == ["all", "low", "cut", "sure"]
    assert [row.doubt.score for row in found] == pytest.approx([1, 0.25, 0.1667, 0], abs=1e-3)
    assert found[2].doubt.model_dump() == {"score": 0.1667, "cut": 0.5, "unsupported": 0, "lowest_match": 1}
    assert [record.key for record in records_of(store, found)] == ["all", "low", "cut", "sure"]


def test_of_very_many_parts_some_are_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_queues, "MAX_PARTS", 3)
    parts = [write_part(store, [described(f"{n}")], number=n) for n in range(12)]
    found = [review_queue(store, parts, 10, seed=seed) for seed in (0, 0, 1)]
    assert [(len(one.rows), one.read, one.parts) for one in found] == [(3, 3, 12)] * 3
    assert found[0].rows == found[1].rows != found[2].rows
