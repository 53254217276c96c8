"""Deleting a job for good: its files, its upload, and all parts that neither another job nor a snapshot uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from strata.core import GROUPS, JobRequest
from strata.errors import DamagedFile
from strata.judgments import remove_judgments
from strata.snapshots.snapshots import Snapshots
from strata.store import READERS, Part, PartsOf, Store

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
        paths: list[str] = []
        with suppress(DamagedFile):
            request = self._parts_of.request(job_id)
            if request is not None:
                paths += self._unshared(request, [other for other in others if other != job_id])
        self._remove(paths)
        # what people said of its records, then the job's own files
        remove_judgments(self.store, job_id)
        self.store.remove_job(job_id)
        self.store.close_job(job_id)
        return len(gone) + len(paths)

    def _remove(self, paths: Sequence[str]) -> None:
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(lambda path: self.store.remove(self.store.path(path)), paths))

    def _unshared(self, request: JobRequest, others: Sequence[str]) -> list[str]:
        """The paths of the parts that only this job uses, of all attempts. Raises DamagedFile."""
        with ThreadPoolExecutor(READERS) as pool:
            used = set().union(*pool.map(self._used_by, others))
            mine = [folder for folder in self._folders(request) if not used & {folder, (*folder[:2], "")}]
            places = [(place, *folder) for folder in mine for place in PLACES]
            found = [path for files in pool.map(lambda place: self.store.find(*place), places) for path in files]
        pinned, damaged = self._snapshots.pinned()
        if damaged:
            raise damaged[0]
        return [path for path in found if Part.find(path.removeprefix("broken/")) not in pinned]

    def _used_by(self, job_id: str) -> set[Folder]:
        """The folders of parts that a job uses; one with an empty identity stands for all of its fingerprint."""
        request = self._parts_of.request(job_id)
        if request is None:
            return set()
        used = set(self._folders(request))
        # the shards of a job that is not complete may not be known yet
        if request.kind == "batch" and self.store.read_job_file(job_id, "end") is None:
            used |= {(group, fingerprint, "") for group, fingerprint in request.fingerprints.items()}
        return used

    def _folders(self, request: JobRequest) -> list[Folder]:
        identities = [summary.identity for summary in self._parts_of.summaries(request) if summary.identity]
        return [(group, request.fingerprints[group], identity) for group in GROUPS for identity in identities]
