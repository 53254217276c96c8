"""How numbers of things are told."""

from __future__ import annotations

import pytest

from strata.core import LEFT_OUT
from strata.counts import counted


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (2000, ("file",), "2,000 files"),
        (1, LEFT_OUT["no_image"], "1 file that is no image"),
        (2, LEFT_OUT["no_image"], "2 files that are no images"),
    ],
)
def test_counted(number: int, words: tuple[str, ...], told: str) -> None:
    assert counted(number, *words) == told
