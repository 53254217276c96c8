"""The life of jobs under random requests, deaths and losses, a bounded number of steps; see `life.py` for more."""

from __future__ import annotations

from strata.queue.queue import Queue
from tests.jobs.life import run_lives


def test_lives_of_jobs_follow_the_model(queue: Queue) -> None:
    counts = run_lives(queue, examples=8, steps=30)
    assert counts["steps"] > 50 and counts["ticks"] > 5
