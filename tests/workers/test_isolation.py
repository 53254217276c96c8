"""The order in which the rows of a chunk are computed after processes ended over it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.isolation import Verdict

ROWS = st.integers(0, 19)


@given(
    rows=st.sets(ROWS).map(sorted),
    alone=st.none() | st.frozensets(ROWS),
    accused=st.frozensets(ROWS),
    unproved=st.booleans(),
)
def test_every_row_is_computed_once_and_the_accused_come_first(
    rows: list[int], alone: frozenset[int] | None, accused: frozenset[int], unproved: bool
) -> None:
    if alone is not None:
        accused &= alone
    first, then = Verdict(alone, accused, unproved).order(rows)
    assert sorted(first + then) == rows
    # a row that may have ended a process is never computed together with others
    assert not set(then) & (set(rows) if alone is None else alone)
    others = [row for row in rows if row not in accused]
    if unproved and others:
        assert first[0] not in accused
        first = first[1:]
    found = [row in accused for row in first]
    assert found == sorted(found, reverse=True)


def test_rows_keep_their_order() -> None:
    assert Verdict().order([3, 4, 5]) == ([], [3, 4, 5])
    assert Verdict(alone=None).order([3, 4, 5]) == ([3, 4, 5], [])
    assert Verdict(frozenset({3, 5}), frozenset({5})).order([2, 3, 4, 5]) == ([5, 3], [2, 4])
    assert Verdict(frozenset({3, 5}), frozenset({5}), True).order([2, 3, 4, 5]) == ([4, 5, 3], [2])
