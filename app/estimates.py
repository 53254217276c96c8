"""The estimate that a job of a sample gives, with the workers that are ready now."""

from __future__ import annotations

from collections import Counter

from app.dependencies import Services, repairs
from app.problems import ProblemError
from strata.core import Estimate, JobView
from strata.estimates import NoSample, Workers, estimate


def estimate_of(given: Services, job: JobView) -> Estimate:
    """The estimate by a job so far. Raises ProblemError, QueueUnavailable and OSError."""
    ready = Counter(group for one in given.queue.heartbeats.live() if one.ready for group in one.groups)
    try:
        with repairs(given, job):
            return estimate(given.store, job, given.jobs.request(job.id), Workers(ready))
    except NoSample as error:
        raise ProblemError("no-estimate", str(error)) from error
