"""What texts say of people: addresses and numbers that a rule can leave out of a snapshot."""

from __future__ import annotations

from strata.privacy.personal import MAY_HOLD, Personal, personal_data

__all__ = ["MAY_HOLD", "Personal", "personal_data"]
