"""New jobs: each is accepted as a whole, with its request in the store and its working copy in Redis, or not at all."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple

from strata.core import (
    DEFAULT_TENANT,
    FINAL_GROUP,
    GROUPS,
    Budget,
    ChosenRows,
    JobKind,
    JobRequest,
    JobStatus,
    Pin,
    Priority,
    Profile,
    Sample,
    ShardSummary,
    WebhookTarget,
    chosen_shard,
)
from strata.counts import counted
from strata.errors import QueueUnavailable
from strata.jobs.job_parts import JobParts
from strata.logs import log_context
from strata.queue import Bounds, Limit, Queue, image_of
from strata.quotas import KeyUse
from strata.store import Attempts, IndexRow, Part, Store, index_table, keep_profile
from strata.telemetry import COUNTERS, current_trace
from strata.webhooks import Outbox

log = logging.getLogger(__name__)

STORE_CALLS = 64  # at a time; the calls of one image are made together


def new_job_id() -> str:
    """A new id. Ids sort by the time of their creation."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(5)}"


def _tell_new(request: JobRequest) -> None:
    """Log and count a new job."""
    # for a single image the line of its request is enough
    level = logging.DEBUG if request.kind == "image" else logging.INFO
    with log_context(job=request.id):
        shards = counted(len(request.shards), "shard")
        log.log(level, "job begins: %s, profile %s, priority %s", shards, request.profile, request.priority)
    COUNTERS.add("strata_jobs_created", request.kind)


class NewJobs:
    """Creates jobs. Every method raises QueueUnavailable and OSError, and leaves nothing of a job behind then."""

    def __init__(self, queue: Queue, store: Store, parts: JobParts, outbox: Outbox) -> None:
        self.queue, self.store, self.parts, self.outbox = queue, store, parts, outbox
        self._pool = ThreadPoolExecutor(STORE_CALLS, thread_name_prefix="jobs")
        self._profiles: set[str] = set()  # fingerprints whose profile is known to be in the store

    def create(
        self,
        kind: JobKind,
        shards: list[str],
        profile: Profile,
        priority: Priority,
        metadata: dict[str, str] | None = None,
        indexed: Iterable[ShardSummary] = (),
        budget: Budget | None = None,
        caller: str = "",
        bounds: Bounds | None = None,
        webhook: WebhookTarget | None = None,
        tenant: str = DEFAULT_TENANT,
        use: KeyUse | None = None,
        chosen: Chosen | None = None,
        sample: Sample | None = None,
    ) -> JobRequest:
        """Write a job's request to the store and activate the job; the scheduler queues its chunks.

        indexed: the summaries of shards that need no indexing; caller: whose turns it takes; bounds: of what the queue
        takes; webhook: whom its end is told; tenant: to whom it belongs; use: the quotas of its key, which count when
        chunks are queued; chosen: rows instead of shards; sample: of their images. Raises QueueFull.
        """
        request = new_request(kind, shards, profile, priority, metadata or {}, list(indexed), budget, caller, tenant)
        more = {"webhook": webhook is not None, "key": use.key_id if use else "", "sample": sample}
        request = of_chosen(request.model_copy(update=more), chosen)
        self.queue.ping()  # before anything is written: a job must not be accepted if nothing can schedule it
        self.check(limits := bounds.limits(kind, caller, len(request.shards)) if bounds else [])
        with self._withdrawn_on_error(request.id):
            # mark the job as open first: if the process dies in between, a mark without a request is left and ignored
            self._together(
                self.store.check_mark, lambda: self._keep_profile(profile), lambda: self.store.open_job(request.id)
            )
            if webhook is not None:
                self.outbox.prepare(request.id, webhook)
            write_request(self.store, request, chosen)
            self._create_new(request, use)
            self.queue.job_states.activate(request.id, limits)
        _tell_new(request)
        return request

    def check(self, limits: Sequence[Limit]) -> None:
        """Check whether a job will be taken, before any work is done for it. Raises QueueFull."""
        if limits:
            self.queue.job_states.check(limits)

    def create_image(
        self,
        data: bytes,
        alt_text: str | None,
        profile: Profile,
        caller: str = "",
        limits: Sequence[Limit] = (),
        tenant: str = DEFAULT_TENANT,
        use: KeyUse | None = None,
    ) -> JobRequest:
        """Store an image and create a job for it alone, whose first chunk is queued at once.

        The upload is a shard of one image, which is indexed and queued here: the request need not wait for the
        scheduler. Only two calls to a bucket follow one another: all that the request refers to, then the request. What
        is computed already is not counted for the key. Raises QueueFull and QuotaExceeded.
        """
        digest = hashlib.sha256(data).hexdigest()
        summary = self._shard_of(digest, alt_text)
        request = new_request("image", [summary.shard], profile, "hi", {}, [summary], None, caller, tenant)
        request = request.model_copy(update={"key": use.key_id if use else ""})
        row = IndexRow(digest[:16], summary.shard, 0, len(data), alt_text)
        # fail before anything is written if Redis is away
        with self._announced(request) as existing, self._withdrawn_on_error(request.id, use):
            if use is not None and use.counts_bytes and not existing[0].result():
                use.store(image_of(summary.shard), len(data))
            known = self._store_image(request, row, data, profile)
            self.store.write_job_file(request.id, "request", request)
            self._create_new(request, use)
            # mostly no part of the image exists; those that do are counted, before the scheduler may end the job
            exists = any(attempts.found or attempts.broken for attempts in known)
            if exists:
                request, missing = self.parts.missing(request, summary)
            else:
                missing = list(request.chunks(summary, GROUPS[1]))
            if use is not None:
                use.images(request.id, missing)
            self.queue.job_states.activate(request.id, limits)
            self.queue.broker.enqueue_all(missing, request.id, request.priority)
        _tell_new(request)
        return request

    def _store_image(self, request: JobRequest, row: IndexRow, data: bytes, profile: Profile) -> list[Attempts]:
        """Store all that the request for an image refers to; which parts of the image there are, by group."""
        (summary,) = request.indexed
        chunks = [chunk for group in GROUPS[1:] for chunk in request.chunks(summary, group)]
        listings = [self._pool.submit(self.store.attempts, chunk) for chunk in chunks]
        self._together(
            self.store.check_folder,
            lambda: self.store.put_upload(hashlib.sha256(data).hexdigest(), data),
            lambda: self._write_index(request, summary, row),
            lambda: self._keep_profile(profile),
            lambda: self.store.open_job(request.id),
        )
        return [listing.result() for listing in listings]

    def _write_index(self, request: JobRequest, summary: ShardSummary, row: IndexRow) -> None:
        """The index part of an upload, as the group `index` would write it."""
        self.store.write_index(request.index_chunk(summary.shard, summary.identity), index_table([row]))

    def _shard_of(self, digest: str, alt_text: str | None) -> ShardSummary:
        """An upload as a shard. The same image with the same text has the same identity: its parts are found again."""
        identity = hashlib.sha256(f"{digest}\0{alt_text or ''}".encode()).hexdigest()[:16]
        return ShardSummary(shard=self.store.upload_uri(digest), identity=identity, images=1)

    def _keep_profile(self, profile: Profile) -> None:
        """Keep a profile's content, once for each fingerprint, so that the parts' origin can be looked up."""
        fingerprint = profile.fingerprint(FINAL_GROUP)
        if fingerprint not in self._profiles:
            keep_profile(self.store, profile)
            self._profiles.add(fingerprint)

    def _create_new(self, request: JobRequest, use: KeyUse | None) -> None:
        """Create the working copy of a new job, whose request is in the store."""
        # a new job's ledger is complete, because nothing has been spent yet
        if request.paid:
            self.queue.ledger.begin(request.id, request.budget, new=True, key_id=request.key)
            if use is not None and use.quotas.money_a_day is not None:
                self.queue.ledger.allow({use.key_id: use.quotas.money_a_day})
        self.create_copy(request, ())

    @contextmanager
    def _announced(self, request: JobRequest) -> Iterator[list[Future[bool]]]:
        """Within the block the upload of a job is not removed, though no job that is listed may use it.

        If the block fails, the files that the request has created are removed, unless others need them. Yields whether
        the upload and its index part exist.
        """
        listed, image = self.queue.job_list, image_of(request.shards[0])
        (summary,) = request.indexed
        listed.announce(image, request.id)
        try:
            index = request.index_chunk(summary.shard, summary.identity)
            asks = (lambda: self.store.has_upload(summary.shard), lambda: self.store.has_part(index))
            existing = [self._pool.submit(ask) for ask in asks]
            # a folder answers at once. A bucket is asked while the files are written: what it tells too late stays
            # after a refusal, until `strata clean` removes it
            if self.store.local:
                wait(existing)
            try:
                yield existing
            except Exception:
                paths = (self.store.upload_path(summary.shard), Part.of_chunk(index).path)
                self._remove_created(request, [path for path, one in zip(paths, existing, strict=True) if _is_new(one)])
                raise
        finally:
            with suppress(QueueUnavailable):  # then the announcement expires
                listed.withdraw(image, request.id)

    def _remove_created(self, request: JobRequest, paths: Sequence[str]) -> None:
        """Remove the new files of a request that was refused; `strata clean` removes what cannot be removed now."""
        listed, image = self.queue.job_list, image_of(request.shards[0])
        with suppress(OSError, QueueUnavailable):
            gone = listed.begin_removal(image, request.id, paths, self.store.upload_path(request.shards[0]))
            try:
                for path in gone:
                    self.store.remove(self.store.path(path))
            finally:
                listed.end_removal(image, request.id, bool(gone))

    @contextmanager
    def _withdrawn_on_error(self, job_id: str, use: KeyUse | None = None) -> Iterator[None]:
        """If the block fails, nothing of the new job stays: a request that was refused must not be run later.

        use: what it has used of the quotas of its key is given back.
        """
        try:
            yield
        except Exception:
            if use is not None:
                use.give_back(job_id)
            # what cannot be removed now is a job that nobody knows, or a mark without a request, which is ignored
            states, listed = self.queue.job_states, self.queue.job_list
            for remove in (self.store.remove_job, self.store.close_job, states.delete, listed.remove):
                with suppress(OSError, QueueUnavailable):
                    remove(job_id)
            raise

    def _together(self, *acts: Callable[[], None]) -> None:
        """Make calls that do not depend on each other. Raises the first error, after the last call."""
        futures = [self._pool.submit(act) for act in acts]
        wait(futures)
        for future in futures:
            future.result()

    def create_copy(self, request: JobRequest, pinned: Iterable[ShardSummary]) -> None:
        """Create a job's working copy in Redis, where it is missing, with the shards that need no indexing."""
        if request.paid:
            self.queue.ledger.begin(request.id, request.budget, key_id=request.key)
        states = self.queue.job_states
        # an upload needs no validation: the API has decoded it
        status = JobStatus.IN_PROGRESS if request.kind == "image" else JobStatus.VALIDATING
        states.create(request, status=status.value, started_at=datetime.now(UTC).isoformat())
        for summary in {one.shard: one for one in (*pinned, *request.indexed)}.values():
            states.record(request.id, request.index_chunk(summary.shard), summary.counts, summary)


def _is_new(exists: Future[bool]) -> bool:
    """Whether it is certain that a file did not exist."""
    wait([exists])
    return exists.exception() is None and not exists.result()


class Chosen(NamedTuple):
    """What a job describes if it has no shards of its own: rows of other jobs. pin: where they are chosen from."""

    rows: ChosenRows
    pin: Pin


def write_request(store: Store, request: JobRequest, chosen: Chosen | None) -> None:
    """Write a job's request to the store, after what it chooses rows from. Raises OSError."""
    if chosen is not None:
        store.write_job_file(request.id, "chosen", chosen.pin)
    store.write_job_file(request.id, "request", request)


def of_chosen(request: JobRequest, chosen: Chosen | None) -> JobRequest:
    """The request of a job with the rows that it chooses of each shard as its shards; the same if it chooses none."""
    if chosen is None:
        return request
    shards = [chosen_shard(one.uri, request.id, one.identity) for one in chosen.pin.shards]
    return request.model_copy(update={"shards": shards, "chosen": chosen.rows})


def new_request(
    kind: JobKind,
    shards: list[str],
    profile: Profile,
    priority: Priority,
    metadata: dict[str, str],
    indexed: list[ShardSummary],
    budget: Budget | None,
    caller: str,
    tenant: str = DEFAULT_TENANT,
) -> JobRequest:
    """A new job's request. It holds everything that decides which parts belong to the job."""
    return JobRequest(
        id=new_job_id(),
        kind=kind,
        shards=list(dict.fromkeys(shards)),
        profile=profile.name,
        fingerprints={group: profile.fingerprint(group) for group in GROUPS},
        chunk_size=profile.chunk_size,
        priority=priority,
        metadata=metadata,
        created_at=datetime.now(UTC),
        indexed=indexed,
        paid=[group for group in GROUPS if profile.paid(group)],
        priced=profile.priced,
        budget=budget,
        caller=caller,
        tenant=tenant,
        trace=current_trace(),
    )
