"""Tables of samples: where each image lies and what is said of it, in an Arrow file that is mapped, not loaded.

A global shuffle asks for rows in no order. A table costs a process the pages that it touches, however long it is.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("turns", pa.list_(pa.string()), nullable=False),
    ]
)
VERSION = 1  # of how rows are made: a table of another version is not found
_BATCH = 4096  # rows that are Python objects at a time


class SampleRow(NamedTuple):
    """One sample: an image, the identity that its shard had ("": not known), and what is said of it.

    size 0: the whole file, of whatever size it is.
    turns: an answer alone, or questions and answers by turns, beginning with a question and ending with an answer.
    """

    key: str
    uri: str
    offset: int
    size: int
    identity: str
    turns: list[str]


class SampleTable:
    """A table on disk; pickled as its path. Raises OSError where the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches: list[list[pa.Array]] = []
        self._starts: list[int] = []
        self._open()

    def _open(self) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        self._batches = [reader.get_batch(number).columns for number in range(reader.num_record_batches)]
        self._starts = list(itertools.accumulate((len(columns[0]) for columns in self._batches), initial=0))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()

    def __len__(self) -> int:
        return self._starts[-1]

    def rows(self, numbers: Sequence[int]) -> list[SampleRow]:
        """The rows of some numbers, in their order."""
        return [self._row(number) for number in numbers]

    def _row(self, number: int) -> SampleRow:
        place = bisect.bisect_right(self._starts, number) - 1
        row = number - self._starts[place]
        return SampleRow(*[column[row].as_py() for column in self._batches[place]])

    def files(self) -> list[tuple[str, str]]:
        """The distinct files that the rows lie in, with their identities."""
        names = ("uri", "identity")
        places = [SAMPLE_SCHEMA.get_field_index(name) for name in names]
        columns = [pa.chunked_array([batch[place] for batch in self._batches], pa.string()) for place in places]
        distinct = pa.Table.from_arrays(columns, names).group_by(list(names), use_threads=False).aggregate([])
        return list(zip(*(distinct.column(name).to_pylist() for name in names), strict=True))


def kept_table(cache: Path, name: str, make: Callable[[], Iterable[SampleRow]]) -> SampleTable:
    """The table of a name that says all about its content, made on its first use and kept in a folder.

    Whole or not there at all: processes that make it at the same time do not disturb one another. Raises OSError.
    """
    path = cache / f"{hashlib.sha256(f'{VERSION}/{name}'.encode()).hexdigest()[:32]}.arrow"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
        try:
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, SAMPLE_SCHEMA) as writer:
                for batch in _batches(make()):
                    writer.write_batch(batch)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
    return SampleTable(path)


def _batches(rows: Iterable[SampleRow]) -> Iterator[pa.RecordBatch]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, _BATCH)):
        columns = zip(zip(*batch, strict=True), SAMPLE_SCHEMA.types, strict=True)
        yield pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in columns], schema=SAMPLE_SCHEMA)


def default_cache() -> Path:
    """Where tables are kept if nothing else is said: by the XDG base directories."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strata" / "samples"
