"""The parts of a job: which exist, which are missing, and what they count.

The newest attempt at a chunk counts for every job, whichever job made it; a job's `retries` is the least attempt that
it accepts. A broken part is set aside where it is found, and is missing from then on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from strata.core import FINAL_GROUP, GROUPS, Chunk, JobRequest, ShardSummary
from strata.store import Attempts, BrokenPart, Footer, Part, Store, count_of


class CountedChunks(Protocol):
    """Which chunks a job has counted. The service has `strata.queue.JobStates`, which says what the methods do."""

    def recorded(self, job_id: str, group: str, fields: Sequence[str]) -> set[str]: ...

    def record_all(self, job_id: str, counted: Iterable[tuple[Chunk, Mapping[str, int]]]) -> None: ...

    def set_request(self, request: JobRequest) -> None: ...


class Written(NamedTuple):
    """What exists of a job in the store: its images by status, and the numbers of its chunks, see `JobEnd.written`."""

    counts: Counter[str]
    numbers: dict[str, list[int]]


class JobParts:
    """Compares jobs with the parts in the store. Every method raises OSError, and QueueUnavailable if `states` does."""

    def __init__(self, states: CountedChunks, store: Store) -> None:
        self.store, self.states = store, states

    def missing(
        self, request: JobRequest, summary: ShardSummary, numbers: Iterable[int] | None = None
    ) -> tuple[JobRequest, list[Chunk]]:
        """The chunks of a shard to be computed next, in order; chunks whose parts exist are counted for the job.

        A chunk with a part of the last group needs none of the groups before. The first value is the request, with a
        higher `retries` for chunks with failures that may pass: of such a chunk a job computes one more attempt, once.
        numbers: of which chunks, if not of all.
        """
        left = list(range(summary.chunks(request.chunk_size)) if numbers is None else numbers)
        listings, missing = {}, []
        following = None
        for group in reversed(GROUPS[1:]):
            chunks = list(request.chunks(summary, group, left))
            if not chunks:
                break
            listings[group] = self._listing(chunks[0])
            request, done = self._count_existing(request, chunks, listings[group])
            # where this group's part exists, the next group's chunk can be computed
            if following is None:
                self._count_groups_before(request, done)
            else:
                missing += [(following, chunk.number) for chunk in done]
            left = sorted(set(left) - {chunk.number for chunk in done})
            following = group
        missing += [(GROUPS[1], number) for number in left]
        return request, [
            listings[group].needed(chunk)
            for group, number in sorted(missing, key=lambda entry: entry[1])
            for chunk in request.chunks(summary, group, [number])
        ]

    def count_copy(
        self, request: JobRequest, summary: ShardSummary, number: int, numbers: Iterable[int] | None = None
    ) -> None:
        """Count the chunks of a shard that has the content of another shard of the job; again, it has no effect.

        number: which copy of the content it is, from 1; numbers: of its chunks, if not all are to be counted.
        """
        # a job counts a chunk once by its identity and number
        copies = [
            (replace(chunk, identity=f"{chunk.identity}#{number}"), footer)
            for chunk, footer in self.written(request, summary, numbers)
        ]
        for group in GROUPS[1:]:
            self._count(request, [(replace(copy, group=group), footer) for copy, footer in copies])

    def counts(self, request: JobRequest, summaries: Iterable[ShardSummary]) -> Counter[str]:
        """The images of a job by status, from the footers of its parts. Raises FileNotFoundError if one is missing."""
        counts: Counter[str] = Counter()
        for summary in summaries:
            for footer in self.footers(request, summary):
                counts += footer.counts
        return counts

    def all_written(self, request: JobRequest, summaries: Iterable[ShardSummary]) -> Written:
        """What exists of a job, of which parts may be missing."""
        counts, numbers = Counter[str](), dict[str, list[int]]()
        for summary in summaries:
            written = self.written(request, summary)
            numbers[summary.identity] = [chunk.number for chunk, _ in written]
            for _, footer in written:
                counts += footer.counts
        return Written(counts, numbers)

    def footers(self, request: JobRequest, summary: ShardSummary) -> list[Footer]:
        """The footers of a shard's final parts, in order. Raises FileNotFoundError if one is missing or broken."""
        written, count = self.written(request, summary), summary.chunks(request.chunk_size)
        if len(written) < count:
            raise FileNotFoundError(f"{count - len(written)} parts of {summary.shard} are missing")
        return [footer for _, footer in written]

    def written(
        self, request: JobRequest, summary: ShardSummary, numbers: Iterable[int] | None = None
    ) -> list[tuple[Chunk, Footer]]:
        """The chunks of a shard that have a final part, with their newest attempts and the parts' footers, in order.

        numbers: of which chunks, if not of all.
        """
        chunks = list(request.chunks(summary, FINAL_GROUP, numbers))
        attempts = self._listing(chunks[0]) if chunks else Attempts()
        return self._intact([found for chunk in chunks if (found := attempts.newest(chunk)) is not None], attempts)

    def _listing(self, chunk: Chunk) -> Attempts:
        """The attempts at the chunks of a chunk's group and shard. Parts that are not where they belong are moved."""
        attempts = self.store.attempts(chunk)
        self.store.tidy(Part.of_chunk(chunk), attempts)
        return attempts

    def _intact(self, chunks: Sequence[Chunk], attempts: Attempts) -> list[tuple[Chunk, Footer]]:
        """The chunks whose footers are intact, with their footers; the others' parts are set aside."""
        intact = []
        for chunk, footer in zip(chunks, self.store.read_all_footers(chunks), strict=True):
            if not isinstance(footer, BrokenPart):
                intact.append((chunk, footer))
            elif self.store.set_aside(footer) and chunk.attempt:
                attempts.broken[chunk.number] = chunk.attempt
        return intact

    def _count_existing(
        self, request: JobRequest, chunks: Sequence[Chunk], attempts: Attempts
    ) -> tuple[JobRequest, list[Chunk]]:
        """Count a group's chunks whose parts exist, except those that the job has counted before.

        Returns the request, and the chunks that need not be computed, with their newest attempts.
        """
        found = [newest for chunk in chunks if (newest := attempts.newest(chunk)) is not None]
        if not found:
            return request, []
        # ask Redis first, because reading a footer is a round trip to the store
        counted = self.states.recorded(request.id, found[0].group, [chunk.field for chunk in found])
        done = [chunk for chunk in found if chunk.field in counted]
        again: dict[str, int] = {}
        new: list[tuple[Chunk, Footer]] = []
        for chunk, footer in self._intact([chunk for chunk in found if chunk.field not in counted], attempts):
            # a failure that may pass is computed again, unless the job has asked for it already
            if footer.transient and chunk.field not in request.retries:
                again[chunk.field] = chunk.attempt + 1
            else:
                new.append((chunk, footer))
        self._count(request, new)
        done += [chunk for chunk, _ in new]
        # the request is written before anything is queued, so that a job asks once
        return self._raise_retries(request, again), done

    def _count_groups_before(self, request: JobRequest, chunks: Sequence[Chunk]) -> None:
        """Count chunks with a final part in the groups before, whose parts are not needed and may be missing."""
        for group in GROUPS[1:-1]:
            fingerprint = request.fingerprints[group]
            self._count(request, [(chunk.of_group(group, fingerprint), Footer(Counter())) for chunk in chunks])

    def _count(self, request: JobRequest, found: Iterable[tuple[Chunk, Footer]]) -> None:
        """Count chunks that need not be computed, with the footers of their parts."""
        counts = []
        for chunk, footer in found:
            # only the final group's parts hold the images' final status
            statuses = count_of(footer.counts) if chunk.group == FINAL_GROUP else {}
            counts.append((chunk, {"images": chunk.images, "chunks": 1, "reused": chunk.images, **statuses}))
        self.states.record_all(request.id, counts)

    def _raise_retries(self, request: JobRequest, attempts: Mapping[str, int]) -> JobRequest:
        """A job's request with later attempts at some chunks, by their fields, written to the store and to Redis."""
        if not attempts:
            return request
        request = request.model_copy(update={"retries": {**request.retries, **attempts}})
        self.store.write_job_file(request.id, "request", request)
        self.states.set_request(request)
        return request
