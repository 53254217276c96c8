"""A job that is run without Redis: opened, indexed, planned and ended with the files of the store alone.

Its files and parts are those of any job, so that a service shows it, takes it over when the run has died, and gives its
results. While it is run, `run.json` has its envelope.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from strata.core import (
    FINAL_GROUP,
    GROUPS,
    Bill,
    Budget,
    Chunk,
    JobEnd,
    JobRequest,
    JobRun,
    JobSample,
    JobStatus,
    JobUsage,
    JobView,
    Profile,
    ShardSummaries,
    ShardSummary,
    Waiting,
    is_job_id,
    source_shard,
)
from strata.errors import Conflict, NotFound
from strata.jobs.envelope import envelope
from strata.jobs.finalizer import final_counts
from strata.jobs.job_parts import JobParts
from strata.jobs.new_jobs import Chosen, new_request, of_chosen, write_request
from strata.jobs.plans import Plan
from strata.jobs.sampling import draw, sample_of
from strata.queue import Claim
from strata.store import Footer, Store, keep_profile, reason_of
from workers.engines.desk import LocalDesk
from workers.engines.feeding import STREAM, Ended
from workers.engines.memory import MemoryBudget, MemoryCounts, MemoryNotes
from workers.indexer import ShardIndexer
from workers.retry import Result, WorkInterrupted, retry_until_done

log = logging.getLogger(__name__)

INDEXERS = 8  # shards that are indexed at a time: most of it is waiting for a storage
WRITE_SECONDS = 2.0  # between two writings of `run.json`


class Asked(NamedTuple):
    """What a new job is to do. profile: with the texts that are wanted; sample: of which images, None: of all.

    chosen: rows of other jobs, without shards.
    """

    shards: Sequence[str]
    profile: Profile
    metadata: Mapping[str, str]
    budget: Budget | None
    sample: JobSample | None = None
    chosen: Chosen | None = None


def new_job(store: Store, asked: Asked) -> JobRequest:
    """Write the request of a new job to the store. Raises OSError."""
    request = new_request("batch", list(asked.shards), asked.profile, "lo", dict(asked.metadata), [], asked.budget, "")
    if asked.sample is not None:
        request = request.model_copy(update={"sample": sample_of(asked.sample, asked.profile)})
    request = of_chosen(request, asked.chosen)
    if store.find_mark() is None:
        store.make_mark()
    keep_profile(store, asked.profile)
    store.open_job(request.id)
    write_request(store, request, asked.chosen)
    return request


def known_job(store: Store, job_id: str) -> JobRequest:
    """The request of a job that has not ended, or has failed: then it is opened again.

    Raises NotFound, Conflict if it was cancelled or if another run has it, DamagedFile and OSError.
    """
    request = store.parse_job_file(job_id, "request", JobRequest) if is_job_id(job_id) else None
    if request is None:
        raise NotFound(f"the store has no job {job_id[:100]!r}")
    end = store.parse_job_file(job_id, "end", JobEnd)
    if end is not None and end.status is JobStatus.CANCELLED:
        raise Conflict(f"job {job_id} was cancelled; submit its shards again, and parts that exist are reused")
    run = store.parse_job_file(job_id, "run", JobRun)
    if run is not None and _is_alive(store, run):
        raise Conflict(f"job {job_id} is run by process {run.pid} on {run.host}; end that run, or wait for it")
    store.open_job(job_id)
    for name in ("end", "cancel"):
        store.remove_job_file(job_id, name)
    return request


def _is_alive(store: Store, run: JobRun) -> bool:
    """Whether the process of a run is there. Of another machine its file tells it, which changes in some seconds."""
    if not run.is_alive:
        return False
    if run.host == socket.gethostname():
        # a signal 0 only asks whether the process exists
        with suppress(PermissionError):
            try:
                os.kill(run.pid, 0)
            except ProcessLookupError:
                return False
        return run.pid != os.getpid()
    time.sleep(4 * WRITE_SECONDS)
    later = store.parse_job_file(run.view.id, "run", JobRun)
    return later is not None and later.updated_at != run.updated_at


class EngineJob:
    """The job of this run. Every method raises OSError.

    engine: its name; notes: where death notes are kept; stop: set to end the run. on_view: is shown the envelope from
    time to time.
    """

    def __init__(
        self, store: Store, request: JobRequest, engine: str, on_view: Callable[[JobView], None], notes: MemoryNotes
    ) -> None:
        self.store, self.request, self.engine, self.on_view = store, request, engine, on_view
        self.counts = MemoryCounts()
        self.parts = JobParts(self.counts, store)
        self.desk = LocalDesk(notes, MemoryBudget(request.budget))
        self.summaries: dict[str, ShardSummary] = {}
        self.status, self.error = JobStatus.VALIDATING, ""
        self.cancelled, self.written, self.in_hand = False, 0, 0
        self._started, self._plan = datetime.now(UTC), Plan(request)
        self.bills: list[tuple[str, Bill]] = []  # of earlier runs, by the ids of their chunks
        self.seen: tuple[JobUsage, Waiting | None] | None = None  # what another process's desk has told last

    @property
    def stop(self) -> threading.Event:
        """Set to end the run: what is in flight is finished or given back."""
        return self.desk.stopped

    def fail(self, reason: str) -> None:
        """No process can compute the job: it ends as failed."""
        self.error = self.error or reason
        self.stop.set()

    # planning

    def index(self, roots: Sequence[str]) -> None:
        """Index the shards that are not indexed, and read the bills of earlier runs. Raises WorkInterrupted."""
        known = self.store.parse_job_file(self.request.id, "shards", ShardSummaries)
        indexer, before = ShardIndexer(self.store, roots), known.shards if known else self.request.indexed
        with ThreadPoolExecutor(INDEXERS, thread_name_prefix="index") as pool:
            pairs = zip(before, pool.map(self._has_index, before), strict=True)
            own = set(self.request.shards)
            kept = {one.shard: one for one, has_index in pairs if has_index and one.shard in own}
            missing = [shard for shard in self.request.shards if shard not in kept]
            found = pool.map(lambda shard: self._summary(indexer, shard), missing)
            for summary in (*kept.values(), *found):
                self.summaries[summary.shard] = summary
                self.counts.record(self.request.id, self.request.index_chunk(summary.shard), summary.counts)
        ordered = [self.summaries[shard] for shard in self.request.shards]
        self.summaries = {one.shard: one for one in ordered}
        self.store.write_job_file(self.request.id, "shards", ShardSummaries(shards=ordered))
        self.bills = [(part.id, footer.bill) for part, footer in self._bills() if footer.bill is not None]
        for chunk_id, bill in self.bills:
            self.desk.settle(chunk_id, bill)

    def draw(self) -> None:
        """Draw the sample of a job whose shards are indexed; from here on the job is one of the drawn images."""
        drawn = draw(self.store, self.request, list(self.summaries.values()))
        drawn.write(self.store)
        self.request = drawn.request
        self.summaries = {one.shard: one for one in self.request.indexed}
        self.counts = MemoryCounts()
        self.parts, self._plan = JobParts(self.counts, self.store), Plan(self.request)
        for summary in self.summaries.values():
            self.counts.record(self.request.id, self.request.index_chunk(summary.shard), summary.counts)

    def _has_index(self, summary: ShardSummary) -> bool:
        index = self.request.index_chunk(summary.shard, summary.identity)
        return summary.failure is None and (self.store.is_upload(summary.shard) or self.store.has_part(index))

    def _summary(self, indexer: ShardIndexer, shard: str) -> ShardSummary:
        """The summary of a shard. While its storage, or the store, does not answer, it is waited for."""
        claim = Claim(self.request.index_chunk(shard), STREAM, shard)

        def tell(stage: str) -> Callable[[Exception, int], None]:
            return lambda error, attempts: self.desk.wait_for(shard, stage, str(error), attempts)

        def stored(act: Callable[[], object]) -> object:
            return retry_until_done(act, (OSError,), self.stop, lambda: True, tell("store"))

        read = retry_until_done(
            lambda: indexer.summary(claim, stored), (OSError,), self.stop, lambda: True, tell("shard")
        )
        self.desk.works(shard)
        return read

    def _bills(self) -> Iterator[tuple[Chunk, Footer]]:
        """The chunks of this job that were paid for before, with the footers of their parts."""
        for summary in self.summaries.values() if self.request.paid else ():
            for group in self.request.paid:
                chunks = list(self.request.chunks(summary, group))
                attempts = self.store.all_attempts(chunks[0]) if chunks else {}
                parts = [replace(one, attempt=each) for one in chunks for each in attempts.get(one.number, ())]
                for part, footer in zip(parts, self.store.read_all_footers(parts), strict=True):
                    if isinstance(footer, Footer) and footer.bill is not None and footer.bill.job == self.request.id:
                        yield part, footer

    def plan(self) -> list[Chunk]:
        """The chunks to be computed next, of each row of images that of the first group whose part is missing.

        Those that have their parts are counted.
        """
        self.status, found = JobStatus.IN_PROGRESS, list[Chunk]()
        copies: dict[str, int] = {}
        for summary in self.summaries.values():
            number = copies[summary.identity] = copies.get(summary.identity, -1) + 1
            if not number:  # a shard with the content of another one has the same parts
                self.request, missing = self.parts.missing(self.request, summary)
                found += missing
        return found

    def following(self, chunk: Chunk) -> Chunk | None:
        """The chunk of the next group with the same images; None after the last group."""
        groups = GROUPS[GROUPS.index(chunk.group) + 1 :]
        return chunk.of_group(groups[0], self.request.fingerprints[groups[0]]) if groups else None

    def note(self, ended: Ended) -> None:
        """Count a chunk that has ended."""
        if ended.how == "written":
            self.counts.record(self.request.id, ended.chunk, ended.counts)
            self.desk.works(ended.chunk.id)
            self.written += 1
        elif ended.how == "failed":
            self.fail(ended.reason)

    # telling and ending

    def view(self) -> JobView:
        """The job's envelope now."""
        numbers = {name: str(number) for name, number in self.counts.numbers.items()}
        done = self.counts.numbers[f"{FINAL_GROUP}:images"] - self.counts.numbers[f"{FINAL_GROUP}:reused"]
        rate = self._plan.rate(time.monotonic(), done)
        fields = numbers | {"status": self.status.value, "started_at": self._started.isoformat()}
        fields |= {"rate": f"{rate:.3f}"} if rate is not None else {}
        fields |= {"error": self.error} if self.error else {}
        if self.status.final:
            fields["finished_at"] = datetime.now(UTC).isoformat()
        usage, waiting = self.seen or (self.desk.budget.usage(self.request.priced), self.desk.waiting)
        paid, waits = bool(self.request.paid), not self.status.final
        return envelope(self.request, fields, self.in_hand, usage if paid else None, waiting if waits else None)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Within the block call `tell` every few seconds, also while models are loaded for minutes."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(WRITE_SECONDS):
                self.tell()

        self.tell()
        thread = threading.Thread(target=tell, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def tell(self) -> None:
        """Show the envelope, write it to the store, and look whether the job was cancelled."""
        view = self.view()
        self.on_view(view)
        try:
            self._write_run(view)
        except OSError as error:
            # what is computed waits for the store by itself
            log.warning("the progress of job %s is not written: %s", self.request.id, reason_of(error))

    def _write_run(self, view: JobView) -> None:
        """Write the envelope to the store, and look whether the job was cancelled."""
        run = JobRun(
            engine=self.engine, host=socket.gethostname(), pid=os.getpid(), updated_at=datetime.now(UTC), view=view
        )
        self.store.write_job_file(self.request.id, "run", run)
        if self.store.read_job_file(self.request.id, "cancel") is not None:
            self.cancelled = True
            self.stop.set()

    def patiently(self, act: Callable[[], Result]) -> Result:
        """The result of act; while the store is away, it is waited for. Raises WorkInterrupted, FileNotFoundError."""

        def tell(error: Exception, attempts: int) -> None:
            self.desk.wait_for("run", "store", reason_of(error), attempts)
            self.on_view(self.view())

        result = retry_until_done(act, (OSError,), self.stop, lambda: True, tell)
        self.desk.works("run")
        return result

    def end(self) -> JobView:
        """End the job, if it was not interrupted: as completed only if the counts in its parts' footers add up.

        Raises WorkInterrupted if it was interrupted, or FileNotFoundError if a part is missing.
        """
        interrupted = self.stop.is_set() and not self.error and not self.cancelled
        if interrupted:
            self.store.remove_job_file(self.request.id, "run")
            raise WorkInterrupted
        # while a sample is not drawn, no image of the shards is one of the job
        summaries, written = [] if self.request.draws else list(self.summaries.values()), None
        if self.error or self.cancelled:
            self.status = JobStatus.FAILED if self.error else JobStatus.CANCELLED
            counts, written = self.parts.all_written(self.request, summaries)
        else:
            counts = self.parts.counts(self.request, summaries)
            unread = [f"{source_shard(one.shard)}: {one.failure.detail}" for one in summaries if one.failure]
            self.status = JobStatus.COMPLETED
            if unread and not any(one.images for one in summaries):
                self.status, self.error = JobStatus.FAILED, f"no shard could be read: {unread[0]}"
        for name, number in final_counts(counts).items():
            self.counts.numbers[name] = int(number)
        view = self.view()
        self.store.write_job_file(self.request.id, "end", JobEnd(**dict(view), written=written))
        self.store.close_job(self.request.id)
        self.store.remove_job_file(self.request.id, "run")
        self.on_view(view)
        return view


def run(job: EngineJob, roots: Sequence[str], compute: Callable[[Sequence[Chunk]], None]) -> JobView:
    """Compute what lacks of a job, and end it. compute: computes chunks and those that follow, and notes their ends.

    Raises WorkInterrupted if the run was ended before the job, and OSError.
    """
    while True:
        with suppress(WorkInterrupted), job.telling():
            _compute_all(job, roots, compute)
        try:
            return job.patiently(job.end)
        except FileNotFoundError as error:
            # a part was lost since it was found: its chunk is planned once more
            log.warning("job %s: a part is missing: %s", job.request.id, error)


def _compute_all(job: EngineJob, roots: Sequence[str], compute: Callable[[Sequence[Chunk]], None]) -> None:
    """Index and compute, until no part lacks or the run is to end. Raises WorkInterrupted."""
    before = -1
    while not job.stop.is_set():
        job.patiently(lambda: job.index(roots))
        if job.request.draws:
            job.patiently(job.draw)
        chunks = job.patiently(job.plan)
        if not chunks:
            return
        # a part may be lost or broken meanwhile: then its shard is indexed and planned once more
        if job.written == before:
            job.fail(f"chunk {chunks[0].id} cannot be computed: its part, or one that it needs, is lost again")
            return
        before = job.written
        compute(chunks)
