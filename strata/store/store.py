"""The store: immutable parts, uploads and job files in a directory or bucket.

Parts are the source of truth. A part's path is a function of group, fingerprint, shard identity, chunk and attempt, so
writing a part twice is harmless, and a part that exists means that the work is done.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from strata.core import RECORD_SCHEMA, SCHEMA_VERSION, Bill, Chunk, Record, Status, records_to_table, table_to_records
from strata.store.filesystem import as_os_error
from strata.store.shard_files import ShardFiles

READERS = 16  # footers of a bucket that are read in parallel: each takes two round trips
_COUNTS = b"strata.counts"
_BILL = b"strata.bill"
_FAILURE = b"strata.shard_failure"
_FAMILIES = b"strata.families"


class Footer(NamedTuple):
    """The content of a part's footer: the number of images by status, and their bill if a model server was asked."""

    counts: Counter[str]
    bill: Bill | None


def families_of(index: pa.Table) -> list[str]:
    """The families of the folder or list that an index part is of; none for a tar, or in a part of earlier versions."""
    return list(json.loads((index.schema.metadata or {}).get(_FAMILIES, b"[]")))


class Store(ShardFiles):
    """Reads and writes everything that must survive. Safe to use from several threads and machines.

    Every method raises OSError if the storage cannot be reached.
    """

    def part_path(self, chunk: Chunk) -> str:
        """The path of a chunk's part, which may not exist yet."""
        return self.path("parts", chunk.group, chunk.fingerprint, chunk.identity, f"{chunk.name}.parquet")

    def write_records(self, chunk: Chunk, records: list[Record], bill: Bill | None = None) -> Counter[str]:
        """Write a part with its counts and its bill in the footer; returns the number of images by status.

        A record whose text UTF-8 cannot hold (half of a surrogate pair) becomes a failed row.
        """
        try:
            table = records_to_table(records)
        except UnicodeEncodeError:
            table = records_to_table([_encodable(record, chunk.group) for record in records])
        return self.write_rows(chunk, table, bill)

    def write_rows(self, chunk: Chunk, table: pa.Table, bill: Bill | None = None) -> Counter[str]:
        """Write a part from a table of RECORD_SCHEMA; returns the number of images by status."""
        counts = Counter[str](table.column("status").to_pylist())
        metadata = {_COUNTS: json.dumps(counts).encode()}
        if bill is not None:
            metadata[_BILL] = bill.model_dump_json().encode()
        # for forty small columns zstd adds half to the time of writing, and saves a twentieth of the size
        self._write_table(chunk, table, metadata, "snappy")
        return counts

    def write_index(
        self, chunk: Chunk, table: pa.Table, failure: str | None = None, families: Sequence[str] = ()
    ) -> None:
        """Write a shard's index part from a table of INDEX_SCHEMA.

        failure: why not all of the shard was read; families: those of a folder or list, see ShardIndex.
        """
        metadata = {_FAILURE: (failure or "").encode(), _FAMILIES: json.dumps(list(families)).encode()}
        self._write_table(chunk, table, metadata, "zstd")

    def _write_table(self, chunk: Chunk, table: pa.Table, metadata: dict[bytes, bytes], codec: str) -> None:
        # the version tells readers how to read the columns
        metadata = {b"strata.schema_version": str(SCHEMA_VERSION).encode(), **metadata}
        buffer = pa.BufferOutputStream()
        # a part is small: dictionaries of forty columns would cost time and save no space
        options = {"compression": codec, "write_statistics": False, "use_dictionary": False}
        pq.write_table(table.replace_schema_metadata(metadata), buffer, **options)
        self.put(self.part_path(chunk), buffer.getvalue().to_pybytes())

    def has_part(self, chunk: Chunk) -> bool:
        """Whether the chunk's part exists, which means that its work is done."""
        return self.exists(self.part_path(chunk))

    @as_os_error
    def part_names(self, chunk: Chunk) -> set[str]:
        """The names of the existing parts of the chunk's group, fingerprint and shard. It takes one listing."""
        try:
            names = self.fs.ls(self.part_path(chunk).rpartition("/")[0], detail=False, refresh=True)
        except FileNotFoundError:
            return set()
        return {name.rpartition("/")[2].removesuffix(".parquet") for name in names if name.endswith(".parquet")}

    def read_records(self, chunk: Chunk) -> list[Record]:
        """A part's records. Raises FileNotFoundError."""
        return table_to_records(self.read_table(chunk))

    def read_record(self, chunk: Chunk, row: int) -> Record:
        """One row of a part. Raises FileNotFoundError."""
        return table_to_records(self.read_table(chunk).slice(row, 1))[0]

    def read_table(self, chunk: Chunk) -> pa.Table:
        """A part as an Arrow table. Raises FileNotFoundError."""
        return pq.read_table(pa.BufferReader(self.get(self.part_path(chunk))))

    @as_os_error
    def read_columns(self, part: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a part by its path from the store's root, such as "objects.list.element.kept".

        A layer without a column in the part is null in all its rows. In a folder only the bytes of the columns are
        read; of a bucket, where each read is a round trip, the whole part. Raises FileNotFoundError.
        """
        path = self.path(part)
        with pa.memory_map(path) if self.local else pa.BufferReader(self.fs.cat_file(path)) as source:
            table = pq.ParquetFile(source).read(list(columns), use_threads=False)
        # add the columns that the part's version of the schema does not have
        schema = _schema_of(tuple(columns))
        for field in schema:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        return table.select(schema.names)

    @as_os_error
    def read_footer(self, chunk: Chunk) -> Footer:
        """A part's footer. Raises FileNotFoundError."""
        # reading the metadata takes the last bytes of the file only
        path = self.part_path(chunk)
        with pa.OSFile(path) if self.local else self.fs.open(path, "rb") as file:
            metadata = pq.read_metadata(file).metadata
        bill = Bill.model_validate_json(metadata[_BILL]) if _BILL in metadata else None
        return Footer(Counter(json.loads(metadata[_COUNTS])), bill)

    def read_counts(self, chunk: Chunk) -> Counter[str]:
        """The number of a part's images by status, from its footer. Raises FileNotFoundError."""
        return self.read_footer(chunk).counts

    def read_all_footers(self, chunks: Sequence[Chunk]) -> list[Footer]:
        """The footers of many parts, in order; those of a bucket are read in parallel. Raises FileNotFoundError."""
        # a local read takes less time than handing it to a thread
        if self.local or len(chunks) < 2:
            return [self.read_footer(chunk) for chunk in chunks]
        with ThreadPoolExecutor(min(len(chunks), READERS)) as pool:
            return list(pool.map(self.read_footer, chunks))

    def read_all_counts(self, chunks: Sequence[Chunk]) -> list[Counter[str]]:
        """The counts of many parts, in order. Raises FileNotFoundError."""
        return [footer.counts for footer in self.read_all_footers(chunks)]

    def read_index(self, chunk: Chunk) -> tuple[pa.Table, str | None]:
        """A shard's index, and why it is incomplete, None if it is complete. Raises FileNotFoundError."""
        table = self.read_table(chunk)
        return table, (table.schema.metadata or {}).get(_FAILURE, b"").decode() or None

    # jobs

    def write_job_file(self, job_id: str, name: str, content: BaseModel) -> None:
        """Write a file of a job, such as `request`, `shards` or `end`."""
        self.put(self.path("jobs", job_id, f"{name}.json"), content.model_dump_json().encode())

    def read_job_file(self, job_id: str, name: str) -> bytes | None:
        """A job's file as JSON; None if it does not exist."""
        try:
            return self.get(self.path("jobs", job_id, f"{name}.json"))
        except FileNotFoundError:
            return None

    def remove_job_file(self, job_id: str, name: str) -> None:
        """Remove a file of a job. Harmless if it does not exist."""
        self.remove(self.path("jobs", job_id, f"{name}.json"))

    @as_os_error
    def remove_job(self, job_id: str) -> None:
        """Remove a job with all its files."""
        with suppress(FileNotFoundError):
            self.fs.rm(self.path("jobs", job_id), recursive=True)

    def open_job(self, job_id: str) -> None:
        """Mark a job as unfinished, so that unfinished jobs are found without reading the files of all jobs."""
        self.put(self.path("open", job_id), b"")

    def close_job(self, job_id: str) -> None:
        """Remove the mark of an unfinished job."""
        self.remove(self.path("open", job_id))

    def open_jobs(self) -> list[str]:
        """The ids of the jobs that are marked as unfinished, sorted. It takes one listing."""
        return self.names("open")

    def job_ids(self) -> list[str]:
        """The ids of all jobs, sorted by the time of their creation."""
        return self.names("jobs")


def count_of(counts: Counter[str]) -> dict[str, int]:
    """Counts by status, with 0 for each status that does not occur."""
    return {status.value: counts.get(status.value, 0) for status in Status}


@functools.cache
def _schema_of(columns: tuple[str, ...]) -> pa.Schema:
    """The schema of some columns of RECORD_SCHEMA, as they are read from a part."""
    # a column such as "objects.list.element.kept" is read with the structure around it: let pyarrow work that out
    empty = pa.BufferOutputStream()
    pq.write_table(RECORD_SCHEMA.empty_table(), empty)
    return pq.ParquetFile(pa.BufferReader(empty.getvalue())).read(list(columns)).schema


def _encodable(record: Record, group: str) -> Record:
    """The record, or a failed row without its layers if they hold text that cannot be encoded."""
    try:
        records_to_table([record])
    except UnicodeEncodeError as error:
        kept = record.model_dump(include={"key", "image", "width", "height", "seconds", "usage"})
        return Record.model_validate(kept).failed(group, "bad_text", str(error))
    return record
