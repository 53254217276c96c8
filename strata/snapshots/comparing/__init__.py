"""Two snapshots compared: their rows, parts and settings (`differences.py`), and their texts (`texts.py`)."""

from __future__ import annotations

from strata.snapshots.comparing.differences import Change, Difference, Overlap, difference
from strata.snapshots.comparing.texts import Compared, Descriptions, Pair, Side, compared

__all__ = ["Change", "Compared", "Descriptions", "Difference", "Overlap", "Pair", "Side", "compared", "difference"]
