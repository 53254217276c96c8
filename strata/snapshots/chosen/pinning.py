"""Pinning: which parts a job chooses its rows from, with the shards in which their images lie.

What is pinned is small, whatever the number of rows: the numbers of the parts, and of a snapshot a bit for each row.
Which rows a filter chooses is found later, shard by shard, where the shards are indexed (`rows.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from strata.core import JobRequest, Pin, PinnedParts, PinnedShard, is_job_id, source_identity, source_shard
from strata.errors import DamagedFile, InvalidInput
from strata.snapshots.features import FEATURES
from strata.snapshots.filters import Filter, FilterError
from strata.snapshots.places import by_part
from strata.snapshots.snapshot import Snapshot
from strata.snapshots.snapshots import Snapshots, UnknownSnapshot
from strata.store import READERS, ParquetCell, Part, PartsOf, Store, UnknownSource, file_folder

# parts of one fingerprint and identity, each with the rows that are meant: None stands for all of them
_Parts = dict[tuple[str, str, bool], list[tuple[Part, str | None]]]


class Pinning:
    """Pins what rows are chosen from. Every method raises OSError if the store cannot be reached.

    sees: whether what belongs to a tenant may be read; of nobody's (""), such as a data set, which has the rows of all.
    """

    def __init__(self, store: Store, sees: Callable[[str], bool] = lambda tenant: True) -> None:
        self.store, self._sees = store, sees
        self._parts_of, self._snapshots = PartsOf(store), Snapshots(store)

    def pin(self, names: Sequence[str], where: str | None) -> Pin:
        """What jobs, snapshots and data sets have now, by shard, in a fixed order. where: a filter of their rows.

        Of a job that has not ended these are the rows so far. Raises UnknownSource for a name that does not exist or
        may not be read, FilterError, LostRows, LostPart, DamagedFile, and InvalidInput if nothing is described yet.
        """
        for name in sorted(Filter(where).names) if where is not None else ():
            if FEATURES[name].whole:
                raise FilterError(where or "", f"{name!r} needs all rows: only `strata snapshot create` has it")
        shards: defaultdict[str, _Parts] = defaultdict(dict)
        uris: dict[str, str] = {}
        jobs: list[str] = []
        for name in dict.fromkeys(names):
            found, known, made_of = self._source(name)
            jobs += made_of
            uris |= known
            for part, rows in found:
                parts = shards[source_identity(part.identity)]
                parts.setdefault((part.fingerprint, part.identity, rows is not None), []).append((part, rows))
        if not shards:
            raise InvalidInput(f"{', '.join(names)}: nothing is described yet, so that there is no row to choose from")
        self._find_uris(shards, uris, jobs)
        order = sorted(shards, key=lambda identity: (uris[identity], identity))
        pinned = [PinnedShard(uri=uris[one], identity=one, parts=list(_pinned(shards[one]))) for one in order]
        return Pin(where=where, shards=pinned)

    def _source(self, name: str) -> tuple[list[tuple[Part, str | None]], dict[str, str], list[str]]:
        """The parts of a source with their rows, the shards that are known of them, and the jobs that it is made of."""
        request = self._parts_of.request(name)
        if request is not None:
            if not self._sees(request.tenant):
                raise _unknown(name)
            return [(part, None) for part in self._parts_of.job(request)], self._shards_of(request), []
        with suppress(UnknownSnapshot):
            snapshot = self._snapshots.open(name)
            if not self._sees(snapshot.manifest.tenant):
                raise _unknown(name)
            snapshot.check_parts()
            return list(_rows_of(snapshot)), {}, [one for one in snapshot.manifest.sources if is_job_id(one)]
        if not self._sees(""):
            raise _unknown(name)
        try:
            return [(part, None) for part in self._parts_of.sources([name])], {}, []
        except UnknownSource as error:
            # the store names its jobs and data sets; here there are snapshots too
            raise _unknown(name) if "no such job" in error.reason else error from None

    def _shards_of(self, request: JobRequest) -> dict[str, str]:
        """The URIs of a job's shards, by the identities of those that hold the images."""
        summaries = self._parts_of.summaries(request)
        return {source_identity(one.identity): source_shard(one.shard) for one in summaries if one.identity}

    def _find_uris(self, shards: Mapping[str, _Parts], uris: dict[str, str], jobs: Sequence[str]) -> None:
        """Add the URIs that lack: of the jobs that were named, then of all others, then of the images themselves."""
        for job_ids in (jobs, None):
            if shards.keys() <= uris.keys():
                return
            with ThreadPoolExecutor(READERS) as pool:
                for known in pool.map(self._shards_of_job, self.store.job_ids() if job_ids is None else job_ids):
                    uris |= {identity: uri for identity, uri in known.items() if identity not in uris}
        for identity in shards.keys() - uris.keys():
            uris[identity] = self._uri_of_images(next(iter(shards[identity].values()))[0][0])

    def _shards_of_job(self, job_id: str) -> dict[str, str]:
        with suppress(DamagedFile):
            request = self._parts_of.request(job_id)
            # where another tenant has a copy of the shard is not told
            return self._shards_of(request) if request is not None and self._sees(request.tenant) else {}
        return {}

    def _uri_of_images(self, part: Part) -> str:
        """The shard in which the images of a part lie, if no job tells it: a tar or list itself, else a folder."""
        (image,) = self.store.read_columns(part.path, ["image"]).slice(0, 1).column("image").to_pylist()
        uri: str = image["uri"]
        if cell := ParquetCell.find(uri):
            return cell.file
        return uri if image["offset"] or self.store.is_upload(uri) else file_folder(uri)


def _unknown(name: str) -> UnknownSource:
    return UnknownSource(name[:100], "there is no such job, snapshot, profile or fingerprint in the store")


def _rows_of(snapshot: Snapshot) -> Iterable[tuple[Part, str]]:
    """The parts with rows of a snapshot, with a bit for each row, the first one in the highest bit, in hexadecimal."""
    for number, rows in by_part(snapshot.rows()):
        bits = np.zeros(int(rows[-1]) + 1, np.bool_)
        bits[rows] = True
        yield Part.parse(snapshot.parts[number]), np.packbits(bits).tobytes().hex()


def _pinned(parts: _Parts) -> Iterable[PinnedParts]:
    for (fingerprint, identity, some), found in sorted(parts.items()):
        yield PinnedParts(
            fingerprint=fingerprint,
            identity=identity,
            numbers=[part.number for part, _ in found],
            attempts=[part.attempt for part, _ in found],
            rows=[rows or "" for _, rows in found] if some else None,
        )
