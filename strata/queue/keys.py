"""Every name that Strata uses in Redis."""

from __future__ import annotations

CONSUMER_GROUP = "strata"
QUEUED = "strata:queued"  # hash: chunk id -> message id; there while the chunk is queued or in hand
ACTIVE = "strata:active"  # set of the ids of unfinished jobs
WORKERS = "strata:workers"  # set of the names of workers
SCHEDULER = "strata:scheduler"  # who schedules now, with an expiry
PRIORITIES = ("hi", "lo")


def stream(group: str, priority: str) -> str:
    """The stream of a group and priority."""
    return f"strata:stream:{group}:{priority}"


def waiters(chunk_id: str) -> str:
    """Set: the jobs that wait for a chunk."""
    return f"strata:waiters:{chunk_id}"


def in_hand(chunk_id: str) -> str:
    """Hash: `now`: the row in hand alone, or `chunk`; ROW and `chunk`: how many workers died with that in hand."""
    return f"strata:in_hand:{chunk_id}"


def job(job_id: str) -> str:
    """Hash: request, status, times, error, rate, and counts as `GROUP:NAME`."""
    return f"strata:job:{job_id}"


def done(job_id: str, group: str) -> str:
    """Hash: what a group has done for a job. index: shard -> summary; others: IDENTITY/CHUNK -> counts."""
    return f"strata:job:{job_id}:{group}"


def events(job_id: str) -> str:
    """Stream: a job's events, trimmed (they are told, not owed)."""
    return f"strata:job:{job_id}:events"


def ledger(job_id: str) -> str:
    """Hash: a job's budget, what it has spent and reserved, and the entries that this is the sum of."""
    return f"strata:ledger:{job_id}"


def worker(name: str) -> str:
    """String with an expiry: a worker's heartbeat."""
    return f"strata:worker:{name}"


def idempotency(key: str) -> str:
    """String with an expiry: the answer that an idempotency key got."""
    return f"strata:idempotency:{key}"
