"""The records that an evaluation reads: rows of a job, a data set or a snapshot, a sample of them if there are many.

Which rows are in a sample depends on their keys and the seed alone, so that another job on the same images gives the
same sample, and figures of both can be compared image by image.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
from PIL import Image

from strata.core import Record, Status
from strata.errors import InvalidInput
from strata.images import ImageError, decode
from strata.shards import ImageReader
from strata.snapshots import Snapshots, UnknownSnapshot, by_part
from strata.store import Part, PartsOf, Source, Store, UnknownSource

Advance = Callable[[int, int | None], None]  # parts that are read, and all


@dataclass(frozen=True)
class Rows:
    """Rows of parts, chosen from a source. statuses: the number of all its rows by status.

    chosen: the indices of the chosen rows, by part. fingerprints: of the parts, sorted. rejected: the indices of the
    rows that failed or were filtered, by part.
    """

    source: str
    kind: str
    chosen: dict[Part, list[int]]
    statuses: Counter[str] = field(default_factory=Counter)
    fingerprints: tuple[str, ...] = ()
    rejected: dict[Part, list[int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.chosen.values()))


def choose_rows(store: Store, source: str, most: int, seed: int, advance: Advance) -> Rows:
    """Choose at most `most` described rows of a job, a snapshot, a profile or a fingerprint.

    Raises UnknownSource, InvalidInput for a source without such rows, BrokenPart, LostPart, LostRows and OSError.
    """
    kind, parts, selected = _parts(store, source)
    statuses: Counter[str] = Counter()
    rejected: dict[Part, list[int]] = {}
    # the rows with the smallest hashes; the heap has the largest of them on top
    heap: list[tuple[int, int, int]] = []
    for number, part in enumerate(parts):
        table = store.read_columns(part.path, ["key", "status"])
        indices = range(table.num_rows) if selected is None else selected[number]
        keys, ends = table.column("key").to_pylist(), table.column("status").to_pylist()
        statuses.update(ends[index] for index in indices)
        if bad := [index for index in indices if ends[index] != Status.SUCCEEDED.value]:
            rejected[part] = bad
        for index in indices:
            if ends[index] == Status.SUCCEEDED.value:
                entry = (-_drawn(keys[index], seed), number, index)
                if len(heap) < most:
                    heapq.heappush(heap, entry)
                else:
                    heapq.heappushpop(heap, entry)
        advance(number + 1, len(parts))
    chosen: defaultdict[Part, list[int]] = defaultdict(list)
    for _, number, index in sorted(heap, key=lambda entry: entry[1:]):
        chosen[parts[number]].append(index)
    fingerprints = tuple(sorted({part.fingerprint for part in parts}))
    return Rows(source, kind, dict(chosen), statuses, fingerprints, rejected)


def check_source(store: Store, source: str) -> None:
    """Raises UnknownSource, InvalidInput, BrokenPart, LostPart, LostRows and OSError as `choose_rows` does."""
    _parts(store, source)


def _drawn(key: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def _parts(store: Store, source: str) -> tuple[str, Sequence[Part], dict[int, list[int]] | None]:
    """What a source is, its parts, and of a snapshot the selected rows of each part by its number."""
    found = PartsOf(store)
    is_job = found.request(source) is not None
    if not is_job:
        with suppress(UnknownSnapshot):
            snapshot = Snapshots(store).open(source)
            snapshot.check_parts()
            held = {number: rows.tolist() for number, rows in by_part(snapshot.rows())}
            return "snapshot", [Part.parse(path) for path in snapshot.parts], defaultdict(list, held)
    try:
        parts = found.sources([source])
    except UnknownSource as error:
        if error.reason.startswith("there is no such"):
            raise UnknownSource(source, "there is no such job, snapshot, profile or fingerprint in the store") from None
        raise
    if not parts:
        raise InvalidInput(f"{source}: it has no described images yet")
    return "job" if is_job else "data set", parts, None


def read_rows(store: Store, rows: Rows) -> Iterator[list[Record]]:
    """The chosen records, those of a part together. Raises BrokenPart and OSError."""
    for part, indices in rows.chosen.items():

        def read(at: Source, indices: list[int] = indices) -> list[Record]:
            table = store.decoded(at)[0]
            return store.to_records(table.take(pa.array(indices, pa.int64())), at)

        yield store.first(Source(part, part.path), read)


def images_of(
    store: Store, records: Mapping[str, Record], most: int, max_pixels: int
) -> Iterator[tuple[str, Record, Image.Image]]:
    """At most `most` of some records with their images, spread evenly; those that cannot be read are left out.

    records: by their keys, as the evaluation names them. Raises OSError.
    """
    reader = ImageReader(store)
    step = max(1, len(records) // most)
    count = 0
    for key, record in itertools.islice(records.items(), 0, None, step):
        if count == most:
            return
        (data,) = reader.read([record.image])
        if not isinstance(data, Exception):
            with suppress(ImageError):
                yield key, record, decode(data, max_pixels)
                count += 1


class Rejection(NamedTuple):
    """Rows that failed or were filtered for one reason: how many, and one of them."""

    status: str
    stage: str
    error: str
    number: int
    example: str


def rejections(store: Store, rows: Rows) -> list[Rejection]:
    """Why rows of a source failed or were filtered, the commonest reasons first. Raises BrokenPart and OSError."""
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], str] = {}
    for part, indices in rows.rejected.items():
        table = store.read_columns(part.path, ["key", "status", "failure"])
        for row in table.take(pa.array(indices, pa.int64())).to_pylist():
            note = row["failure"] or {"stage": "unknown", "error_type": "unknown", "detail": "the row has no reason"}
            reason = (row["status"], note["stage"], note["error_type"])
            counts[reason] += 1
            examples.setdefault(reason, f"{row['key']}: {note['detail']}")
    return [Rejection(*reason, count, examples[reason]) for reason, count in counts.most_common()]
