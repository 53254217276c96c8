"""The judgments of a store: appending them, reading them, and making few files of many.

They lie in `judgments/FINGERPRINT/JOB/`, so that those of a job are removed with it, and those of a data set are found
by its fingerprint.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from strata.core import is_hash, is_job_id
from strata.errors import BrokenStore
from strata.judgments.batches import Batch, BrokenBatch, decode, encode, is_batch
from strata.judgments.history import distinct
from strata.judgments.judgment import Judgment
from strata.store import READERS, Store

log = logging.getLogger(__name__)

FOLDER = "judgments"
FILES = 128  # of one job, after which they are made one
LISTINGS = 5  # of a folder that others change meanwhile
KEPT_SECONDS = 60.0  # for which batches stay after others were made of them, for those who list the folder meanwhile
CACHED = 100_000  # judgments that one process keeps in memory


class LostJudgments(BrokenStore):
    """Batches of judgments are missing or broken; `faults` has a line for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        more = f", and {len(faults) - 1:,} more" if faults[1:] else ""
        super().__init__(f"{faults[0]}{more}; `strata review mend` goes on without what is lost")
        self.faults = list(faults)

    @property
    def lines(self) -> list[str]:
        """A line for each batch."""
        return self.faults


@dataclass(frozen=True)
class Found:
    """Judgments, each once, by time; faults: a line for each batch that is missing or broken, with its path."""

    judgments: list[Judgment]
    faults: list[str] = field(default_factory=list)

    def whole(self) -> list[Judgment]:
        """The judgments. Raises LostJudgments if some are missing."""
        if self.faults:
            raise LostJudgments(self.faults)
        return self.judgments


@dataclass(frozen=True)
class _Folder:
    """The batches of one job, by their names; unreadable: of those that cannot be read, why, by their names."""

    batches: dict[str, Batch]
    unreadable: dict[str, str]

    @functools.cached_property
    def replaced(self) -> set[str]:
        """The names of the batches of which others were made; they may still be there."""
        return {name for batch in self.batches.values() for name in batch.replaces}

    @functools.cached_property
    def followed(self) -> set[str]:
        """The names of the batches that others follow."""
        return {name for batch in self.batches.values() for name in batch.after}

    @property
    def heads(self) -> set[str]:
        """The batches that no other one follows or replaces."""
        return set(self.batches) - self.followed - self.replaced

    @property
    def broken(self) -> dict[str, str]:
        """Of the batches that cannot be read and are needed, why, by their names."""
        return {name: reason for name, reason in self.unreadable.items() if name not in self.replaced}

    @property
    def missing(self) -> list[str]:
        """The batches that others follow and that are nowhere."""
        return sorted(self.followed - self.replaced - set(self.batches) - set(self.unreadable))


class Judgments:
    """The judgments of one store. Safe to use from several threads, processes and machines.

    Every method raises OSError if the store cannot be reached.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        # batches never change: what was read once is not read again
        self._cache: OrderedDict[str, Batch] = OrderedDict()
        self._cached = 0

    # reading

    def of_job(self, fingerprint: str, job: str) -> Found:
        """All judgments of a job's records. It takes one listing, and reads what was not read before."""
        return self._found([(fingerprint, job)])

    def of_fingerprints(self, fingerprints: Iterable[str], counts: Callable[[str], bool] = lambda job: True) -> Found:
        """All judgments of the records with some fingerprints of the group `llm`; counts: of which jobs."""
        return self._found([(one, job) for one in sorted(set(fingerprints)) for job in self.jobs(one) if counts(job)])

    def all(self, counts: Callable[[str], bool] = lambda job: True) -> Found:
        """All judgments of the store; counts: as in `of_fingerprints`."""
        return self.of_fingerprints(self.fingerprints(), counts)

    def fingerprints(self) -> list[str]:
        """The fingerprints with judgments, sorted. It takes one listing."""
        return self.store.folders(FOLDER, is_hash)

    def jobs(self, fingerprint: str) -> list[str]:
        """The jobs with judgments of records with a fingerprint, sorted. It takes one listing."""
        return self.store.folders(f"{FOLDER}/{fingerprint}", is_job_id)

    def _found(self, folders: Sequence[tuple[str, str]]) -> Found:
        judgments: list[Judgment] = []
        faults: list[str] = []
        for fingerprint, job in folders:
            read = self._read(fingerprint, job)
            judgments += (judgment for batch in read.batches.values() for judgment in batch.judgments)
            faults += _faults(fingerprint, job, read)
        return Found(distinct(judgments), faults)

    def _read(self, fingerprint: str, job: str) -> _Folder:
        """All batches of a job."""
        folder = f"{FOLDER}/{fingerprint}/{job}"
        for _ in range(LISTINGS):
            names = self.store.without_foreign(folder, self.store.names(folder), is_batch)
            batches: dict[str, Batch] = {}
            broken: dict[str, str] = {}
            with ThreadPoolExecutor(READERS) as pool:
                results = list(pool.map(lambda name: self._batch(f"{folder}/{name}"), names))
            for name, result in zip(names, results, strict=True):
                if isinstance(result, Batch):
                    batches[name] = result
                elif result is not None:
                    broken[name] = result
            read = _Folder(batches, broken)
            # a batch that was there when the folder was listed may be part of a new one now: list again
            if None not in results and not read.missing:
                break
        return read

    def _batch(self, path: str) -> Batch | str | None:
        """A batch; why it is broken; None if it does not exist."""
        with self._lock:
            if path in self._cache:
                self._cache.move_to_end(path)
                return self._cache[path]
        try:
            batch = decode(path.rpartition("/")[2], self.store.get(self.store.path(path)))
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            return "it is a folder"
        except BrokenBatch as error:
            return str(error)
        self._keep(path, batch)
        return batch

    def _keep(self, path: str, batch: Batch) -> None:
        with self._lock:
            if path not in self._cache:
                self._cache[path] = batch
                self._cached += len(batch.judgments)
            while self._cached > CACHED and len(self._cache) > 1:
                self._cached -= len(self._cache.popitem(last=False)[1].judgments)

    # writing

    def append(self, judgments: Sequence[Judgment]) -> list[str]:
        """Store judgments, one batch for each job; returns the paths. The caller leaves out those that are there.

        After FILES batches of a job they are made one.
        """
        groups: dict[tuple[str, str], list[Judgment]] = {}
        for judgment in judgments:
            groups.setdefault((judgment.fingerprint, judgment.job), []).append(judgment)
        paths = []
        for (fingerprint, job), members in groups.items():
            folder = self._read(fingerprint, job)
            paths.append(self._write(fingerprint, job, members, folder.heads, ()))
            self._remove_replaced(fingerprint, job, folder)
            if len(set(folder.batches) - folder.replaced) >= FILES:
                self.compact(fingerprint, job)
        return paths

    def _remove_replaced(self, fingerprint: str, job: str, folder: _Folder) -> None:
        """Remove the batches of which another one was made some time ago."""
        for name, batch in folder.batches.items():
            gone = [one for one in batch.replaces if one in folder.batches or one in folder.unreadable]
            place = self.store.path(FOLDER, fingerprint, job)
            # another process may remove this batch too, because a newer one replaces it
            with suppress(FileNotFoundError):
                if gone and self.store.age(f"{place}/{name}") > KEPT_SECONDS:
                    for one in gone:
                        self.store.remove(f"{place}/{one}")

    def _write(
        self, fingerprint: str, job: str, judgments: Sequence[Judgment], after: Iterable[str], replaces: Iterable[str]
    ) -> str:
        name, data = encode(judgments, after, replaces)
        path = f"{FOLDER}/{fingerprint}/{job}/{name}"
        self.store.put(self.store.path(path), data)
        return path

    def compact(self, fingerprint: str, job: str, accept_loss: bool = False) -> int:
        """Make one batch of all intact batches of a job; returns their number.

        Those are removed later; until then each judgment is there twice, and counts once. A batch that is broken or
        missing stays a fault, unless the loss is accepted: then broken ones are moved to `broken/`, and nobody misses
        them any more.
        """
        folder = self._read(fingerprint, job)
        lost = [*folder.broken, *folder.missing] if accept_loss else []
        parts = set(folder.batches) - folder.replaced
        judgments = distinct(one for batch in folder.batches.values() for one in batch.judgments)
        if judgments and (len(parts) > 1 or lost):
            # what an older batch follows and nobody has seen stays missed
            after = [] if accept_loss else [*folder.missing, *folder.broken]
            self._write(fingerprint, job, judgments, after, {*folder.batches, *folder.replaced, *lost})
        place = f"{FOLDER}/{fingerprint}/{job}"
        for name in folder.broken if accept_loss else ():
            self.store.move(f"{place}/{name}", f"broken/{place}/{name}")
        return len(parts)


def _faults(fingerprint: str, job: str, folder: _Folder) -> Iterator[str]:
    place = f"{FOLDER}/{fingerprint}/{job}"
    yield from (f"{place}/{name} is broken: {reason}" for name, reason in sorted(folder.broken.items()))
    yield from (f"{place}/{name} is missing" for name in folder.missing)


def batches_of_job(store: Store, job: str) -> dict[str, int]:
    """The files with a job's judgments, also those that are broken: their sizes in bytes by their paths."""
    found: dict[str, int] = {}
    for place in (FOLDER, f"broken/{FOLDER}"):
        for fingerprint in store.folders(place, is_hash):
            found |= store.find(*place.split("/"), fingerprint, job)
    return found


def remove_judgments(store: Store, job: str) -> int:
    """Remove all judgments of a job; returns the number of files. Raises OSError."""
    paths = list(batches_of_job(store, job))
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda path: store.remove(store.path(path)), paths))
    return len(paths)
