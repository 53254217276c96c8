"""The runs of jobs, made from what the store has of a job. The process that schedules tells them, or `strata run`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from strata.addresses import without_secrets
from strata.core import FINAL_GROUP, JobEnd, JobRequest, JobStatus, JobView, ShardSummaries, ShardSummary
from strata.errors import DamagedFile
from strata.lineage.datasets import rows_data, shards_data
from strata.lineage.receivers import Receiver, open_receiver
from strata.lineage.runs import Parent, Run, State, parent_of, parents_of
from strata.store import Store

PARENT = "openlineage_parent"  # the key of a job's metadata that names who has asked, as NAMESPACE/JOB/RUN
_ENDS: dict[JobStatus, State] = {
    JobStatus.COMPLETED: "COMPLETE",
    JobStatus.FAILED: "FAIL",
    JobStatus.CANCELLED: "ABORT",
}


Watch = Callable[[Store, JobRequest, JobStatus], None]


def job_watch(receiver: Receiver, parents: tuple[Parent, ...] = ()) -> Watch:
    """What tells a receiver the beginning and the end of each job of shards. A call returns at once.

    It is called with a job's store, its request and its new status. A job of a single image is not told: there may be
    thousands of them in a minute. parents: who has started the process, for jobs whose metadata name nobody.
    """

    def watch(store: Store, request: JobRequest, status: JobStatus) -> None:
        if request.kind != "image" and (status is JobStatus.IN_PROGRESS or status in _ENDS):
            now = datetime.now(UTC)
            # the store is read in the receiver's thread: a scheduler must not wait for it
            receiver.send(lambda: _job_event(store, request, status, now, parents))

    return watch


@contextmanager
def told_jobs(place: str | None, tell: Callable[[str], object]) -> Iterator[Watch]:
    """What tells the jobs of a command, as `told_run` tells other commands; it tells nobody if nobody asks.

    place: a URL or a file; None: what the environment says. Raises InvalidInput for a place that cannot be used.
    """
    receiver = open_receiver(place, tell)
    if receiver is None:
        yield lambda store, request, status: None
        return
    try:
        yield job_watch(receiver, parents_of(os.environ))
    finally:
        receiver.close()


def _job_event(store: Store, request: JobRequest, status: JobStatus, now: datetime, parents: tuple[Parent, ...]) -> Any:
    """The event that tells a status of a job. Raises OSError."""
    from strata.lineage.events import event_of

    end: JobEnd | None = None
    if status in _ENDS:
        with suppress(DamagedFile):
            end = store.parse_job_file(request.id, "end", JobEnd)
    run = job_run(store, request, end, parents)
    at, error = (end.finished_at, end.error) if end else (None, None)
    return event_of(run, _ENDS.get(status, "START"), at or now, without_secrets(error or ""))


def job_run(store: Store, request: JobRequest, end: JobView | None = None, parents: tuple[Parent, ...] = ()) -> Run:
    """The run of a job, or of one of its retries: it has the same id in every process. end: if it has ended.

    Raises OSError.
    """
    summaries: ShardSummaries | None = None
    with suppress(DamagedFile):
        summaries = store.parse_job_file(request.id, "shards", ShardSummaries)
    shards = summaries.shards if summaries else [ShardSummary(shard=shard) for shard in request.shards]
    fingerprint = request.fingerprints[FINAL_GROUP]
    counts = end.request_counts if end is not None else None
    tags = {"strata_job": request.id, "profile": request.profile, "fingerprint": fingerprint}
    if counts is not None:
        tags |= {name: str(getattr(counts, name)) for name in ("succeeded", "filtered", "failed")}
    asked = parent_of(request.metadata.get(PARENT) or "")
    return Run(
        f"describe.{request.profile}",
        str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:strata:job:{request.id}:{request.run}")),
        inputs=shards_data(store.uri, shards),
        outputs=[rows_data(store.uri, fingerprint, counts.succeeded if counts is not None else None)],
        tags=tags,
        parents=(asked,) if asked else parents,
    )
