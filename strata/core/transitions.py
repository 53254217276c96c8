"""The table of a job's transitions: which status may follow which. Every change of a status is checked against it."""

from __future__ import annotations

from collections.abc import Mapping

from strata.core.schemas import JobStatus

# A job that has ended lives again only by a retry, as `validating`. A job that lacks parts at its end goes back to
# `in_progress`. What is cancelled is not retried: its images were given up on purpose.
TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.VALIDATING: frozenset(
        {JobStatus.IN_PROGRESS, JobStatus.FINALIZING, JobStatus.CANCELLING, JobStatus.FAILED}
    ),
    JobStatus.IN_PROGRESS: frozenset({JobStatus.FINALIZING, JobStatus.CANCELLING, JobStatus.FAILED}),
    JobStatus.FINALIZING: frozenset(
        {JobStatus.IN_PROGRESS, JobStatus.CANCELLING, JobStatus.COMPLETED, JobStatus.FAILED}
    ),
    JobStatus.CANCELLING: frozenset({JobStatus.CANCELLED}),
    JobStatus.COMPLETED: frozenset({JobStatus.VALIDATING}),
    JobStatus.FAILED: frozenset({JobStatus.VALIDATING}),
    JobStatus.CANCELLED: frozenset(),
}

# No chunk is queued or counted for a job in one of these.
STOPPED = frozenset({JobStatus.CANCELLING, *(status for status in JobStatus if status.final)})


def origins(status: JobStatus) -> list[JobStatus]:
    """The statuses that a status may follow."""
    return [before for before, following in TRANSITIONS.items() if status in following]
