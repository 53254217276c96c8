"""Deleting a job for good: its files, its upload, and all parts that neither another job nor a snapshot uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress

from strata.core import FEATURES, FINAL_GROUP, GROUPS, JobRequest, is_hash
from strata.errors import DamagedFile
from strata.judgments import remove_judgments
from strata.snapshots.snapshots import Snapshots
from strata.store import LOCK, READERS, Beside, Bundle, Part, PartsOf, Store, folder_lock, parts_at, unbundle

# where the parts of a folder lie: the newest attempts, older ones, those that are broken and were set aside, and the
# rows of chunks that have no part yet
PLACES = ("parts", "superseded", "broken/parts", "broken/superseded", "progress")
Folder = tuple[str, str, str]  # group, fingerprint, and the identity of a shard: the parts of one shard


class Deletion:
    """Deletes jobs that have ended. Every method raises OSError if the store cannot be reached."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._parts_of, self._snapshots = PartsOf(store), Snapshots(store)

    def delete(self, job_id: str, others: Iterable[str], uploads: Iterable[str] = ()) -> int:
        """Delete a job's files, and of what it uses that which no other job and no snapshot uses; returns the number.

        others: the ids of all other jobs that may use the same parts. uploads: the URIs of its uploads that none uses.
        If a file of one of these jobs or of a snapshot is damaged, all parts stay, because it may use them. If the
        process dies in between, the job is still there, and can be deleted again.
        """
        # the images first: afterwards their list is gone
        gone = [self.store.upload_path(uri) for uri in uploads]
        self._remove(gone)
        parts = 0
        with suppress(DamagedFile):
            request = self._parts_of.request(job_id)
            if request is not None:
                parts = self._remove_unshared(request, [other for other in others if other != job_id])
        # what people said of its records, then the job's own files
        remove_judgments(self.store, job_id)
        self.store.remove_job(job_id)
        self.store.close_job(job_id)
        return len(gone) + parts

    def _remove(self, paths: Sequence[str]) -> None:
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda path: self.store.remove(self.store.path(path)), paths))

    def _remove_unshared(self, request: JobRequest, others: Sequence[str]) -> int:
        """Remove the parts that only this job uses, of all attempts, and features of rows that are gone; their number.

        Raises DamagedFile.
        """
        with ThreadPoolExecutor(READERS) as pool:
            used = set().union(*pool.map(self._used_by, others))
            mine = [folder for folder in self._folders(request) if not used & {folder, (*folder[:2], "")}]
            pinned, damaged = self._snapshots.pinned()
            if damaged:
                raise damaged[0]
            removed = sum(pool.map(lambda folder: self._remove_folder(folder, pinned.__contains__), mine))
            # after the rows: who computes features looks for their rows after writing
            return removed + self._remove_features(request, pool)

    def _remove_features(self, request: JobRequest, pool: ThreadPoolExecutor) -> int:
        """Remove the parts of the group `features` of a job's shards whose rows are gone; their number."""
        fingerprints = {name for place in PLACES for name in self.store.folders(f"{place}/{FEATURES}", is_hash)}
        identities = {summary.identity for summary in self._parts_of.summaries(request) if summary.identity}
        if not fingerprints or not identities:
            return 0
        left = [self.store.folders(f"{place}/{FINAL_GROUP}", is_hash) for place in ("parts", "superseded")]
        of_rows = itertools.product(set().union(*left), identities)
        rows = pool.map(lambda each: self.store.parts_in("/".join((FINAL_GROUP, *each))), of_rows)
        beside = Beside(self.store, itertools.chain.from_iterable(rows))
        folders = [(FEATURES, *each) for each in itertools.product(sorted(fingerprints), sorted(identities))]
        return sum(pool.map(lambda folder: self._remove_folder(folder, beside.has), folders))

    def _remove_folder(self, folder: Folder, keeps: Callable[[Part], bool]) -> int:
        """Remove the parts of a shard, except those that stay; their number."""
        place = "/".join(("parts", *folder))
        names = self.store.names(place)
        bundles = [bundle for name in names if (bundle := Bundle.find(f"{place}/{name}"))]
        # the rows of a bundle that are deleted must not stay with those that are kept
        for bundle in bundles:
            if 0 < sum(map(keeps, bundle.parts)) < len(bundle.parts):
                unbundle(self.store, bundle.path)
        # nobody may put the rows that are deleted into a bundle now; a single file never becomes one
        with folder_lock(self.store, place) if len(names) > 1 else nullcontext():
            found = [path for where in PLACES for path in self.store.find(where, *folder)]
            gone = [path for path in found if not any(map(keeps, parts_at(path.removeprefix("broken/"))))]
            gone = [path for path in gone if not path.endswith(f"/{LOCK}")]
            self._remove(gone)
        if folder[0] == GROUPS[0]:
            self.store.remove_sources(folder[2])
        return len(gone)

    def _used_by(self, job_id: str) -> set[Folder]:
        """The folders of parts that a job uses; one with an empty identity stands for all of its fingerprint."""
        request = self._parts_of.request(job_id)
        if request is None:
            return set()
        used = set(self._folders(request))
        # the shards of a job that is not complete may not be known yet
        if request.kind == "batch" and self.store.read_job_file(job_id, "end") is None:
            used |= {(group, fingerprint, "") for group, fingerprint in request.fingerprints.items()}
            used |= set(self._parts_of.pinned(request))
        return used

    def _folders(self, request: JobRequest) -> list[Folder]:
        identities = [summary.identity for summary in self._parts_of.summaries(request) if summary.identity]
        return [(group, request.fingerprints[group], identity) for group in GROUPS for identity in identities]
