"""The envelope of a job: what the API shows of it, built from its request and its working copy in Redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from strata.addresses import without_secrets
from strata.core import (
    FINAL_GROUP,
    GROUPS,
    LEFT_OUT,
    GroupBacklog,
    GroupProgress,
    JobRequest,
    JobSample,
    JobStatus,
    JobUsage,
    JobView,
    RequestCounts,
    ShardCounts,
    Waiting,
    created_at,
)
from strata.queue import OpenCounts

_LINKS = ("results", "failures", "events", "cancel", "retry")


def envelope(
    request: JobRequest,
    fields: Mapping[str, str],
    in_flight: int,
    usage: JobUsage | None,
    waiting: Waiting | None = None,
) -> JobView:
    """A job's envelope. fields: its hash in Redis; in_flight: the number of its images that workers hold now."""
    # counts are the fields whose names have the form GROUP:NAME
    numbers = {name: int(value) for name, value in fields.items() if ":" in name}
    status = JobStatus(fields["status"])
    # while a sample is not drawn, the images of the shards are not those of the job
    counts = RequestCounts() if request.draws else _counts(numbers, status, in_flight)
    remaining, rate = counts.queued + counts.processing, float(fields.get("rate") or 0) or None
    url = f"/v1/jobs/{request.id}"
    view = JobView(
        id=request.id,
        kind=request.kind,
        status=status,
        profile=request.profile,
        priority=request.priority,
        metadata=request.metadata,
        request_counts=counts,
        shards=_shards(numbers, len(request.shards)),
        groups={group: _progress(numbers, group) for group in GROUPS},
        usage=usage,
        budget=request.budget,
        images_per_second=rate,
        eta_seconds=round(remaining / rate, 1) if rate and remaining else None,
        created_at=request.created_at,
        started_at=_time(fields.get("started_at")),
        finished_at=_time(fields.get("finished_at")),
        error=without_secrets(fields["error"]) if "error" in fields else None,
        waiting=waiting,
        links={"self": url, **{name: f"{url}/{name}" for name in _links_of(request)}},
        tenant=request.tenant,
        chosen=request.chosen,
        sample=_sample(request),
    )
    return with_rate(view) if status.final else view


def with_rate(view: JobView) -> JobView:
    """The envelope of a job that has ended with the rate of its whole last run; the working copy's is that of its end.

    In an end that an earlier version has written too.
    """
    return view.model_copy(update={"images_per_second": view.run_rate})


def _links_of(request: JobRequest) -> Sequence[str]:
    return (*_LINKS, "estimate") if request.sample else _LINKS


def _sample(request: JobRequest) -> JobSample | None:
    found = request.sample
    return JobSample.model_validate(found.model_dump(include=set(JobSample.model_fields))) if found else None


def _shards(numbers: Mapping[str, int], total: int) -> ShardCounts:
    unreadable = numbers.get("index:unreadable", 0)
    return ShardCounts(
        total=total,
        indexed=numbers.get("index:chunks", 0) - unreadable,
        failed=unreadable,
        left_out={reason: found for reason in LEFT_OUT if (found := numbers.get(f"index:left_out:{reason}", 0))},
    )


def damaged_envelope(job_id: str, error: str, tenant: str = "") -> JobView:
    """The envelope of a job of which a file of the store is damaged, so that its state is not known."""
    return JobView(
        id=job_id,
        kind="batch",
        status=JobStatus.FAILED,
        profile="",
        priority="lo",
        request_counts=RequestCounts(),
        shards=ShardCounts(),
        groups={group: GroupProgress() for group in GROUPS},
        created_at=datetime.fromtimestamp(created_at(job_id), UTC),
        error=error,
        links={"self": f"/v1/jobs/{job_id}", "retry": f"/v1/jobs/{job_id}/retry"},
        tenant=tenant,
    )


def _counts(numbers: Mapping[str, int], status: JobStatus, in_flight: int) -> RequestCounts:
    """The job's images by state. Images without a result at the job's end count as cancelled."""
    counts = RequestCounts(
        total=numbers.get("index:images", 0),
        succeeded=numbers.get(f"{FINAL_GROUP}:succeeded", 0),
        filtered=numbers.get(f"{FINAL_GROUP}:filtered", 0),
        failed=numbers.get(f"{FINAL_GROUP}:failed", 0),
    )
    remaining = counts.total - counts.succeeded - counts.filtered - counts.failed
    if status.final:
        counts.cancelled = remaining
    else:
        # heartbeats are some seconds old, so more images may seem to be in flight than remain
        counts.processing = min(remaining, in_flight)
        counts.queued = remaining - counts.processing
    return counts


def _progress(numbers: Mapping[str, int], group: str) -> GroupProgress:
    return GroupProgress(**{name: numbers.get(f"{group}:{name}", 0) for name in GroupProgress.model_fields})


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def backlog(jobs: Iterable[OpenCounts], now: float) -> tuple[int, dict[str, GroupBacklog]]:
    """How many of these jobs are unfinished, and what each group has still to compute for them.

    now: seconds since 1970.
    """
    number, groups = 0, {group: GroupBacklog() for group in GROUPS}
    for job in jobs:
        if job.status in (JobStatus.VALIDATING, JobStatus.IN_PROGRESS):
            number += 1
            _add_to_backlog(groups, job, now - job.created_at)
    return number, groups


def _add_to_backlog(groups: Mapping[str, GroupBacklog], job: OpenCounts, age: float) -> None:
    index, *others = groups
    shards = max(0, job.shards - job.counts[f"{index}:chunks"])
    groups[index].shards += shards
    waits = {index: shards}
    # what one group has done is ready for the next one
    # of the images of a job's shards perhaps only a sample is described
    total = before = 0 if job.draws else job.counts[f"{index}:images"]
    for group in others:
        done = job.counts[f"{group}:images"]
        waits[group] = total - done
        groups[group].images += waits[group]
        groups[group].ready += max(0, before - done)
        before = done
    for group in filter(waits.get, waits):
        groups[group].oldest_seconds = max(groups[group].oldest_seconds or 0.0, age)
