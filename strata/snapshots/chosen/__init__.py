"""Rows that a new job describes once more: what they are chosen from (`pinning.py`), and which they are (`rows.py`)."""

from __future__ import annotations

from strata.snapshots.chosen.pinning import Pinning
from strata.snapshots.chosen.rows import chosen_numbers

__all__ = ["Pinning", "chosen_numbers"]
