"""Jobs: creating, scheduling and finishing them, and reading their results.

It imports `strata.core`, `strata.store` and `strata.queue`. Read `jobs.py` first, then `scheduler.py`.
"""

from __future__ import annotations

from strata.jobs.jobs import ImageRemoved, Jobs, NotFinished, UnknownJob
from strata.jobs.listing import Listing, id_of
from strata.jobs.new_jobs import Chosen
from strata.jobs.pairing import OtherStore, pair
from strata.jobs.results import BadCursor, Found, NotDescribed, Rejected, Results, named
from strata.jobs.sampling import Population, sample_of
from strata.jobs.scheduler import Scheduler

__all__ = [
    "BadCursor",
    "Chosen",
    "Found",
    "ImageRemoved",
    "Jobs",
    "Listing",
    "NotDescribed",
    "NotFinished",
    "OtherStore",
    "Population",
    "Rejected",
    "Results",
    "Scheduler",
    "UnknownJob",
    "id_of",
    "named",
    "pair",
    "sample_of",
]
