"""The store: immutable parts, uploads and job files in a directory or bucket.

Parts are the source of truth. A part's path is a function of group, fingerprint, shard identity, chunk and attempt, so
writing a part twice is harmless, and a part that exists means that the work is done. `part_files.py` has what concerns
parts as files, `part_format.py` their bytes.
"""

from __future__ import annotations

import errno
import io
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from strata.core import SCHEMA_VERSION, Bill, Chunk, Record, Status, Work, checked_job_id, is_job_id, records_to_table
from strata.errors import DamagedFile, fault_line
from strata.store.filesystem import MARK
from strata.store.part_files import PartFiles
from strata.store.part_format import Footer, Source, encode
from strata.store.part_paths import Part
from strata.store.shard_files import ShardFiles
from strata.store.storage_errors import as_os_error

Model = TypeVar("Model", bound=BaseModel)
CODEC = "snappy"  # of records: for fifty small columns zstd adds half to the time of writing, and saves a twentieth


class Mark(BaseModel):
    """The file at the root of a store by which processes know that it is still the same store.

    id: 32 random hexadecimal digits. schema_version: that of the Strata that has made the mark.
    """

    id: str
    schema_version: int


class Store(PartFiles, ShardFiles):
    """Reads and writes everything that must survive. Safe to use from several threads and machines.

    Every method raises OSError if the storage cannot be reached. has_mark: whether this process wants a mark of it, as
    `strata.jobs.pairing` does for a service and for workers.
    """

    has_mark = False

    def write_records(
        self, chunk: Chunk, records: list[Record], bill: Bill | None = None, work: Work | None = None
    ) -> Counter[str]:
        """Write a part with its counts, its bill and its work in the footer; returns the number of images by status.

        A record whose text UTF-8 cannot hold (half of a surrogate pair) becomes a failed row.
        """
        try:
            table = records_to_table(records)
        except UnicodeEncodeError:
            table = records_to_table([_encodable(record, chunk.group) for record in records])
        return self.write_rows(chunk, table, bill, work)

    def write_rows(
        self, chunk: Chunk, table: pa.Table, bill: Bill | None = None, work: Work | None = None
    ) -> Counter[str]:
        """Write a part from a table of RECORD_SCHEMA; returns the number of images by status."""
        counts = Counter[str](table.column("status").to_pylist())
        transient = pc.sum(table.column("failure_transient")).as_py() or 0
        self.write_part(chunk, table, Footer(counts, bill, transient, work=work), CODEC)
        return counts

    @staticmethod
    def size_of(chunk: Chunk, table: pa.Table) -> int:
        """The bytes that a part of a chunk's group has with these rows of RECORD_SCHEMA."""
        counts = Counter[str](table.column("status").to_pylist())
        return len(encode(table, Part.of_chunk(chunk), Footer(counts), CODEC))

    def write_index(
        self,
        chunk: Chunk,
        table: pa.Table,
        failure: str | None = None,
        families: Sequence[str] = (),
        left_out: Mapping[str, int] = MappingProxyType({}),
        size: int | None = None,
    ) -> None:
        """Write a shard's index part from a table of INDEX_SCHEMA.

        failure: why not all of the shard was read; families, left_out and size: as of ShardIndex.
        """
        footer = Footer(Counter(), None, 0, failure or "", tuple(families), left_out, size)
        self.write_part(chunk, table, footer, "zstd")

    def read_records(self, chunk: Chunk) -> list[Record]:
        """The records of the part of a chunk's attempt. Raises FileNotFoundError and BrokenPart."""
        return self.first(Source.of(chunk), lambda source: self.to_records(self.decoded(source)[0], source))

    def read_record(self, chunk: Chunk, row: int) -> Record:
        """One row of the part of a chunk's attempt. Raises FileNotFoundError and BrokenPart."""
        return self.to_records(self.read_table(chunk).slice(row, 1), Source.of(chunk))[0]

    def read_index(self, chunk: Chunk) -> tuple[pa.Table, str | None]:
        """A shard's index, and why it is incomplete, None if it is not. Raises FileNotFoundError and BrokenPart."""
        table, footer = self.read_part(chunk)
        return table, footer.failure

    # jobs: every method raises ValueError for a text that has not the form of an id, unless it says something else

    def write_job_file(self, job_id: str, name: str, content: BaseModel, private: bool = False) -> None:
        """Write a file of a job, such as `request`, `shards` or `end`. private: as for `put`."""
        self.put(self._job_path(job_id, name), content.model_dump_json().encode(), private)

    def parse(self, path: str, model: type[Model]) -> Model:
        """A JSON file by its path relative to the root. Raises FileNotFoundError and DamagedFile."""
        try:
            return model.model_validate_json(self.get(self.path(path)))
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedFile(path, f"{'.'.join(map(str, first['loc']))} {fault_line(first)}") from error
        except IsADirectoryError as error:
            raise DamagedFile(path, "it is a folder") from error

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write a Parquet file that is no part, by its path relative to the root. Raises OSError."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.put(self.path(path), buffer.getvalue())

    def parse_table(self, path: str) -> pa.Table:
        """A Parquet file that is no part, by its path relative to the root.

        Raises FileNotFoundError and DamagedFile. What is damaged inside of its pages may be read as other values.
        """
        content = self.get(self.path(path))
        try:
            return pq.read_table(pa.BufferReader(content))
        except (pa.ArrowException, OSError) as error:  # OSError: of the library, for what it cannot decode
            raise DamagedFile(path, str(error)) from error

    def parse_job_file(self, job_id: str, name: str, model: type[Model]) -> Model | None:
        """A job's file; None if it does not exist, or if the id has not the form of one. Raises DamagedFile."""
        with suppress(FileNotFoundError):
            return self.parse(f"jobs/{job_id}/{name}.json", model) if is_job_id(job_id) else None
        return None

    def read_job_file(self, job_id: str, name: str) -> bytes | None:
        """A job's file as JSON; None if it does not exist. Raises DamagedFile if a folder is at its place."""
        path = self._job_path(job_id, name)
        try:
            return self.get(path)
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise DamagedFile(self.relative(path), "it is a folder") from error

    def remove_job_file(self, job_id: str, name: str) -> None:
        """Remove a file of a job. Harmless if it does not exist."""
        self.remove(self._job_path(job_id, name))

    @as_os_error
    def remove_job(self, job_id: str) -> None:
        """Remove a job with all its files."""
        try:
            self.fs.rm(self.path("jobs", checked_job_id(job_id)), recursive=True)
        except FileNotFoundError:
            self.check_folder()

    def open_job(self, job_id: str) -> None:
        """Mark a job as unfinished, so that unfinished jobs are found without reading the files of all jobs."""
        self.put(self.path("open", checked_job_id(job_id)), b"")

    def close_job(self, job_id: str) -> None:
        """Remove the mark of an unfinished job."""
        self.remove(self.path("open", checked_job_id(job_id)))

    def open_jobs(self) -> list[str]:
        """The ids of the jobs that are marked as unfinished, sorted. It takes one listing."""
        return self.without_foreign("open", self.names("open"), is_job_id)

    def job_ids(self) -> list[str]:
        """The ids of all jobs, sorted by the time of their creation."""
        found = self.folders("jobs", is_job_id)
        if not found:
            self.check_mark()
        return found

    def _job_path(self, job_id: str, name: str) -> str:
        return self.path("jobs", checked_job_id(job_id), f"{name}.json")

    # the mark

    def find_mark(self) -> str | None:
        """The store's id, from its mark; None if it has none. From the first time on the mark must stay: `check_mark`.

        Raises DamagedFile, and OSError if the store has lost the mark that it had, or has another one.
        """
        self.has_mark = True
        self.check_mark()
        try:
            mark = self.parse(MARK, Mark)
        except FileNotFoundError:
            return None
        self._mark = self.get(self.path(MARK))
        return mark.id

    def make_mark(self) -> str:
        """Give the store a mark with a new id, and return it; the id that another process has written before."""
        mark = Mark(id=secrets.token_hex(16), schema_version=SCHEMA_VERSION)
        with suppress(FileExistsError):
            self.put_new(self.path(MARK), mark.model_dump_json().encode())
        found = self.find_mark()
        if found is None:
            raise OSError(errno.EIO, f"the mark {MARK} that was written is not there")
        return found

    def is_empty(self) -> bool:
        """Whether the store has neither jobs nor parts."""
        return not self.names("jobs") and not self.names("parts")


def count_of(counts: Counter[str]) -> dict[str, int]:
    """Counts by status, with 0 for each status that does not occur."""
    return {status.value: counts.get(status.value, 0) for status in Status}


def _encodable(record: Record, group: str) -> Record:
    """The record, or a failed row without its layers if they hold text that cannot be encoded."""
    try:
        records_to_table([record])
    except UnicodeEncodeError as error:
        kept = record.model_dump(include={"key", "image", "width", "height", "seconds", "usage"})
        return Record.model_validate(kept).failed(group, "bad_text", str(error))
    return record
