"""Fixtures of the tests of workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from strata.jobs.jobs import Jobs
from tests.workers.programs.machines import scheduling


@pytest.fixture
def scheduler(jobs: Jobs) -> Iterator[None]:
    """A scheduler in a thread."""
    with scheduling(jobs):
        yield
