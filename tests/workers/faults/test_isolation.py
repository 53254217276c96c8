"""The order in which the rows of a chunk are computed after processes ended over it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from workers.isolation import KILLED, Verdict

ROWS = st.integers(0, 19)


@given(
    rows=st.sets(ROWS).map(sorted),
    alone=st.none() | st.frozensets(ROWS),
    accused=st.dictionaries(ROWS, st.integers(1, 3)),
)
def test_every_row_is_computed_once_and_the_accused_come_first(
    rows: list[int], alone: frozenset[int] | None, accused: dict[int, int]
) -> None:
    if alone is not None:
        accused = {row: deaths for row, deaths in accused.items() if row in alone}
    first, then = Verdict(alone, accused).order(rows)
    assert sorted(first + then) == rows
    # a row that may have ended a process is never computed together with others
    assert not set(then) & (set(rows) if alone is None else alone)
    # a row that nobody accuses shows first whether the process works
    if any(row in accused for row in rows) and any(row not in accused for row in rows):
        assert first[0] not in accused
        first = first[1:]
    found = [accused.get(row, 9) for row in first]
    assert found == sorted(found)


def test_rows_keep_their_order() -> None:
    assert Verdict().order([3, 4, 5]) == ([], [3, 4, 5])
    assert Verdict(alone=None).order([3, 4, 5]) == ([3, 4, 5], [])
    assert Verdict(frozenset({3, 5}), {5: 1}).order([2, 3, 4, 5]) == ([4, 5, 3], [2])
    assert Verdict(frozenset({3, 5}), {5: 2, 3: 1}).order([3, 5]) == ([3, 5], [])


def test_a_row_is_passed_over_only_if_others_were_computed_or_there_are_none() -> None:
    verdict = Verdict(frozenset({3, 5}), {3: 2, 5: 1}, {3: KILLED})
    assert verdict.poison([3, 4, 5]) == {3: KILLED} and not verdict.needs_control([3, 4, 5])
    assert verdict.needs_control([3, 5]) and not verdict.needs_control([3])
    # nothing was computed between the two deaths: another row has to show first that the machine works
    unproved = replace(verdict, unproved=True)
    assert unproved.poison([3, 4, 5]) == {} and unproved.order([3, 4, 5])[0] == [4, 5, 3]
    assert unproved.needs_control([3]) and unproved.poison([3]) == {3: KILLED}
    # of a chunk all of whose rows are accused, few are passed over and many are not
    every = Verdict(None, dict.fromkeys(range(4), 2), dict.fromkeys(range(4), KILLED), unproved=True)
    assert every.poison(range(4)) == {} and len(every.poison(range(3))) == 3
