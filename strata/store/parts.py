"""The `llm` parts that belong to a job or a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from strata.core import (
    FINAL_GROUP,
    JobEnd,
    JobRequest,
    JobStatus,
    Pin,
    ShardSummaries,
    ShardSummary,
    is_hash,
    is_job_id,
)
from strata.errors import BrokenStore, DamagedFile, NotFound
from strata.store.part_files import READERS
from strata.store.part_paths import Attempts, Part, last_attempts
from strata.store.provenance import fingerprints_of
from strata.store.store import Store


class UnknownSource(NotFound):
    """A name is neither a job's id nor a data set of this store."""

    def __init__(self, name: str, reason: str = "there is no such job, profile or fingerprint in the store") -> None:
        super().__init__(f"{name!r}: {reason}")
        self.name, self.reason = name, reason


class LostPart(BrokenStore):
    """A part that a job wrote is not in the store any more."""

    def __init__(self, job_id: str, paths: Sequence[str]) -> None:
        more = f", and {len(paths) - 1:,} more" if paths[1:] else ""
        super().__init__(f"job {job_id} has lost {paths[0]}{more}; `strata verify {job_id}` has it computed again")
        self.job_id, self.paths = job_id, list(paths)


class PartsOf:
    """Finds the `llm` parts of jobs and data sets. Every method raises OSError if the store cannot be reached."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def sources(self, names: Sequence[str], single_images: bool = False) -> list[Part]:
        """The parts of jobs and data sets, one for each chunk. Raises UnknownSource and LostPart.

        A name is a job's id or a data set. A data set is everything that was described with one profile; its name is
        the fingerprint of its `llm` parts, or the profile's name if the store knows only one fingerprint for it.
        single_images: whether a data set has the images that were sent one by one, too.
        """
        return last_attempts(part for name in names for part in self._source(name, single_images))

    def unended(self, names: Sequence[str]) -> list[str]:
        """Those of some jobs and data sets that are jobs without an end. Raises OSError."""
        # the end first: a request may name 100,000 shards
        left = [name for name in names if is_job_id(name) and self.store.parse_job_file(name, "end", JobEnd) is None]
        return [name for name in left if self.request(name) is not None]

    def tenant(self, names: Sequence[str]) -> str:
        """To whom jobs and data sets belong together: the tenant of all of them, if they are jobs; else to nobody.

        A data set has the rows of all tenants.
        """
        requests = [self.request(name) for name in names]
        tenants = {"" if request is None else request.tenant for request in requests}
        return tenants.pop() if len(tenants) == 1 else ""

    def _source(self, name: str, single_images: bool) -> list[Part]:
        # a job's id
        request = self.request(name)
        if request is not None:
            return self.job(request)
        # a profile's name, or a fingerprint with a kept profile
        known = fingerprints_of(self.store, name)
        if len(known) > 1:
            raise UnknownSource(name, f"the profile has changed; name one of its fingerprints: {', '.join(known)}")
        # a fingerprint whose profile was not kept
        parts = self.data_set(known[0] if known else name, single_images) if is_hash(name) or known else []
        if not parts and not known:
            raise UnknownSource(name)
        return parts

    def data_set(self, fingerprint: str, single_images: bool = True) -> list[Part]:
        """The parts with a fingerprint, one for each chunk. Raises LostPart for one that an ended job has lost."""
        found = self.store.parts_below("parts", FINAL_GROUP, fingerprint)
        listed: dict[str, list[Part]] = {}
        for part in found:
            listed.setdefault(part.identity, []).append(part)
        alone: set[str] = set()
        # the jobs know which parts there must be, and which shards are single images
        with ThreadPoolExecutor(READERS) as pool:
            for request in pool.map(self._readable_request, self.store.job_ids()):
                if request is None or request.fingerprints[FINAL_GROUP] != fingerprint:
                    continue
                # neither single images nor samples belong to a data set, which has the sampled images themselves
                if request.kind == "image" or request.sample is not None:
                    alone.update(summary.identity for summary in request.indexed)
                elif shards := self.summaries(request):
                    names = ([part.name for part in listed.get(shard.identity, ())] for shard in shards)
                    self._of_job(request, shards, map(Attempts.of_names, names))
        return last_attempts(part for part in found if single_images or part.identity not in alone)

    def _readable_request(self, job_id: str) -> JobRequest | None:
        """A job's request; None if it is damaged: it is not known whose parts its are."""
        with suppress(DamagedFile):
            return self.request(job_id)
        return None

    def job(self, request: JobRequest) -> list[Part]:
        """The existing parts of a job, one for each chunk: that of the newest attempt, whichever job made it.

        While a chunk is retried, it is that of the attempt before. Of a job that was cancelled or has failed, only the
        parts that existed at its end. Raises LostPart if a part of a job that has ended is missing.
        """
        shards = self.summaries(request)
        folders = [f"{FINAL_GROUP}/{request.fingerprints[FINAL_GROUP]}/{shard.identity}" for shard in shards]
        # one listing for each shard, several at a time: each is a round trip to a bucket
        with ThreadPoolExecutor(READERS) as pool:
            listings = list(pool.map(self.store.attempts_in, folders))
        return last_attempts(self._of_job(request, shards, listings))

    def _of_job(self, request: JobRequest, shards: Sequence[ShardSummary], listings: Iterable[Attempts]) -> list[Part]:
        """The newest parts of a job's chunks. listings: of its shards, in order. Raises LostPart."""
        end = self.store.parse_job_file(request.id, "end", JobEnd)
        written = end.written if end is not None else None
        parts: list[Part] = []
        lost: list[str] = []
        for shard, attempts in zip(shards, listings, strict=True):
            for chunk in request.chunks(shard, FINAL_GROUP) if shard.images else ():
                if written is not None and chunk.number not in written.get(chunk.identity, ()):
                    continue
                if chunk.number in attempts.found:
                    parts.append(Part.of_chunk(chunk)._replace(attempt=max(attempts.found[chunk.number])))
                else:
                    lost.append(Part.of_chunk(chunk).path)
        # of a job that has not ended, and of one that failed in an earlier version, not all parts need be there
        if lost and end is not None and (written is not None or end.status is JobStatus.COMPLETED):
            raise LostPart(request.id, lost)
        return parts

    def request(self, job_id: str) -> JobRequest | None:
        """A job's request in the store; None if there is no such job. Raises DamagedFile."""
        return self.store.parse_job_file(job_id, "request", JobRequest)

    def pinned(self, request: JobRequest) -> Iterator[tuple[str, str, str]]:
        """The folders (group, fingerprint, identity) of the parts that a job with chosen rows chooses them from.

        It reads them until its shards are indexed. Raises DamagedFile.
        """
        pin = None if request.chosen is None else self.store.parse_job_file(request.id, "chosen", Pin)
        for shard in pin.shards if pin else ():
            yield "index", request.fingerprints["index"], shard.identity
            yield from ((FINAL_GROUP, parts.fingerprint, parts.identity) for parts in shard.parts)

    def summaries(self, request: JobRequest) -> list[ShardSummary]:
        """The summaries of a job's indexed shards in the store; those of an unfinished job may be incomplete.

        Raises DamagedFile.
        """
        found = self.store.parse_job_file(request.id, "shards", ShardSummaries)
        return request.indexed if found is None else found.shards
