"""Jobs: creating, scheduling and finishing them, and reading their results.

It imports `strata.core`, `strata.store` and `strata.queue`. Read `jobs.py` first, then `scheduler.py`.
"""

from __future__ import annotations

from strata.jobs.jobs import ImageRemoved, Jobs, NotFinished, UnknownJob
from strata.jobs.listing import Listing, id_of
from strata.jobs.new_jobs import Chosen
from strata.jobs.pairing import OtherStore, pair
from strata.jobs.results import BadCursor, Found, NotDescribed, Rejected, Results, named
from strata.jobs.sampling import MOST_COMPARED, Population, copied_rows, ended_rows, sample_of
from strata.jobs.scheduler import Scheduler

__all__ = [
    "MOST_COMPARED",
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
    "copied_rows",
    "ended_rows",
    "id_of",
    "named",
    "pair",
    "sample_of",
]
