"""The group `index`: reads a shard's table of contents once and writes it as a part."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from strata.core import (
    Chunk,
    FailureNote,
    Pin,
    PinnedShard,
    ShardSummary,
    chosen_by,
    chosen_family,
    chosen_identity,
    growing_pause,
)
from strata.errors import BrokenStore, DataError, InvalidInput, QueueUnavailable
from strata.jobs import MOST_COMPARED, Jobs
from strata.logs import log_context
from strata.queue import Claim
from strata.shards import SourceError, index_shard, shard_stamps
from strata.shards.stamps import Stamps
from strata.store import SOURCE_NUMBER, BrokenPart, Footer, Store
from strata.telemetry import COUNTERS, rows_counted, span
from workers.claims import told_jobs, traces_of
from workers.isolation import watched_storage, watching_storage
from workers.leases import Leases
from workers.retry import FIRST_PAUSE, LONGEST_PAUSE, WorkInterrupted, retry_until_done

log = logging.getLogger(__name__)

MAX_DELIVERIES = 4  # of a shard; after as many workers have died while they read it, it is reported as poison

TURN_SECONDS = 0.1  # to wait before a shard whose time has not come is passed over


Retry = Callable[[Callable[[], Any]], Any]  # calls a function, again while the store is away; returns its result


class _Deferred(NamedTuple):
    """A shard whose storage did not answer: how often it was tried, and when it is tried again (monotonic seconds)."""

    attempts: int
    until: float


class _Found(NamedTuple):
    """What a shard holds: its identity, the number of its images, and why it was not read completely, or None.

    left_out: as of ShardIndex.
    """

    identity: str
    images: int
    failure: str | None
    left_out: Mapping[str, int]


class Indexer:
    """Indexes shards until it is stopped. roots: the folders and buckets in which the images of a list must lie."""

    def __init__(self, jobs: Jobs, leases: Leases, roots: Sequence[str] = ()) -> None:
        self.jobs, self.leases = jobs, leases
        self.shards = ShardIndexer(jobs.store, roots)
        self.broker = jobs.queue.broker
        self._deferred: dict[str, _Deferred] = {}  # by chunk id: shards whose storage did not answer

    def run(self, stop: threading.Event) -> None:
        """Index shards until stop is set."""
        name = self.leases.name
        while not stop.is_set():
            try:
                # shards whose worker has died come first
                claims = self.broker.reclaim("index", name, self.leases.seconds)
                for _ in claims:
                    COUNTERS.add("strata_chunks_reclaimed", "index")
                for claim in claims or self.broker.claim("index", name, 1, block=1.0):
                    self.leases.add([claim])
                    # the chunk's id has the shard's address, which may have a key
                    jobs = told_jobs(self.broker.waiting_jobs, claim.chunk)
                    with log_context(job=jobs), span("index shard", traces_of(self.jobs.queue, [claim.chunk])):
                        self._index(claim, stop)
            except QueueUnavailable as error:
                log.warning("index waits for Redis: %s", error)
                stop.wait(1.0)

    def _index(self, claim: Claim, stop: threading.Event) -> None:
        """Index one claimed shard, and finish it with its summary, from which jobs know their chunks.

        A shard whose storage does not answer goes to the end of the stream, so that other shards are indexed meanwhile.
        """
        deferred = self._deferred.get(claim.chunk.id)
        if deferred is not None and time.monotonic() < deferred.until:
            stop.wait(TURN_SECONDS)
            self._requeue(claim)
            return
        try:
            summary = self._summary(claim, stop)
            # stop renewing first, or the thread of leases may report a lost lease for the finished chunk
            self.leases.remove(claim)
            sums = rows_counted("index", (), 0)
            self.broker.finish(claim, self.leases.name, summary.model_dump_json(), summary.counts, sums=sums)
            self._deferred.pop(claim.chunk.id, None)
            self.leases.go_on(claim.chunk)
        except OSError as error:
            attempts = deferred.attempts + 1 if deferred else 1
            pause = growing_pause(attempts - 1, FIRST_PAUSE, LONGEST_PAUSE)
            self._deferred[claim.chunk.id] = _Deferred(attempts, time.monotonic() + pause)
            self.leases.hold_up(claim.chunk, "shard", error, attempts)
            log.warning("index tries %s again in %.1f s: %s", claim.chunk.shard, pause, error)
            self._requeue(claim)
        except WorkInterrupted:
            self.broker.release(claim, self.leases.name)
        finally:
            self.leases.remove(claim)

    def _requeue(self, claim: Claim) -> None:
        """Move a claimed shard to the end of its stream, for the jobs that wait for it."""
        self.leases.remove(claim)
        waiting = self.broker.waiting_jobs(claim.chunk)
        self.broker.drop(claim, self.leases.name)
        for job_id in sorted(waiting):
            self.broker.enqueue(claim.chunk, job_id, claim.priority)
        if not waiting:
            self._deferred.pop(claim.chunk.id, None)
            self.leases.go_on(claim.chunk)

    def _summary(self, claim: Claim, stop: threading.Event) -> ShardSummary:
        """The summary of a claimed shard. Raises WorkInterrupted, and OSError if the shard's storage is away."""
        chunk = claim.chunk
        # a shard that has killed several workers is not read again
        if claim.deliveries > MAX_DELIVERIES:
            stalled = self.jobs.queue.isolation_notes.stalled_by(chunk.id)
            why = f"{stalled}; " if stalled else ""
            return _failed(chunk, "poison", f"{why}{claim.deliveries - 1} workers died while they read it")
        # a store that is away or full is waited for, because the shard is not the cause
        tell = functools.partial(self.leases.hold_up, chunk, "store")
        return self.shards.summary(claim, lambda act: retry_until_done(act, (OSError,), stop, lambda: True, tell))


class ShardIndexer:
    """Reads shards and writes their index parts, for every engine. roots: as of Indexer."""

    def __init__(self, store: Store, roots: Sequence[str] = ()) -> None:
        self.store, self.roots = store, roots
        # of the job whose shards were indexed last: its id, its filter, and what it has pinned, by identity
        self._pin: tuple[str, str | None, dict[str, PinnedShard]] | None = None

    def summary(self, claim: Claim, retry: Retry) -> ShardSummary:
        """The summary of a shard, whose index part exists then unless it cannot be read.

        retry: calls a function that reads or writes the store until it succeeds. Raises what retry raises, and OSError
        if the shard's storage is away.
        """
        chunk = claim.chunk

        def stored(act: Callable[[], Any]) -> Any:
            return retry(watched_storage(claim, act))

        try:
            if (chosen := chosen_by(chunk.shard)) is not None:
                return self._chosen(claim, chosen, stored, retry)
            stamps = watched_storage(claim, functools.partial(shard_stamps, chunk.shard))()
            # a shard with the same time stamp need not be read again
            found = self._known(chunk, stamps, stored) or self._read(claim, stored)
        except ValueError as error:  # SourceError is one
            return _failed(chunk, type(error).__name__, str(error))
        identity, images, failure, left_out = found
        note = FailureNote(stage="index", error_type="damaged_shard", detail=failure) if failure else None
        return ShardSummary(shard=chunk.shard, identity=identity, images=images, failure=note, left_out=dict(left_out))

    def _chosen(self, claim: Claim, chosen: tuple[str, str], stored: Retry, retry: Retry) -> ShardSummary:
        """The summary of the rows that a job has chosen of a shard; their index part has the shard's own rows of them.

        The shard itself is not read: what has changed in it since is found when its images are read. Raises ValueError
        if the rows cannot be found.
        """
        # few jobs choose rows, and the room of snapshots takes a while to be loaded
        from strata.snapshots.chosen import chosen_numbers

        chunk = claim.chunk
        try:
            where, pinned = stored(lambda: self._pinned(*chosen))
            source, footer = self._source(claim, pinned, stored)
            keys = source.column("key")
            with watching_storage(claim, "index") as progress:
                numbers = retry(lambda: chosen_numbers(self.store, where, pinned, keys, progress))
        except (InvalidInput, DataError, BrokenStore) as error:
            raise SourceError(str(error)) from error
        part = replace(chunk, identity=chosen_identity(pinned.identity, numbers))
        table = source.take(pa.array(numbers, pa.int64())).append_column(SOURCE_NUMBER, pa.array(numbers, pa.int64()))
        # of very long shards the rows of earlier choices would not fit into the memory of every worker
        own = [chosen_family(pinned.identity)] if len(keys) <= MOST_COMPARED else []
        families = [*own, *footer.families] if own else []
        stored(lambda: self.store.write_index(part, table, families=families))
        # the whole shard first among the versions whose rows are copied, so that later choices do not crowd it out
        for identity in (part.identity, pinned.identity):
            stored(functools.partial(self.store.join_families, own, identity))
        return ShardSummary(shard=chunk.shard, identity=part.identity, images=len(numbers))

    def _pinned(self, job_id: str, identity: str) -> tuple[str | None, PinnedShard]:
        """The filter of a job that has chosen rows, and what it has pinned of a shard. Raises ValueError without it."""
        kept = self._pin
        if kept is None or kept[0] != job_id:
            pin = self.store.parse_job_file(job_id, "chosen", Pin)
            if pin is None:
                raise SourceError(f"jobs/{job_id}/chosen.json is missing, so that the chosen rows are not known")
            kept = self._pin = job_id, pin.where, {one.identity: one for one in pin.shards}
        return kept[1], kept[2][identity]

    def _source(self, claim: Claim, pinned: PinnedShard, stored: Retry) -> tuple[pa.Table, Footer]:
        """The index part of a shard of which rows are chosen, as it was when they were described. Raises SourceError.

        If it was removed, the shard is read again.
        """
        whole = replace(claim.chunk, shard=pinned.uri, identity=pinned.identity)
        if self._stored(pinned.identity, whole, stored) is None:
            found = self._read(replace(claim, chunk=replace(whole, identity="")), stored)
            if found.identity != pinned.identity:
                raise SourceError("it has changed since it was described, so that the chosen rows cannot be found")
        found_part: tuple[pa.Table, Footer] = stored(lambda: self.store.read_part(whole))
        return found_part

    def _known(self, chunk: Chunk, stamps: Stamps, stored: Retry) -> _Found | None:
        """What is known of a shard with its stamps; None if it must be read."""
        stamp = stamps.now
        # its storage does not tell whether the shard was replaced
        if stamp is None:
            return None
        # earlier versions named the index part by the stamp
        for identity in (stored(lambda: self.store.read_identity(stamp)), stamps.earlier):
            if identity is not None and (found := self._stored(identity, chunk, stored)):
                return found
        return None

    def _read(self, claim: Claim, stored: Retry) -> _Found:
        """Read a shard, and write its index part if there is none of its identity. Raises SourceError and OSError."""
        # while rows are found, its time begins anew
        with watching_storage(claim, "index") as progress:
            index = index_shard(claim.chunk.shard, self.roots, progress=progress)
        part = replace(claim.chunk, identity=index.identity)
        # a copy of the shard, or the shard with another time stamp, has the same identity
        if self._stored(index.identity, claim.chunk, stored) is None:
            write = functools.partial(
                self.store.write_index,
                part,
                index.table,
                index.failure,
                index.families,
                index.left_out,
                index.size,
            )
            stored(write)
        stored(lambda: self.store.join_families(index.families, index.identity))
        # a list, or a shard of unknown version, is read again for each job
        if index.stamp is not None:
            stored(functools.partial(self.store.keep_identity, index.stamp, index.identity))
        # the part of an earlier version does not tell what it has left out
        return _Found(index.identity, index.table.num_rows, index.failure, index.left_out)

    def _stored(self, identity: str, chunk: Chunk, stored: Retry) -> _Found | None:
        """What the index part of an identity says; None if there is no part yet."""
        part = replace(chunk, identity=identity)
        try:
            table, footer = stored(lambda: self.store.read_part(part))
        except FileNotFoundError:
            return None
        except BrokenPart as error:
            # the shard is read again, and the part written anew
            stored(functools.partial(self.store.set_aside, error))
            return None
        return _Found(identity, table.num_rows, footer.failure, footer.left_out)


def _failed(chunk: Chunk, kind: str, detail: str) -> ShardSummary:
    log.warning("shard %s: %s", chunk.shard, detail)
    return ShardSummary(
        shard=chunk.shard, failure=FailureNote(stage="index", error_type=kind, detail=" ".join(detail.split())[:300])
    )
