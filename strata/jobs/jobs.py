"""Jobs: cancelling and retrying them, and the envelope that shows their progress. `new_jobs.py` creates them.

A job's request and its end are files in the store. Redis holds the working copy, which can be rebuilt from them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from strata.core import (
    FINAL_GROUP,
    GROUPS,
    Backlog,
    Cancellation,
    Chunk,
    GroupBacklog,
    JobEnd,
    JobRequest,
    JobRun,
    JobStatus,
    JobView,
    ShardSummaries,
    ShardSummary,
    Status,
    is_job_id,
)
from strata.errors import Conflict, DamagedFile, NotFound, QueueUnavailable
from strata.jobs.envelope import backlog, damaged_envelope, envelope, with_rate
from strata.jobs.job_parts import JobParts
from strata.jobs.new_jobs import NewJobs
from strata.jobs.waiting import Activity
from strata.logs import log_context
from strata.queue import NO_COPY, PRIORITIES, OpenCounts, Queue, WorkingCopy
from strata.store import READERS, Attempts, BrokenPart, Footer, Store
from strata.telemetry import COUNTERS, span
from strata.webhooks import Outbox

log = logging.getLogger(__name__)

_FINAL = frozenset(status.value for status in JobStatus if status.final)


Watch = Callable[[Store, JobRequest, JobStatus], object]


class UnknownJob(NotFound, LookupError):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job has the id {job_id[:100]!r}")


class ImageRemoved(NotFound):
    """The upload of a job was removed, so that its image cannot be computed again."""

    def __init__(self) -> None:
        super().__init__("the uploaded image was removed; send it again to describe it again")


class NotFinished(Conflict, ValueError):
    """The job's status does not allow a retry."""

    def __init__(self, status: JobStatus) -> None:
        super().__init__(f"the job is {status.value}; only a job that is completed or failed can be retried")


class Jobs:
    """Shows, cancels and retries jobs; `new` creates them. Every method raises QueueUnavailable and OSError."""

    def __init__(self, queue: Queue, store: Store) -> None:
        self.queue, self.store = queue, store
        self.ledger = queue.ledger
        self.parts = JobParts(queue.job_states, store)
        self.outbox = Outbox(store)
        self.new = NewJobs(queue, store, self.parts, self.outbox)
        # is told that a job is computed, and how it has ended, by the process that schedules
        self.watch: Watch = lambda store, request, status: None

    def activate(self, request: JobRequest, pinned: Iterable[ShardSummary] = ()) -> None:
        """Create an unfinished job's working copy in Redis, where it is missing, and hand the job to the scheduler.

        pinned: the summaries of shards that were indexed for this job before. A job keeps them as long as it lives, so
        that a folder's files that came, changed or went since do not change what the job describes.
        """
        # record indexed shards before the scheduler sees the job, because it would queue them for indexing
        self.new.create_copy(request, pinned)
        self.queue.job_states.activate(request.id)

    def restore(self, job_id: str) -> None:
        """Activate a job that is open in the store, but not in Redis: its working copy was lost, or is incomplete.

        It also completes a retry whose process died, and runs a job again whose end `strata verify` has removed. Raises
        UnknownJob and DamagedFile.
        """
        # a process of `strata run` computes it; when that has died, the next review takes the job over
        if self._run(job_id) is not None:
            return
        request, states = self.request(job_id), self.queue.job_states
        status, has_end = self.status(job_id), self.store.read_job_file(job_id, "end") is not None
        if status is not None and not status.final and has_end:
            self._reopen(request)
        elif status is JobStatus.COMPLETED and not has_end and not states.is_active(job_id):
            self._run_again(request)
        elif self.store.read_job_file(job_id, "cancel") is None:
            self.activate(request, list(self.with_index(request, self._stored_summaries(job_id))))
        else:
            # nothing is indexed for a cancelled job: its shards so far are those that the store knows
            self.new.create_copy(request, self.summaries(job_id).values())
            self.set_status(job_id, JobStatus.CANCELLING)
            states.activate(job_id)

    def request(self, job_id: str) -> JobRequest:
        """A job's request. Raises UnknownJob and DamagedFile."""
        if not is_job_id(job_id):
            raise UnknownJob(job_id)
        request = self.queue.job_states.request(job_id) or self.store.parse_job_file(job_id, "request", JobRequest)
        if request is None:
            raise UnknownJob(job_id)
        return request

    def tenant(self, job_id: str) -> str | None:
        """To whom a job belongs; None if it is not there, or its request is damaged."""
        try:
            return self.request(job_id).tenant
        except (UnknownJob, DamagedFile, ValueError):
            return None

    def status(self, job_id: str) -> JobStatus | None:
        """A job's status in Redis; None if Redis has no copy of the job."""
        return self.queue.job_states.status(job_id)

    def set_status(self, job_id: str, status: JobStatus, **fields: str) -> JobStatus | None:
        """Change a job's status, and other fields of its hash, in one step, if `TRANSITIONS` allows the change.

        Returns the status that stands afterwards: another one if a different process has changed it before. Then
        nothing was changed, and the caller must act on the status that stands. None if Redis has no copy of the job.
        """
        return self.queue.job_states.set_status(job_id, status, **fields)

    def cancel(self, job_id: str) -> JobView:
        """Request a job's cancellation; the parts that are computed stay. A finished job is left as it is."""
        view = self.view(job_id)
        if view.status.final:
            return view
        # `strata run` looks for the file from time to time
        if self._run(job_id) is not None:
            self.store.write_job_file(job_id, "cancel", Cancellation(requested_at=datetime.now(UTC)))
            return view.model_copy(update={"status": JobStatus.CANCELLING})
        if self.set_status(job_id, JobStatus.CANCELLING) is JobStatus.CANCELLING:
            # keep the request in the store
            self.store.write_job_file(job_id, "cancel", Cancellation(requested_at=datetime.now(UTC)))
            # if Redis was emptied in between, this restores the job, whose cancellation is then repeated
            self.view(job_id)
            self.set_status(job_id, JobStatus.CANCELLING)
        return self.view(job_id)

    def retry(self, job_id: str) -> JobView:
        """Retry a finished job's failed images, and its shards that could not be read. Results are kept.

        Each chunk with failed images gets one more attempt, with a part of its own. A job in which nothing failed
        is left as it is. Raises NotFinished, ImageRemoved and UnknownJob.
        """
        view, request = self.view(job_id), self.request(job_id)
        if view.status not in (JobStatus.COMPLETED, JobStatus.FAILED):
            raise NotFinished(view.status)
        if view.status is JobStatus.COMPLETED and not view.request_counts.failed and not view.shards.failed:
            return view
        if request.kind == "image" and not self.store.has_upload(request.shards[0]):
            raise ImageRemoved
        # the next attempt of a chunk has a part name of its own, so that the scheduler finds it missing
        retries = dict(request.retries)
        for summary in self.summaries(job_id).values():
            for chunk in self._failed_chunks(request, summary):
                retries[chunk.field] = chunk.attempt + 1
        request = request.model_copy(update={"retries": retries, "run": request.run + 1})
        COUNTERS.add("strata_job_retries")
        return self._run_again(request)

    def repair(self, job_id: str, error: BrokenPart) -> bool:
        """Set a broken part of a job aside; if the job is completed, run it again, so that the part is computed anew.

        If the job has not ended, the part is found missing when its plan is compared with the store the next time.
        False if the part is not computed again, because the job was cancelled or has failed.
        """
        self.store.set_aside(error)
        status = self.view(job_id).status
        if status is JobStatus.COMPLETED:
            self._run_again(self.request(job_id))
        return status not in (JobStatus.CANCELLED, JobStatus.FAILED)

    def _run_again(self, request: JobRequest) -> JobView:
        """Open a job again that has ended; of the parts that it needs, those that exist are kept."""
        # mark the job as open, so that a retry whose process dies is completed by the scheduler
        self.store.open_job(request.id)
        # start with new counts: the parts of chunks that did not fail are found and counted again
        states = self.queue.job_states
        if states.run_again(request, JobStatus.VALIDATING, started_at=_now()) is JobStatus.VALIDATING:
            self._reopen(request)
        return self.view(request.id)

    def _reopen(self, request: JobRequest) -> None:
        """The second part of a retry, after the change of the status: the files of the store, then the scheduler."""
        self.queue.broker.withdraw(request.id)  # from chunks of the previous run
        # only shards that could not be read, or not to their ends, are indexed again
        known = self._stored_summaries(request.id) or request.indexed
        pinned = list(self.with_index(request, (one for one in known if one.failure is None)))
        self.store.write_job_file(request.id, "shards", ShardSummaries(shards=pinned))
        self.store.write_job_file(request.id, "request", request)
        for name in ("end", "cancel"):
            self.store.remove_job_file(request.id, name)
        # once more, because the mark of a job with an end may have been removed in between
        self.store.open_job(request.id)
        self.activate(request, pinned)

    def with_index(self, request: JobRequest, summaries: Iterable[ShardSummary]) -> Iterator[ShardSummary]:
        """Those of the summaries of a job's shards whose index parts exist; another shard is indexed again.

        Not so an upload: only the API indexes it. Shards of which a sample was drawn are the job's no longer.
        """
        own = set(request.shards)
        summaries = [one for one in summaries if one.shard in own]
        chunks = [(one, request.index_chunk(one.shard, one.identity)) for one in summaries]
        # several at a time: each is a round trip to a bucket
        with ThreadPoolExecutor(READERS) as pool:
            existing = pool.map(
                lambda pair: self.store.is_upload(pair[0].shard) or self.store.has_part(pair[1]), chunks
            )
            yield from (one for (one, _), exists in zip(chunks, existing, strict=True) if exists)

    def _failed_chunks(self, request: JobRequest, summary: ShardSummary) -> Iterator[Chunk]:
        """The chunks of a shard whose part holds failed images, with their newest attempts."""
        chunks = list(request.chunks(summary, FINAL_GROUP))
        attempts = self.store.attempts(chunks[0]) if chunks else Attempts()
        written = [newest for chunk in chunks if (newest := attempts.newest(chunk)) is not None]
        for chunk, footer in zip(written, self.store.read_all_footers(written), strict=True):
            # a broken part is set aside when the job is planned again
            if isinstance(footer, Footer) and footer.counts[Status.FAILED]:
                yield chunk

    def summaries(self, job_id: str) -> dict[str, ShardSummary]:
        """The summaries of a job's indexed shards by URI; of a finished job that Redis has lost, from the store."""
        found = self.queue.job_states.summaries(job_id)
        return found or {one.shard: one for one in self._stored_summaries(job_id) or self.request(job_id).indexed}

    def _stored_summaries(self, job_id: str) -> list[ShardSummary]:
        """The summaries of a job's shards that were written to the store; none of a job of one image."""
        kept = self.store.parse_job_file(job_id, "shards", ShardSummaries)
        return [] if kept is None else kept.shards

    def write_shards(self, job_id: str) -> None:
        """Write the summaries of a job's shards to the store, for readers that have no Redis."""
        shards = list(self.queue.job_states.summaries(job_id).values())
        # if Redis was emptied in this moment, the file of the store stays
        if shards:
            self.store.write_job_file(job_id, "shards", ShardSummaries(shards=shards))

    def write_end(self, job_id: str, status: JobStatus, written: dict[str, list[int]] | None) -> bool:
        """Write the end of a job whose status is final to the store, and close the job; False if it has another status.

        written: see `JobEnd`. If the process dies after any step, the job is still active, and the scheduler calls this
        once more.
        """
        fields = self.queue.job_states.fields(job_id)
        # the summaries first: if Redis is emptied after that, there is no status, and no end is written. The request of
        # a job of one image has its summary already
        if not fields.get("listed", "").startswith("image:"):
            self.write_shards(job_id)
            fields = self.queue.job_states.fields(job_id)
        if fields.get("status") != status or "request" not in fields:
            return False
        end = self._envelope(fields)
        with span("write end", [fields.get("trace", "")], job=job_id, status=status.value):
            self.store.write_job_file(job_id, "end", JobEnd(**dict(end), written=written))
        request = JobRequest.model_validate_json(fields["request"])
        self.tell_end(request)
        self.store.close_job(job_id)
        closed = self.queue.job_states.close_job(job_id, status)
        if closed:
            _tell_end(end)
            self.watch(self.store, request, status)
        return closed

    def tell_end(self, request: JobRequest) -> None:
        """Have the end of a job that was written told to whoever wants to know it; once, however often it is called."""
        if request.webhook:
            self.outbox.end(request.id, request.run)

    def written(self, job: JobView) -> dict[str, list[int]] | None:
        """Which chunks belong to a job that has ended, as `JobEnd.written`; None: all of them."""
        # a job that is complete needs no look into the store
        if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            return None
        end = self.store.parse_job_file(job.id, "end", JobEnd)
        return end.written if end is not None else None

    def accepted(self, request: JobRequest) -> JobView:
        """The envelope of a job that was just created; that of a job without progress if it cannot be read now."""
        try:
            return self.view(request.id)
        except (OSError, QueueUnavailable):
            return envelope(request, {"status": JobStatus.VALIDATING.value}, 0, None)

    def view(self, job_id: str) -> JobView:
        """A job's envelope. Raises UnknownJob.

        A job that has ended is shown as `finalizing` until its end is in the store, so that what is shown as ended
        stays so. A job with a damaged file is shown as failed, with the file's name.
        """
        (found,) = self.views([job_id])
        return found or self.stored_view(job_id)

    def views(self, job_ids: Sequence[str]) -> list[JobView | None]:
        """The envelopes of jobs, in order, in a few round trips to Redis for all of them, and no call to the store.

        None for a job whose envelope is in the store, because it has ended or Redis has no copy of it: `stored_view`
        reads it.
        """
        # no key is built from a text that cannot be an id
        ids = [job_id for job_id in job_ids if is_job_id(job_id)]
        copies = dict(zip(ids, self.queue.job_states.copies(ids), strict=True))
        # what the workers do is read once for all jobs, and only if one of them has not ended
        running = any(not _has_ended(copy.fields) for copy in copies.values())
        activity = Activity(self.queue) if running else None
        return [self._view(job_id, copies.get(job_id, NO_COPY), activity) for job_id in job_ids]

    def backlogs(self) -> dict[str, tuple[int, dict[str, GroupBacklog]]]:
        """By priority, how many jobs are unfinished, and what each group has still to compute for them."""
        found, now = self._open_counts(), time.time()
        return {name: backlog((one for one in found if one.priority == name), now) for name in PRIORITIES}

    def _open_counts(self) -> list[OpenCounts]:
        states = self.queue.job_states
        return states.open_counts(sorted(states.active()))

    def backlog(self, tenant: str | None = None) -> Backlog:
        """What all unfinished jobs have still to do, or those of a tenant, and how many workers are ready for it."""
        found = self._open_counts()
        jobs, groups = backlog((one for one in found if tenant in (None, one.tenant)), time.time())
        workers = self.queue.heartbeats.ready_workers()
        return Backlog(jobs=jobs, groups=groups, workers={group: workers[group] for group in GROUPS})

    def _view(self, job_id: str, copy: WorkingCopy, activity: Activity | None) -> JobView | None:
        fields = copy.fields
        try:
            if not _has_ended(fields):
                return self._envelope(fields, activity)
            if copy.active and {"request", "status"} <= fields.keys():
                return self._envelope({**fields, "status": JobStatus.FINALIZING.value})
            return None
        except ValueError as error:  # a copy of another version, or damaged, must not hide the other jobs
            return damaged_envelope(
                job_id, " ".join(f"its working copy in Redis cannot be read: {error}".split())[:300]
            )

    def stored_view(self, job_id: str) -> JobView:
        """The envelope of a job of which Redis has no copy or which has ended. Raises UnknownJob."""
        # other texts must not become part of a key or a path
        if not is_job_id(job_id):
            raise UnknownJob(job_id)
        try:
            return self._stored_view(job_id)
        except DamagedFile as error:
            return damaged_envelope(job_id, str(error), self.tenant(job_id) or "")

    def _stored_view(self, job_id: str) -> JobView:
        # a job that has ended is what the store says, because its files may have been removed since
        end = self.store.parse_job_file(job_id, "end", JobEnd)
        if end is not None:
            return with_rate(JobView.model_validate(dict(end)))
        # without its request too the job was deleted; otherwise Redis was emptied, or the job is run again
        if self.store.read_job_file(job_id, "request") is None:
            raise UnknownJob(job_id)
        if (run := self._run(job_id)) is not None:
            return run.view
        self.restore(job_id)
        return self.view(job_id)

    def _run(self, job_id: str) -> JobRun | None:
        """What `strata run` says of a job that it computes now, and of which Redis has no copy; None if it does not."""
        if self.status(job_id) is not None:
            return None
        run = self.store.parse_job_file(job_id, "run", JobRun)
        return run if run is not None and run.is_alive else None

    def _envelope(self, fields: dict[str, str], activity: Activity | None = None) -> JobView:
        """An envelope. activity: what the workers do; None: not shown, as nothing is in flight of a job that ends."""
        request = JobRequest.model_validate_json(fields["request"])
        usage = self.ledger.usage(request.id, request.priced) if request.paid else None
        if activity is None:
            return envelope(request, fields, 0, usage)
        in_flight = activity.images_in_flight(request.id)
        return envelope(request, fields, in_flight, usage, activity.waiting(request, fields.get("waiting")))


def _tell_end(job: JobView) -> None:
    """Log and count the end of a job."""
    counts = job.request_counts
    rows = f"{counts.succeeded} succeeded, {counts.filtered} filtered, {counts.failed} failed of {counts.total}"
    seconds = (job.finished_at - job.created_at).total_seconds() if job.finished_at else 0.0
    # for a single image the line of its request is enough
    level = logging.DEBUG if job.kind == "image" else logging.INFO
    with log_context(job=job.id):
        log.log(level, "job has ended: %s after %.1f s, %s", job.status.value, seconds, rows)
    COUNTERS.add("strata_jobs_ended", job.kind, job.status.value)


def _has_ended(fields: Mapping[str, str]) -> bool:
    """Whether a job's hash is that of a job that has ended, or Redis has no complete one."""
    return not {"request", "status"} <= fields.keys() or fields["status"] in _FINAL


def _now() -> str:
    return datetime.now(UTC).isoformat()
