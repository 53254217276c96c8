"""The bounds on the lines of text that are read in one image."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.stages.text_lines import CUT_OUT, MOST_AT_ONCE, WIDEST, WIDTH_AT_ONCE, WIDTH_OF_IMAGE, Largest, batches


def _kept(*sizes: tuple[int, int]) -> list[int]:
    """The indices of the lines, of these widths and heights, that are read."""
    boxes = np.array([[(0, 0), (w, 0), (w, h), (0, h)] for w, h in sizes], np.int32)
    found: Any = boxes, [float(i) for i in range(len(sizes))]
    kept, scores = Largest(lambda *_: found, 160)("probabilities", "size")
    assert [boxes[int(i)].tolist() for i in scores] == kept.tolist()
    return [int(i) for i in scores]


def test_the_lines_of_a_usual_page_are_all_read() -> None:
    assert _kept(*[(1200, 28)] * 60) == list(range(60))
    assert _kept(*[(20, 10)] * 800) == list(range(800))


def test_of_too_many_lines_the_largest_are_read() -> None:
    sizes = [(1500, 9), (2500, 12)] * 68
    assert _kept(*sizes) == list(range(1, 2 * (WIDTH_OF_IMAGE // WIDEST), 2))
    # a line that is high and narrow is turned: its short side is the height of its letters
    assert _kept((9, 1500), *sizes[1::2]) == list(range(1, 1 + WIDTH_OF_IMAGE // WIDEST))


def test_lines_that_lie_in_one_another_cannot_fill_the_memory() -> None:
    side = 1600
    assert len(_kept(*[(side, side)] * 700)) == CUT_OUT // side**2


def test_no_lines_are_no_lines() -> None:
    nothing: Any = np.array([]), []
    assert Largest(lambda *_: nothing, 320)("probabilities", "size") == nothing


@given(st.lists(st.floats(0.1, WIDEST)), st.integers(32, WIDEST))
def test_each_line_is_in_one_batch_and_no_batch_is_too_large(widths: list[float], narrowest: int) -> None:
    made = list(batches(widths, narrowest))
    assert sorted(i for batch in made for i in batch) == list(range(len(widths)))
    for batch in made:
        assert 1 <= len(batch) <= MOST_AT_ONCE
        assert len(batch) * max(narrowest, *(widths[i] for i in batch)) <= WIDTH_AT_ONCE
