"""Verifying a store: every part is read against its checksums and its shard's index; broken ones are set aside.

It needs no service and no queue. A completed job that lacks final parts or an index afterwards is opened again in the
store: the scheduler of a running service finds it at its next review, that of a stopped one when it starts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
from pydantic import BaseModel

from strata.core import FINAL_GROUP, GROUPS, JobEnd, JobRequest, JobStatus, ShardSummaries, ShardSummary
from strata.errors import DamagedFile
from strata.snapshots.snapshots import Snapshots
from strata.store import READERS, BrokenPart, Bundle, Part, Source, Store, UnknownSource, kept_profiles, provenance_of

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str, str, str]  # group, fingerprint and shard's identity of parts


@dataclass
class Report:
    """What was found.

    parts, rows: the numbers of what was read and is intact; broken: parts that were set aside, with the reasons;
    missing: parts that completed jobs lack; damaged: files of jobs, snapshots and profiles that cannot be read, with
    the reasons; jobs: those that were opened again.
    """

    parts: int = 0
    rows: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether nothing is broken, missing or damaged."""
        return not (self.broken or self.missing or self.damaged)


class Verification:
    """Verifies the parts of one job, or all of a store (job_id None). Raises UnknownSource and OSError."""

    def __init__(self, store: Store, job_id: str | None = None) -> None:
        self.store, self.job_id = store, job_id
        self.report = Report()
        self._sizes: dict[str, int | None] = {}  # chunk sizes by the fingerprint of parts
        self._indexes: dict[str, Part] = {}  # of shards, by their identity
        # parts of one shard mostly follow one another
        self._keys = functools.lru_cache(8)(self._read_keys)
        if job_id is not None and self._request(job_id) is None and not self.report.damaged:
            raise UnknownSource(job_id, "there is no such job in the store")

    def paths(self) -> list[str]:
        """The paths of the parts to be read, the indexes first."""
        if self.job_id is None:
            found = [*self.store.find("parts"), *self.store.find("superseded")]
        else:
            found = [path for place in self._places(self.job_id) for path in self._found(place)]
        # a part in a bundle is named by the path that it would have alone
        bundled = [part.path for path in found if (bundle := Bundle.find(path)) for part in bundle.parts]
        parts = {path: part for path in [*found, *bundled] if (part := Part.find(path)) is not None}
        self._indexes = {part.identity: part for part in parts.values() if part.group == "index"}
        return sorted(parts, key=lambda path: parts[path].group != "index")

    def run(self, paths: Sequence[str], advance: Callable[[int], object] = lambda parts: None) -> Report:
        """Read the parts, set broken ones aside, and open the jobs again that lack some. advance: as elsewhere."""
        # the indexes before the parts that are compared with them
        first = [path for path in paths if Part.parse(path).group == "index"]
        with ThreadPoolExecutor(os.cpu_count() if self.store.local else READERS) as pool:
            for batch in (first, paths[len(first) :]):
                for rows in pool.map(self._verify, batch):
                    self.report.parts += rows is not None
                    self.report.rows += rows or 0
                    advance(1)
        self._verify_json()
        for job_id in [self.job_id] if self.job_id else self.store.job_ids():
            self._verify_job(job_id)
        return self.report

    # parts

    def _verify(self, path: str) -> int | None:
        """The number of rows of a part; None if it is broken, and was set aside, or was moved in the meantime."""
        part = Part.parse(path)
        try:
            table = self.store.first(Source(part, path), self.store.check)
            if part.group != "index" and not self._is_of_index(part, table.column("key").to_pylist()):
                raise BrokenPart(path, "its rows are not those of its shard's index")
            return int(table.num_rows)
        except FileNotFoundError:
            return None
        except BrokenPart as error:
            self.store.move_aside(error)
            self.report.broken[path] = error.reason
            return None

    def _is_of_index(self, part: Part, keys: list[str]) -> bool:
        """Whether a part has the rows that its shard's index has at its place; True if that is not known."""
        index, size = self._indexes.get(part.identity), self._chunk_size(part.fingerprint)
        if index is None or (size is None and part.number):
            return True
        indexed = self._keys(index)
        start = part.number * (size or 0)
        if indexed is None:
            return True
        return bool(keys == indexed.slice(start, size if size is not None else len(keys)).to_pylist())

    def _read_keys(self, index: Part) -> pa.ChunkedArray | None:
        """The keys of a shard's index; None if it is broken or missing."""
        try:
            return self.store.check(Source(index, index.path)).column("key")
        except (FileNotFoundError, BrokenPart):
            return None

    def _chunk_size(self, fingerprint: str) -> int | None:
        """The chunk size of the profile with a fingerprint, of any group; None if the store does not know it."""
        if not self._sizes:
            self._sizes[""] = None
            for fingerprint in kept_profiles(self.store):
                kept = provenance_of(self.store, fingerprint)
                self._sizes |= dict.fromkeys(kept.fingerprints.values(), kept.settings.get("chunk_size"))
        return self._sizes.get(fingerprint)

    # jobs, snapshots and profiles

    def _verify_json(self) -> None:
        """Read the manifests and rows of snapshots, and the kept profiles, if all of the store is verified."""
        if self.job_id is not None:
            return
        snapshots, damaged = Snapshots(self.store).scan()
        self.report.damaged += map(str, damaged)
        for snapshot in snapshots:
            if reason := snapshot.fault():
                self.report.damaged.append(reason)
        for fingerprint in kept_profiles(self.store):
            if provenance_of(self.store, fingerprint).kept_at is None:
                self.report.damaged.append(f"profiles/{fingerprint}.json is damaged")

    def _verify_job(self, job_id: str) -> None:
        """Note what a completed job lacks, and open it again if that is a final part or an index."""
        request, end = self._request(job_id), self._parsed(job_id, "end", JobEnd)
        if request is None or end is None or end.status is not JobStatus.COMPLETED:
            return
        missing = [part.path for part in self._missing(request)]
        if missing:
            self.report.missing += [path for path in missing if path not in self.report.broken]
            # the mark first: a process that dies in between leaves a mark that is removed again
            self.store.open_job(job_id)
            self.store.remove_job_file(job_id, "end")
            self.report.jobs.append(job_id)

    def _missing(self, request: JobRequest) -> Iterator[Part]:
        """The index and final parts of a completed job that are not there. An upload is always indexed anew."""
        for summary in self._summaries(request):
            index = Part("index", request.fingerprints["index"], summary.identity, 0, 0)
            if summary.identity and request.kind == "batch" and not self.store.exists(self.store.path(index.path)):
                yield index
            chunks = list(request.chunks(summary, FINAL_GROUP))
            attempts = self.store.attempts(chunks[0]) if chunks else None
            yield from (Part.of_chunk(chunk) for chunk in chunks if attempts and attempts.newest(chunk) is None)

    def _places(self, job_id: str) -> Iterator[Place]:
        """Where the parts of a job lie."""
        request = self._request(job_id)
        if request is None:
            return
        for summary in self._summaries(request):
            if summary.identity:
                yield from ((group, request.fingerprints[group], summary.identity) for group in GROUPS)

    def _found(self, place: Place) -> Iterable[str]:
        return [f"parts/{'/'.join(place)}/{name}" for name in self.store.names(f"parts/{'/'.join(place)}")]

    def _request(self, job_id: str) -> JobRequest | None:
        return self._parsed(job_id, "request", JobRequest)

    def _summaries(self, request: JobRequest) -> list[ShardSummary]:
        """The summaries of a job's shards; those of its request if its file is damaged."""
        found = self._parsed(request.id, "shards", ShardSummaries)
        return request.indexed if found is None else found.shards

    def _parsed(self, job_id: str, name: str, model: type[Model]) -> Model | None:
        """A file of a job; None if there is none, or if it is damaged, which is noted."""
        try:
            return self.store.parse_job_file(job_id, name, model)
        except DamagedFile as error:
            if str(error) not in self.report.damaged:
                self.report.damaged.append(str(error))
            return None
