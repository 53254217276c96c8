"""Images of this machine: which are meant (`targets.py`), `strata caption`, caption files, uploads."""

from __future__ import annotations
