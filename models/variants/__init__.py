"""Variants: other texts of the same evidence as a record's description, see docs/how-to/variants.md.

`composed.py` has those that the composer writes, of other lengths or in another language; `plain.py` is for a composer
without a model. `layered.py` makes those that follow from the layers by rules: tags (`tags.py`), JSON
(`structured.py`), and questions with answers (`questions.py`).
"""

from __future__ import annotations

from models.variants.closed import closed_kinds, is_within
from models.variants.layered import layered_variants

__all__ = ["closed_kinds", "is_within", "layered_variants"]
