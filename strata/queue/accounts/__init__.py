"""What was used: what each job has spent on model servers (`ledger.py`), what each key has used (`windows.py`)."""

from __future__ import annotations

from strata.queue.accounts.ledger import Ledger, Reservation
from strata.queue.accounts.windows import FOR_EVER, IMAGES, MONEY, REQUESTS, Quota, Use, Windows, bytes_quota

__all__ = [
    "FOR_EVER",
    "IMAGES",
    "MONEY",
    "REQUESTS",
    "Ledger",
    "Quota",
    "Reservation",
    "Use",
    "Windows",
    "bytes_quota",
]
