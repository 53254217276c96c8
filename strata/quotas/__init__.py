"""Quotas of API keys: what the request of a key uses (`key_use.py`), and what its jobs may queue (`job_quotas.py`).

The counting is done in Redis, by `strata.queue`; which quotas a key has lies in the store, see `strata.keys`.
"""

from __future__ import annotations

from strata.quotas.job_quotas import Admission, JobQuotas
from strata.quotas.key_use import KeyUse, State

__all__ = ["Admission", "JobQuotas", "KeyUse", "State"]
