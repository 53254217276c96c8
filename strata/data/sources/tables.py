"""Tables of samples: the position of each image, and its texts, in a memory-mapped Arrow file.

A global shuffle reads rows in random order. A memory-mapped table uses only the memory of the pages that are read.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("turns", pa.list_(pa.string()), nullable=False),
        pa.field("more", pa.list_(pa.string()), nullable=False),
        pa.field("system", pa.string(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
    ]
)
VERSION = 5  # of the code that computes rows; cached tables of other versions are not used
_BATCH = 4096  # rows converted at a time, to bound the number of Python objects


class SampleRow(NamedTuple):
    """One sample: bytes offset..offset+size of the file at uri, and the texts of its conversation.

    uri: "" for a sample without an image. size: 0 for a whole file of unknown size. identity: of the shard when it was
    indexed, "" if not known. turns: a single answer, or questions and answers in turn, from a question to an answer.
    more: the URIs of further images, FILE or FILE#bytes=OFFSET+SIZE. With several images the turns have "<image>" at
    the place of each. system: the system turn, "" for none. problem: why the sample cannot be used, "" if it can.
    """

    key: str
    uri: str
    offset: int
    size: int
    identity: str
    turns: list[str]
    more: Sequence[str] = ()
    system: str = ""
    problem: str = ""


class LeftOut(NamedTuple):
    """A sample that a file has, but the table has not, and why: that of others may be equal."""

    reason: str


class SampleTable:
    """A table on disk, pickled as its path. left_out: how many samples are not in it, for each reason.

    The constructor raises OSError if the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches: list[list[pa.Array]] = []
        self._starts: list[int] = []
        self.left_out: dict[str, int] = {}
        self._open()

    def _open(self) -> None:
        # the arrays refer to the mapped file: a page is read when a row in it is
        reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        self._batches = [reader.get_batch(number).columns for number in range(reader.num_record_batches)]
        told = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)[1] if self._batches else None
        self.left_out = {reason.decode(): int(count) for reason, count in (told or {}).items()}
        self._starts = list(itertools.accumulate((len(columns[0]) for columns in self._batches), initial=0))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()

    def __len__(self) -> int:
        return self._starts[-1]

    def rows(self, numbers: Sequence[int]) -> list[SampleRow]:
        """The rows with these numbers, in the order given."""
        return [self._row(number) for number in numbers]

    def _row(self, number: int) -> SampleRow:
        number_of_batch = bisect.bisect_right(self._starts, number) - 1
        row = number - self._starts[number_of_batch]
        return SampleRow(*[column[row].as_py() for column in self._batches[number_of_batch]])

    def files(self) -> list[tuple[str, str, str]]:
        """The distinct files in which images lie, each with its shard's identity and the first key of a row with it."""
        # Arrow groups without a Python object for each row
        key, more = self._column("key"), self._column("more")
        first = {"uri": self._column("uri"), "identity": self._column("identity"), "key": key}
        files = _distinct(pa.table(first))
        # the further images of rows with several
        flat = pc.list_flatten(more)
        further = {"uri": flat, "identity": pa.array([""] * len(flat)), "key": key.take(pc.list_parent_indices(more))}
        return [file for file in files if file[0]] + _distinct(pa.table(further))

    def problems(self) -> tuple[int, str]:
        """The number of rows that cannot be used, and why the first of them cannot ("" if all can)."""
        column = self._column("problem")
        bad = column.filter(pc.not_equal(column, ""))
        return len(bad), bad[0].as_py() if len(bad) else ""

    def _column(self, name: str) -> pa.ChunkedArray:
        field = SAMPLE_SCHEMA.field(name)
        position = SAMPLE_SCHEMA.get_field_index(name)
        return pa.chunked_array([batch[position] for batch in self._batches], field.type)


def _distinct(table: pa.Table) -> list[tuple[str, str, str]]:
    found = table.group_by(["uri", "identity"], use_threads=False).aggregate([("key", "first")])
    return list(zip(*(found.column(name).to_pylist() for name in ("uri", "identity", "key_first")), strict=True))


def kept_path(cache: Path, name: str) -> Path:
    """Where the table of a name is kept."""
    # the version is part of the name, so that tables of older code are not found
    return cache / f"{hashlib.sha256(f'{VERSION}/{name}'.encode()).hexdigest()[:32]}.arrow"


def kept_table(cache: Path, name: str, make: Callable[[], Iterable[SampleRow | LeftOut]]) -> SampleTable:
    """Open a table from the cache; compute and write it first if it is missing.

    name: determines the content. The file is written under a temporary name and then renamed, so that it is complete
    or absent, also if several processes make it at the same time. Raises OSError.
    """
    path = kept_path(cache, name)
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        # each process writes a file of its own; the last rename wins, with the same content
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
        try:
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, SAMPLE_SCHEMA) as writer:
                left_out: Counter[str] = Counter()
                for batch in _batches(_kept(make(), left_out)):
                    writer.write_batch(batch)
                # an empty batch at the end has the numbers of those that are not in the table
                if left_out:
                    counts = {reason: str(count) for reason, count in left_out.items()}
                    writer.write_batch(pa.RecordBatch.from_pylist([], SAMPLE_SCHEMA), custom_metadata=counts)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
    return SampleTable(path)


def _kept(rows: Iterable[SampleRow | LeftOut], left_out: Counter[str]) -> Iterator[SampleRow]:
    for row in rows:
        if isinstance(row, LeftOut):
            left_out[row.reason] += 1
        else:
            yield row


def _batches(rows: Iterable[SampleRow]) -> Iterator[pa.RecordBatch]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, _BATCH)):
        columns = zip(zip(*batch, strict=True), SAMPLE_SCHEMA.types, strict=True)
        yield pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in columns], schema=SAMPLE_SCHEMA)


def default_cache() -> Path:
    """The default folder for tables, by the XDG Base Directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strata" / "samples"
