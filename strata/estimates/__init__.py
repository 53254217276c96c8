"""Estimates: what a job would take, by a sample of its images that was described (`strata.jobs.sampling`).

`sampled.py` reads the sample's parts, `intervals.py` has the intervals, `estimate.py` puts both together.
"""

from __future__ import annotations

from strata.estimates.estimate import NoSample, Workers, estimate

__all__ = ["NoSample", "Workers", "estimate"]
