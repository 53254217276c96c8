"""Several descriptions of one image: the better of them (`better.py`), and two snapshots side by side (`texts.py`)."""

from __future__ import annotations

from strata.snapshots.comparing.better import Better, better_rows, checked_criteria, features_of
from strata.snapshots.comparing.texts import Compared, Pair, Side, Sides, compared

__all__ = [
    "Better",
    "Compared",
    "Pair",
    "Side",
    "Sides",
    "better_rows",
    "checked_criteria",
    "compared",
    "features_of",
]
