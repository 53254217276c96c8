"""Of several descriptions of an image the better one: which stays, how they are counted, what is equal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.cli.rendering.snapshots import snapshot_details
from strata.core import Record
from strata.errors import InvalidInput
from strata.judgments import Judgments
from strata.snapshots import Better, Selection, Snapshots
from strata.snapshots.selection.better import better_rows
from strata.store.store import Store
from tests.described import FINGERPRINT, described, write_part
from tests.judged import judgment

OTHER = "e" * 16
Row = tuple[int, int, float | None, int]  # the part, the image, two values


def _table(found: list[Row]) -> pa.Table:
    return pa.table(
        {
            "part": pa.array([part for part, _, _, _ in found], pa.int32()),
            "image": [f"i{image % 3}" for _, image, _, _ in found],
            "key": [f"k{image}" for _, image, _, _ in found],
            "score": pa.array([score for _, _, score, _ in found], pa.float64()),
            "words": pa.array([words for _, _, _, words in found], pa.int64()),
        }
    )


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 6), st.none() | st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 2)),
    min_size=1,
    max_size=30,
).map(lambda found: sorted(found, key=lambda row: row[0]))


@given(ROWS, st.sampled_from([("score",), ("-score",), ("words", "score"), ("-words", "-score")]))
def test_one_row_of_each_image_stays_and_it_is_the_best(found: list[Row], criteria: tuple[str, ...]) -> None:
    fingerprints = ["f", "e", "f", "e"]
    kept, better = better_rows(_table(found), fingerprints, criteria)

    def worth(row: Row) -> tuple[float, ...]:
        values = {"score": row[2], "words": float(row[3])}
        signed = [(values[name.lstrip("-")], -1 if name.startswith("-") else 1) for name in criteria]
        return tuple(-np.inf if value is None else sign * value for value, sign in signed)

    expected: list[int] = []
    several: list[int] = []
    ties = 0
    for image in sorted({row[1] for row in found}):
        places = [place for place, row in enumerate(found) if row[1] == image]
        best = max(places, key=lambda place: (worth(found[place]), -place))
        expected.append(best)
        if len(places) > 1:
            several.append(best)
            ties += sum(worth(found[place]) == worth(found[best]) for place in places) > 1
    assert kept.tolist() == sorted(expected)
    taken = {name: sum(fingerprints[found[place][0]] == name for place in several) for name in ("e", "f")}
    assert better == Better(images=len(several), ties=ties, taken=taken)


def _plant(store: Store) -> list[str]:
    """Two descriptions of three images, and one image that only the first has; paths of the parts."""

    def record(key: str, things: list[str], words: int) -> Record:
        return described(key, things, words)

    first = write_part(
        store, [record("a", ["car"], 5), record("b", [], 9), record("c", ["cup"], 4), record("d", [], 1)]
    )
    second = write_part(
        store, [record("a", [], 7), record("b", ["dog"], 2), record("c", ["cup"], 6)], fingerprint=OTHER
    )
    return [first.path, second.path]


def _keys(store: Store, name: str) -> list[tuple[str, str]]:
    snapshot = Snapshots(store).open(name)
    rows = snapshot.with_keys(snapshot.rows()).to_pylist()
    return sorted((row["key"], snapshot.parts[row["part"]].split("/")[2][:1]) for row in rows)


def test_a_snapshot_of_the_better_of_two(store: Store) -> None:
    parts, snapshots = _plant(store), Snapshots(store)
    made = snapshots.create("best", parts, Selection(better=("match",)))
    # c is equal by the match: the first in the order of the parts stays
    assert _keys(store, "best") == [("a", "f"), ("b", "e"), ("c", "e"), ("d", "f")]
    assert made.manifest.counts.better == Better(images=3, ties=1, taken={OTHER: 2, FINGERPRINT: 1})
    assert made.manifest.counts.passed == 4
    words = "\n".join(str(piece) for piece in snapshot_details(made).renderables)
    assert (
        "described several times: 3 images" in words
        and "of 1 image the best rows were equal, and the first one stays" in words
    )
    assert "of each image the better by match" in words
    # the next criterion decides between what is equal
    snapshots.create("longer", parts, Selection(better=("match", "words")))
    assert ("c", "e") in _keys(store, "longer")
    snapshots.create("shorter", parts, Selection(better=("match", "-words")))
    assert ("c", "f") in _keys(store, "shorter")
    # what a person has accepted comes first, and what was rejected last
    Judgments(store).append([judgment("1", 0, key="c"), judgment("2", 1, "rejected", key="a")])
    snapshots.create("reviewed", parts, Selection(better=("review", "match")))
    assert _keys(store, "reviewed") == [("a", "e"), ("b", "e"), ("c", "f"), ("d", "f")]
    # a filter comes before: what does not pass is not compared
    few = snapshots.create("few", parts, Selection(better=("match",), where="words < 6"))
    assert _keys(store, "few") == [("a", "f"), ("b", "e"), ("c", "f"), ("d", "f")]
    assert few.manifest.counts.better == Better(images=0, ties=0, taken={OTHER: 0, FINGERPRINT: 0})
    # an earlier version's id of a selection without it is the same
    plain = snapshots.create("plain", parts, Selection())
    assert "better" not in plain.manifest.selection.model_dump()
    assert len(_keys(store, "plain")) == 7


@pytest.mark.parametrize("criterion", ["thing", "nothing", "-review", "description", ""])
def test_criteria_that_are_none(criterion: str) -> None:
    with pytest.raises(InvalidInput, match="better: "):
        Selection(better=(criterion,))


def test_scores_of_one_s_own_are_criteria() -> None:
    assert Selection(better=("-blur",), own={"blur": "number"}).better == ("-blur",)
