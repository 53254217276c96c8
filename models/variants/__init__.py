"""Variants: other texts of the same evidence as a record's description, see docs/how-to/variants.md.

`layered.py` makes those that follow from the layers without a model: tags (`tags.py`), JSON (`structured.py`), and
questions with answers (`questions.py`).
"""

from __future__ import annotations

from models.variants.closed import closed_kinds, is_within
from models.variants.layered import layered_variants

__all__ = ["closed_kinds", "is_within", "layered_variants"]
