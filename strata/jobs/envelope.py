"""The envelope of a job, made of its request and its working copy in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from strata.core.profiles import FINAL_GROUP, GROUPS
from strata.core.requests import JobRequest
from strata.core.schemas import GroupProgress, JobStatus, JobUsage, JobView, RequestCounts, ShardCounts


def envelope(request: JobRequest, fields: Mapping[str, str], in_hand: int, usage: JobUsage | None) -> JobView:
    """The job as it stands. fields: its hash in Redis; in_hand: its images that workers hold now."""
    numbers = {name: int(value) for name, value in fields.items() if ":" in name}
    status = JobStatus(fields["status"])
    counts = _counts(numbers, status, in_hand)
    left = counts.queued + counts.processing
    rate = float(fields["rate"]) if fields.get("rate") else None
    own = f"/v1/jobs/{request.id}"
    return JobView(
        id=request.id,
        kind=request.kind,
        status=status,
        profile=request.profile,
        priority=request.priority,
        metadata=request.metadata,
        request_counts=counts,
        shards=ShardCounts(
            total=len(request.shards),
            indexed=numbers.get("index:chunks", 0) - numbers.get("index:unreadable", 0),
            failed=numbers.get("index:unreadable", 0),
        ),
        groups={group: _progress(numbers, group) for group in GROUPS},
        usage=usage,
        budget=request.budget,
        images_per_second=rate,
        eta_seconds=round(left / rate, 1) if rate and left else None,
        created_at=request.created_at,
        started_at=_time(fields.get("started_at")),
        finished_at=_time(fields.get("finished_at")),
        error=fields.get("error"),
        links={"self": own, **{name: f"{own}/{name}" for name in ("results", "failures", "events", "cancel", "retry")}},
    )


def _counts(numbers: Mapping[str, int], status: JobStatus, in_hand: int) -> RequestCounts:
    """Images by where they stand; what a job left undone at its end is cancelled."""
    counts = RequestCounts(
        total=numbers.get("index:images", 0),
        succeeded=numbers.get(f"{FINAL_GROUP}:succeeded", 0),
        filtered=numbers.get(f"{FINAL_GROUP}:filtered", 0),
        failed=numbers.get(f"{FINAL_GROUP}:failed", 0),
    )
    left = counts.total - counts.succeeded - counts.filtered - counts.failed
    if status.final:
        counts.cancelled = left
    else:
        counts.processing = min(left, in_hand)
        counts.queued = left - counts.processing
    return counts


def _progress(numbers: Mapping[str, int], group: str) -> GroupProgress:
    return GroupProgress(**{name: numbers.get(f"{group}:{name}", 0) for name in GroupProgress.model_fields})


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
