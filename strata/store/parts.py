"""The paths of parts, and the `llm` parts that belong to a job or a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from strata.core import FINAL_GROUP, Chunk, JobRequest, ShardSummaries, ShardSummary, part_name
from strata.errors import NotFound
from strata.store.provenance import fingerprints_of
from strata.store.store import READERS, Store

_PATH = re.compile(r"parts/([^/]+)/([0-9a-f]+)/([^/]+)/_?(\d+)(?:\.(\d+))?\.parquet")


class UnknownSource(NotFound):
    """A name is neither a job's id nor a data set of this store."""

    def __init__(self, name: str, reason: str = "there is no such job, profile or fingerprint in the store") -> None:
        super().__init__(f"{name!r}: {reason}")
        self.name, self.reason = name, reason


class Part(NamedTuple):
    """The fields of a part's path, in the order by which parts are sorted."""

    group: str
    fingerprint: str
    identity: str
    number: int
    attempt: int

    @classmethod
    def parse(cls, path: str) -> Part:
        """The part at a path relative to the store's root. Raises ValueError."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise ValueError(f"{path!r} is not the path of a part")
        return cls(found[1], found[2], found[3], int(found[4]), int(found[5] or 0))

    @classmethod
    def of_chunk(cls, chunk: Chunk) -> Part:
        """The part of a chunk."""
        return cls(chunk.group, chunk.fingerprint, chunk.identity, chunk.number, chunk.attempt)

    @property
    def path(self) -> str:
        """Its path relative to the store's root."""
        name = part_name(self.number, self.attempt)
        return f"parts/{self.group}/{self.fingerprint}/{self.identity}/{name}.parquet"


def last_attempts(parts: Iterable[Part]) -> list[Part]:
    """One part for each chunk, sorted: that of its last attempt.

    The part of an attempt has copies of all rows that succeeded in the attempts before.
    """
    return list({part[:-1]: part for part in sorted(parts)}.values())


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
        # a fingerprint whose profile was not kept; alphanumeric, so that it is the name of one folder
        parts = self.data_set(known[0] if known else name) if name.isalnum() or known else []
        if not parts and not known:
            raise UnknownSource(name)
        return parts

    def data_set(self, fingerprint: str) -> list[Part]:
        """The parts with a fingerprint, one for each chunk."""
        paths = self.store.find("parts", FINAL_GROUP, fingerprint)
        return last_attempts(Part.parse(path) for path in paths if path.endswith(".parquet"))

    def job(self, request: JobRequest) -> list[Part]:
        """The existing parts of a job, one for each chunk; while a chunk is retried, the part of its last attempt."""
        chunks = [list(request.chunks(summary, FINAL_GROUP)) for summary in self.summaries(request) if summary.images]
        # one listing for each shard, several at a time: each is a round trip to a bucket
        with ThreadPoolExecutor(READERS) as pool:
            listings = pool.map(lambda shard: self.store.part_names(shard[0]), chunks)
            found = [_last_part(chunk, names) for shard, names in zip(chunks, listings, strict=True) for chunk in shard]
        return last_attempts(part for part in found if part is not None)

    def request(self, job_id: str) -> JobRequest | None:
        """A job's request in the store; None if there is no such job."""
        text = self.store.read_job_file(job_id, "request") if job_id.isalnum() else None
        return None if text is None else JobRequest.model_validate_json(text)

    def summaries(self, request: JobRequest) -> list[ShardSummary]:
        """The summaries of a job's indexed shards in the store; those of an unfinished job may be incomplete."""
        text = self.store.read_job_file(request.id, "shards")
        return request.indexed if text is None else ShardSummaries.model_validate_json(text).shards


def _last_part(chunk: Chunk, names: set[str]) -> Part | None:
    """The part of a chunk's attempt, or of the last attempt before it whose part exists."""
    part = Part.of_chunk(chunk)
    attempts = (part._replace(attempt=attempt) for attempt in range(chunk.attempt, -1, -1))
    return next((part for part in attempts if part_name(part.number, part.attempt) in names), None)
