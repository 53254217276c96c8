"""The `llm` parts that belong to a job or a data set."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from strata.core import FINAL_GROUP, JobEnd, JobRequest, ShardSummaries, ShardSummary, is_hash
from strata.errors import NotFound
from strata.store.part_files import READERS
from strata.store.part_paths import Part, last_attempts
from strata.store.provenance import fingerprints_of
from strata.store.store import Store


class UnknownSource(NotFound):
    """A name is neither a job's id nor a data set of this store."""

    def __init__(self, name: str, reason: str = "there is no such job, profile or fingerprint in the store") -> None:
        super().__init__(f"{name!r}: {reason}")
        self.name, self.reason = name, reason


class PartsOf:
    """Finds the `llm` parts of jobs and data sets. Every method raises OSError if the store cannot be reached."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def sources(self, names: Sequence[str]) -> list[Part]:
        """The parts of jobs and data sets, one for each chunk. Raises UnknownSource.

        A name is a job's id or a data set. A data set is everything that was described with one profile; its name is
        the fingerprint of its `llm` parts, or the profile's name if the store knows only one fingerprint for it.
        """
        return last_attempts(part for name in names for part in self._source(name))

    def _source(self, name: str) -> list[Part]:
        # a job's id
        request = self.request(name)
        if request is not None:
            return self.job(request)
        # a profile's name, or a fingerprint with a kept profile
        known = fingerprints_of(self.store, name)
        if len(known) > 1:
            raise UnknownSource(name, f"the profile has changed; name one of its fingerprints: {', '.join(known)}")
        # a fingerprint whose profile was not kept
        parts = self.data_set(known[0] if known else name) if is_hash(name) or known else []
        if not parts and not known:
            raise UnknownSource(name)
        return parts

    def data_set(self, fingerprint: str) -> list[Part]:
        """The parts with a fingerprint, one for each chunk."""
        found = map(Part.find, self.store.find("parts", FINAL_GROUP, fingerprint))
        return last_attempts(part for part in found if part is not None)

    def job(self, request: JobRequest) -> list[Part]:
        """The existing parts of a job, one for each chunk: that of the newest attempt, whichever job made it.

        While a chunk is retried, it is that of the attempt before. Of a job that was cancelled or has failed, only the
        parts that existed at its end.
        """
        end = self.store.parse_job_file(request.id, "end", JobEnd)
        written = end.written if end is not None else None
        chunks = [list(request.chunks(summary, FINAL_GROUP)) for summary in self.summaries(request) if summary.images]
        # one listing for each shard, several at a time: each is a round trip to a bucket
        with ThreadPoolExecutor(READERS) as pool:
            listings = list(pool.map(lambda shard: self.store.attempts(shard[0]), chunks))
        parts = [
            Part.of_chunk(chunk)._replace(attempt=max(attempts.found[chunk.number]))
            for shard, attempts in zip(chunks, listings, strict=True)
            for chunk in shard
            if chunk.number in attempts.found and (written is None or chunk.number in written.get(chunk.identity, ()))
        ]
        return last_attempts(parts)

    def request(self, job_id: str) -> JobRequest | None:
        """A job's request in the store; None if there is no such job. Raises DamagedFile."""
        return self.store.parse_job_file(job_id, "request", JobRequest)

    def summaries(self, request: JobRequest) -> list[ShardSummary]:
        """The summaries of a job's indexed shards in the store; those of an unfinished job may be incomplete.

        Raises DamagedFile.
        """
        found = self.store.parse_job_file(request.id, "shards", ShardSummaries)
        return request.indexed if found is None else found.shards
