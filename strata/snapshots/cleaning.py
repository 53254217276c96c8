"""Cleaning a store: find and remove parts that no job and no snapshot references."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from strata.core import FEATURES, FINAL_GROUP, GROUPS, JobRequest, is_hash, is_job_id
from strata.errors import Conflict, DamagedFile
from strata.judgments import batches_of_job
from strata.snapshots.snapshots import Snapshots
from strata.store import (
    READERS,
    Beside,
    Part,
    PartsOf,
    Store,
    UnknownSource,
    parts_at,
    received_uploads,
    unbundle,
    uploads_of,
)

# seconds after which a file without what is written right after it counts as abandoned: rows without a manifest, the
# note on a kind of feature without parts, an upload without a job
ROWS_AGE = 3600.0
WAIT_SECONDS = 10.0  # for another process that changes a bundle
SUFFIXES = ("parquet", "reviewed.parquet", "clusters.parquet", "centroids.parquet")  # of the files of snapshots' rows


Chunks = set[tuple[str, str, str, int]]  # parts without their attempt


@dataclass
class _References:
    """What is referenced: single parts by snapshots, the newest part of each chunk by jobs.

    Parts of the group `features` are not among them: they stay with the rows that they are beside.

    chunks: parts without their attempt; fingerprints: pairs (group, fingerprint) all of whose parts are referenced,
    superseded ones too: those of unfinished jobs; groups: all of whose parts may be referenced, by a damaged file;
    uploads: paths, None if a damaged file may reference any.
    """

    parts: set[Part] = field(default_factory=set)
    chunks: Chunks = field(default_factory=set)
    fingerprints: set[tuple[str, str]] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    uploads: set[str] | None = field(default_factory=set)

    def has(self, path: str, part: Part) -> bool:
        """Whether the part at a path is referenced."""
        if part in self.parts or (part.group, part.fingerprint) in self.fingerprints or part.group in self.groups:
            return True
        return path.startswith("parts/") and part[:-1] in self.chunks

    def rows(self, found: Iterable[str]) -> Iterator[Part]:
        """The `llm` parts that are referenced, and those of some files that are: of jobs that have not ended."""
        yield from (part for part in self.parts if part.group == FINAL_GROUP)
        yield from (Part(*chunk, 0) for chunk in self.chunks if chunk[0] == FINAL_GROUP)
        for path in found:
            yield from (part for part in parts_at(path) if part.group == FINAL_GROUP and self.has(path, part))


class Cleaning:
    """Finds and removes unreferenced files of a store.

    forget: finished jobs that are removed too, with their uploads, so that their references no longer count. Profiles,
    the files and uploads of other jobs, what was sent for a batch to come, and all parts of snapshots stay. damaged:
    after a search, a line for each file of a job or snapshot that cannot be read; what it may reference is kept. Raises
    UnknownSource, Conflict for a job that has not ended, and OSError if the store cannot be reached.
    """

    def __init__(self, store: Store, forget: Sequence[str] = ()) -> None:
        self.store = store
        self.forget = list(dict.fromkeys(forget))
        self._parts_of, self._snapshots = PartsOf(store), Snapshots(store)
        self.damaged: set[str] = set()
        self.damaged_snapshots = False
        self._known: set[Part] = set()  # what snapshots had when `unreferenced` looked
        self._strays: set[str] = set()  # uploads of `unreferenced` that no job has used
        self._bundles: dict[str, str] = {}  # those with parts of `unreferenced`, by the paths that these would have
        for job_id in self.forget:
            if not is_job_id(job_id) or self.store.read_job_file(job_id, "request") is None:
                raise UnknownSource(job_id, "there is no such job in the store")
            if self._unfinished(job_id):
                raise Conflict(f"job {job_id} has not ended; cancel it first")

    def unreferenced(self) -> dict[str, int]:
        """Removable files, by path with their bytes.

        They are parts, among them superseded ones that no snapshot references, broken parts that were set aside, files
        and judgments of forgotten jobs, rows files without a manifest, parts of the group `features` whose rows go,
        with the notes on what such parts are, and uploads that no job uses and that were not sent for a batch.
        """
        # list uploads before what names them: what is written meanwhile is kept
        sent = self._old_uploads()
        # list features before their rows, and all parts before the references: what is written meanwhile is kept
        beside = self.store.find("parts", FEATURES)
        found = self.store.find("superseded")
        for group in GROUPS:
            found |= self.store.find("parts", group)
        references = self._referenced()
        parts = dict(self._unkept(found, references.has))
        parts |= self._features(beside, Beside(self.store, references.rows(found)))
        # what is known of picked lists goes with their indexes
        lists = {part.identity for path in parts for part in parts_at(path) if part.group == GROUPS[0]}
        sources = {path: size for path, size in self.store.find("sources").items() if path.rpartition("/")[2] in lists}
        jobs = [file for job_id in self.forget for file in self.store.find("jobs", job_id).items()]
        self._strays = set(self._unnamed(sent, references.uploads))
        uploads = dict(self._uploads(references.uploads)) | {path: sent[path] for path in sorted(self._strays)}
        broken = {path: size for path, size in self.store.find("broken").items() if parts_at(path.partition("/")[2])}
        judgments = [file for job_id in self.forget for file in batches_of_job(self.store, job_id).items()]
        return {**parts, **sources, **broken, **uploads, **dict(jobs), **dict(judgments), **dict(self._rows())}

    def _unkept(self, found: dict[str, int], keeps: Callable[[str, Part], bool]) -> Iterator[tuple[str, int]]:
        """The files without a part that stays; of other bundles the parts that do not, with a share of the bytes."""
        for path, size in found.items():
            inside = parts_at(path)
            gone = [part for part in inside if not keeps(path, part)]
            if inside and len(gone) == len(inside):
                yield path, size
                continue
            for part in gone:
                self._bundles[part.path] = path
                yield part.path, size // len(inside)

    def _features(self, found: dict[str, int], rows: Beside) -> Iterator[tuple[str, int]]:
        """The parts of the group `features` that are beside no rows, and the notes on kinds that have no part."""
        used: set[str] = set()

        def keeps(path: str, part: Part) -> bool:
            beside = rows.has(part)
            used.update([part.fingerprint] if beside else ())
            return beside

        yield from self._unkept(found, keeps)
        for path, size in self.store.find(FEATURES).items():
            fingerprint, _, suffix = path.rpartition("/")[2].partition(".")
            if suffix == "json" and is_hash(fingerprint) and fingerprint not in used and self._is_old(path):
                yield path, size

    def remove(self, paths: Sequence[str]) -> list[str]:
        """Remove files of `unreferenced`, except parts of snapshots created since then. Returns the removed paths."""
        # read the snapshots again: minutes may have passed while the user confirmed
        pinned = self._pinned()
        # features beside rows that were pinned before are known to be superseded
        rows = Beside(self.store, pinned - self._known)
        gone = [path for path in paths if not any(part in pinned or rows.has(part) for part in parts_at(path))]
        # a stray upload that was sent once more has a new time
        gone = [path for path in gone if path not in self._strays or self._is_old(path)]
        for bundle in sorted({self._bundles[path] for path in gone if path in self._bundles}):
            unbundle(self.store, bundle, WAIT_SECONDS)
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda path: self.store.remove(self.store.path(path)), gone))
        for job_id in self.forget:
            self.store.remove_job(job_id)
        return gone

    def _referenced(self) -> _References:
        """All references: of snapshots, and of the jobs that are not forgotten."""
        self._known = self._pinned()
        references = _References(set(self._known))
        jobs = [job_id for job_id in self.store.job_ids() if job_id not in self.forget]
        with ThreadPoolExecutor(READERS) as pool:
            for one in pool.map(self._referenced_by_job, jobs):
                references.chunks |= one.chunks
                references.fingerprints |= one.fingerprints
                known = references.uploads is not None and one.uploads is not None
                references.uploads = (references.uploads or set()) | (one.uploads or set()) if known else None
                references.groups |= one.groups
        # which parts a damaged snapshot pins is not known; only parts of the final group can be pinned
        if self.damaged_snapshots:
            references.groups.add(FINAL_GROUP)
        return references

    def _pinned(self) -> set[Part]:
        """The parts of all snapshots whose manifests can be read."""
        pinned, damaged = self._snapshots.pinned()
        self.damaged_snapshots = bool(damaged)
        self.damaged |= set(map(str, damaged))
        return pinned

    def _referenced_by_job(self, job_id: str) -> _References:
        # which parts a job with a damaged file has is not known: keep all, unless the job is forgotten
        try:
            request = self._parts_of.request(job_id)
            if request is None:
                return _References()
            if not self._unfinished(job_id):
                return _References(chunks=set(self._of_job(request)), uploads=self._upload_of(request))
            # the parts of an unfinished job may not be known yet: keep all with its fingerprints, and those of which it
            # chooses rows
            kept = {(group, fingerprint) for group, fingerprint, _ in self._parts_of.pinned(request)}
            return _References(fingerprints=set(request.fingerprints.items()) | kept, uploads=self._upload_of(request))
        except DamagedFile as error:
            self.damaged.add(str(error))
            return _References(groups=set(GROUPS), uploads=None)

    def _of_job(self, request: JobRequest) -> Iterator[tuple[str, str, str, int]]:
        """Every part of a finished job, without its attempt: the newest attempt counts."""
        for summary in self._parts_of.summaries(request):
            yield Part("index", request.fingerprints["index"], summary.identity, 0, 0)[:-1]
            for group in GROUPS[1:]:
                yield from (Part.of_chunk(chunk)[:-1] for chunk in request.chunks(summary, group))

    def _unfinished(self, job_id: str) -> bool:
        return self.store.read_job_file(job_id, "end") is None

    def _upload_of(self, request: JobRequest) -> set[str]:
        """The paths of a job's uploads."""
        return {self.store.upload_path(uri) for uri in uploads_of(self.store, request)}

    def _uploads(self, used: set[str] | None) -> Iterator[tuple[str, int]]:
        """The uploads of forgotten jobs that no other job uses, with their bytes. used: None if that is not known."""
        for job_id in self.forget if used is not None else ():
            with suppress(DamagedFile):
                request = self._parts_of.request(job_id)
                for path in (self._upload_of(request) if request is not None else set()) - (used or set()):
                    yield from self.store.find(path).items()

    def _old_uploads(self) -> dict[str, int]:
        """The uploads that nobody is about to create a job for, with their bytes."""
        old = set(self.store.uploads_before(time.time() - ROWS_AGE))
        return {path: size for path, size in self.store.find("uploads").items() if path in old} if old else {}

    def _unnamed(self, sent: Collection[str], used: set[str] | None) -> set[str]:
        """The uploads that no job uses and that were not sent for a batch. used: None if that is not known."""
        if used is None or not (strays := set(sent) - used):
            return set()
        received = map(self.store.upload_uri, received_uploads(self.store))
        return strays - set(map(self.store.upload_path, received))

    def _rows(self) -> Iterator[tuple[str, int]]:
        """Rows files without a manifest: the process that wrote them was killed, or the name was already taken."""
        # without all manifests it is not known whose rows a file has
        if self.damaged_snapshots:
            return
        # young files are kept, since their manifest may be about to be written
        snapshots = self._snapshots.all()
        ids = {snapshot.id for snapshot in snapshots} | {one.manifest.selection.centroids for one in snapshots}
        for path, size in self.store.find("snapshots", "objects").items():
            name, _, suffix = path.rpartition("/")[2].partition(".")
            if name in ids or suffix not in SUFFIXES or not is_hash(name):
                continue
            if self._is_old(path):
                yield path, size

    def _is_old(self, path: str) -> bool:
        """Whether nobody is about to write what belongs to a file."""
        with suppress(FileNotFoundError):
            return self.store.age(self.store.path(path)) > ROWS_AGE
        return False
