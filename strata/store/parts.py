"""Parts by their paths, and which parts of `llm` jobs and data sets are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from strata.core.chunks import Chunk, part_name
from strata.core.errors import NotFound
from strata.core.profiles import FINAL_GROUP
from strata.core.requests import JobRequest, ShardSummaries, ShardSummary
from strata.store.provenance import fingerprints_of
from strata.store.store import READERS, Store

_PATH = re.compile(r"parts/([^/]+)/([0-9a-f]+)/([^/]+)/_?(\d+)(?:\.(\d+))?\.parquet")


class UnknownSource(NotFound):
    """What is neither a job nor a data set of this store."""

    def __init__(self, name: str, reason: str = "there is no such job, profile or fingerprint in the store") -> None:
        super().__init__(f"{name!r}: {reason}")
        self.name, self.reason = name, reason


class Part(NamedTuple):
    """What a part's path says; parts sort by it."""

    group: str
    fingerprint: str
    identity: str
    number: int
    attempt: int

    @classmethod
    def parse(cls, path: str) -> Part:
        """The part of a path that begins at the store's root. Raises ValueError."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise ValueError(f"{path!r} is no part's path")
        return cls(found[1], found[2], found[3], int(found[4]), int(found[5] or 0))

    @classmethod
    def of_chunk(cls, chunk: Chunk) -> Part:
        """The part of a chunk."""
        return cls(chunk.group, chunk.fingerprint, chunk.identity, chunk.number, chunk.attempt)

    @property
    def path(self) -> str:
        """Its path from the store's root."""
        name = part_name(self.number, self.attempt)
        return f"parts/{self.group}/{self.fingerprint}/{self.identity}/{name}.parquet"


def last_attempts(parts: Iterable[Part]) -> list[Part]:
    """Each chunk's part once, sorted.

    Of several attempts the last: it has copies of all rows that succeeded in those before.
    """
    return list({part[:-1]: part for part in sorted(parts)}.values())


class PartsOf:
    """The parts of `llm` that are there, of what people name. Raises OSError where the store cannot be reached."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def sources(self, names: Sequence[str]) -> list[Part]:
        """The parts of jobs and data sets, each chunk's once. Raises UnknownSource.

        A name is a job's id; or a data set's: all that was described with one profile, by the fingerprint of its
        `llm` parts or by the profile's name where the store knows one fingerprint of it.
        """
        return last_attempts(part for name in names for part in self._source(name))

    def _source(self, name: str) -> list[Part]:
        request = self.request(name)
        if request is not None:
            return self.job(request)
        known = fingerprints_of(self.store, name)
        if len(known) > 1:
            raise UnknownSource(name, f"the profile changed, name one of its fingerprints: {', '.join(known)}")
        parts = self.data_set(known[0] if known else name) if name.isalnum() or known else []
        if not parts and not known:
            raise UnknownSource(name)
        return parts

    def data_set(self, fingerprint: str) -> list[Part]:
        """The parts of a fingerprint, each chunk's once."""
        paths = self.store.find("parts", FINAL_GROUP, fingerprint)
        return last_attempts(Part.parse(path) for path in paths if path.endswith(".parquet"))

    def job(self, request: JobRequest) -> list[Part]:
        """The parts of a job that are there, each chunk's once, those that a retry is about to replace among them."""
        chunks = [list(request.chunks(summary, FINAL_GROUP)) for summary in self.summaries(request) if summary.images]
        with ThreadPoolExecutor(READERS) as pool:
            there = pool.map(lambda shard: self.store.part_names(shard[0]), chunks)
            found = [_there(chunk, names) for shard, names in zip(chunks, there, strict=True) for chunk in shard]
        return last_attempts(part for part in found if part is not None)

    def request(self, job_id: str) -> JobRequest | None:
        """A job's request as the store keeps it."""
        text = self.store.read_job_file(job_id, "request") if job_id.isalnum() else None
        return None if text is None else JobRequest.model_validate_json(text)

    def summaries(self, request: JobRequest) -> list[ShardSummary]:
        """The shards of a job that are indexed, as far as the store knows: of an unfinished job perhaps not all."""
        text = self.store.read_job_file(request.id, "shards")
        return request.indexed if text is None else ShardSummaries.model_validate_json(text).shards


def _there(chunk: Chunk, names: set[str]) -> Part | None:
    """The part of the attempt that counts, or of the last one before it that is there."""
    part = Part.of_chunk(chunk)
    attempts = (part._replace(attempt=attempt) for attempt in range(chunk.attempt, -1, -1))
    return next((part for part in attempts if part_name(part.number, part.attempt) in names), None)
