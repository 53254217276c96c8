"""Cleaning a store: find and remove parts that no job and no snapshot refers to. Parts of snapshots are always kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from strata.core import GROUPS, JobRequest
from strata.errors import Conflict
from strata.snapshots.snapshots import Snapshots
from strata.store import READERS, Part, PartsOf, Store, UnknownSource

ROWS_AGE = 3600.0  # seconds after which rows without a name are nobody's: a snapshot's name is written right behind


@dataclass
class _Named:
    """The parts that are referred to, and the groups' fingerprints of unfinished jobs, whose parts are all kept."""

    parts: set[Part] = field(default_factory=set)
    fingerprints: set[tuple[str, str]] = field(default_factory=set)

    def __contains__(self, part: Part) -> bool:
        return part in self.parts or (part.group, part.fingerprint) in self.fingerprints


class Cleaning:
    """The files that can be removed from a store. forget: finished jobs to remove with their parts.

    Uploads, profiles and the files of other jobs stay. Raises UnknownSource, Conflict for a job that has not ended,
    and OSError where the store cannot be reached.
    """

    def __init__(self, store: Store, forget: Sequence[str] = ()) -> None:
        self.store = store
        self.forget = list(dict.fromkeys(forget))
        self._parts_of, self._snapshots = PartsOf(store), Snapshots(store)
        for job_id in self.forget:
            if self._parts_of.request(job_id) is None:
                raise UnknownSource(job_id, "there is no such job in the store")
            if self._unfinished(job_id):
                raise Conflict(f"job {job_id} has not ended; cancel it first")

    def unnamed(self) -> dict[str, int]:
        """The sizes in bytes of the files to remove, by path from the root: parts, files of forgotten jobs, rows."""
        there = self.store.find("parts")  # first: what is written from now on is no candidate
        named = self._named()
        parts = {path: size for path, size in there.items() if (part := _part(path)) is not None and part not in named}
        jobs = [file for job_id in self.forget for file in self.store.find("jobs", job_id).items()]
        return {**parts, **dict(jobs), **dict(self._rows())}

    def remove(self, paths: Sequence[str]) -> list[str]:
        """Remove the files of `unnamed`, except those that a snapshot refers to by now. Returns the removed files."""
        pinned = self._pinned()
        gone = [path for path in paths if _part(path) not in pinned]
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda path: self.store.remove(self.store.path(path)), gone))
        for job_id in self.forget:
            self.store.remove_job(job_id)
        return gone

    def _named(self) -> _Named:
        named = _Named(self._pinned())
        jobs = [job_id for job_id in self.store.job_ids() if job_id not in self.forget]
        with ThreadPoolExecutor(READERS) as pool:
            for one in pool.map(self._named_by_job, jobs):
                named.parts |= one.parts
                named.fingerprints |= one.fingerprints
        return named

    def _pinned(self) -> set[Part]:
        return {Part.parse(path) for snapshot in self._snapshots.all() for path in snapshot.parts}

    def _named_by_job(self, job_id: str) -> _Named:
        request = self._parts_of.request(job_id)
        if request is None:
            return _Named()
        if self._unfinished(job_id):  # what it asks for may not be known yet
            return _Named(fingerprints=set(request.fingerprints.items()))
        return _Named(set(self._of_job(request)))

    def _of_job(self, request: JobRequest) -> Iterator[Part]:
        """Every part of a finished job, earlier attempts among them: plain pyarrow on the folder reads the first."""
        for summary in self._parts_of.summaries(request):
            yield Part("index", request.fingerprints["index"], summary.identity, 0, 0)
            for group in GROUPS[1:]:
                for part in map(Part.of_chunk, request.chunks(summary, group)):
                    yield from (part._replace(attempt=attempt) for attempt in range(part.attempt + 1))

    def _unfinished(self, job_id: str) -> bool:
        return self.store.read_job_file(job_id, "end") is None

    def _rows(self) -> Iterator[tuple[str, int]]:
        """Rows files that no manifest refers to: their creator was killed, or another took the name first."""
        ids = {snapshot.id for snapshot in self._snapshots.all()}
        for path, size in self.store.find("snapshots", "objects").items():
            with suppress(FileNotFoundError):
                if (
                    path.rpartition("/")[2].partition(".")[0] not in ids
                    and self.store.age(self.store.path(path)) > ROWS_AGE
                ):
                    yield path, size


def _part(path: str) -> Part | None:
    """The part of a path; None if the path is not one of our parts, which is then left alone."""
    with suppress(ValueError):
        return Part.parse(path)
    return None
