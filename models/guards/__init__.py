"""Guards: what stands between a generated text and a record. They clean it, cut it back, or reject it with a reason.

The back ends of captioner and composer, in this process or behind a server, give each text to `guarded`; no other way
leads into a record.
"""

from __future__ import annotations

from models.guards.cleaning import cleaned, printable, quotable
from models.guards.faults import QUOTED, quotations
from models.guards.guard import Asked, Guarded, guarded
from models.guards.languages import language_of

__all__ = ["QUOTED", "Asked", "Guarded", "cleaned", "guarded", "language_of", "printable", "quotable", "quotations"]
