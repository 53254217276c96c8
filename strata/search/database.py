"""The file of the index: a DuckDB database in a folder of the service, with what is kept of the rows of parts.

The parts are the truth: the file may be lost at any time, and is then made anew. One process uses it; a second one with
the same folder gets a temporary folder of its own. Values reach DuckDB as parameters only, and DuckDB may open no other
file.
"""

from __future__ import annotations

import itertools
import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.errors import StrataError
from strata.search.extraction import LABELS, WORD, Extract, bitmap_table
from strata.search.listing import LISTED
from strata.search.postings import divided, pairs_of

log = logging.getLogger(__name__)

VERSION = 3  # of the tables below, and of what `extraction` keeps: an index of another version is made anew
MEMORY = "384MB"  # that DuckDB may use, for its cache too
THREADS = 2
SPILL = "2GB"  # on the disk, of what does not fit into the memory
COPIED_ROWS = 2**16  # rows of the index that are copied together when it is made smaller
_FILE = re.compile(r"index-(\d+)\.duckdb")
_TABLES = """
create table meta (version integer, runs integer, removed bigint, rows bigint);
create table parts (
    id integer, path varchar, fingerprint varchar, identity varchar, number integer, attempt integer, size bigint,
    first_id uinteger, images integer, latest boolean, broken varchar
);
create table images (
    id uinteger, part integer, status utinyint, key varchar, words integer, has_text boolean, score float, width bigint,
    height bigint, title varchar
);
create table words (term bigint, row uinteger);
create table labels (kind utinyint, term bigint, row uinteger);
create table bitmaps (kind utinyint, term bigint, first uinteger, number uinteger, bits blob);
create table names (kind utinyint, term bigint, name varchar);
"""
Cursor = duckdb.DuckDBPyConnection


class IndexedPart(NamedTuple):
    """A part for the index. images: its rows; broken: why it cannot be read, None if it can."""

    path: str
    fingerprint: str
    identity: str
    number: int
    attempt: int
    size: int | None
    latest: bool
    images: int = 0
    broken: str | None = None


class Database:
    """One file of the index. Reading is safe from several threads, each with a cursor of its own; one thread writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        options = {"memory_limit": MEMORY, "threads": THREADS, "max_temp_directory_size": SPILL}
        # no other file, no network, and no extension that is not there already
        options |= {"enable_external_access": "false", "autoinstall_known_extensions": "false"}
        options |= {"autoload_known_extensions": "false", "preserve_insertion_order": "false"}
        self._connection = duckdb.connect(str(path), config={name: str(value) for name, value in options.items()})
        if not self.fetch("select 1 from information_schema.tables where table_name = 'meta'"):
            self._connection.execute(_TABLES)
            self._connection.execute("insert into meta values (?, 0, 0, 0)", [VERSION])
        self._connection.execute("set lock_configuration = true")
        self.version = int(self.fetch("select version from meta")[0][0])

    def cursor(self) -> Cursor:
        """A connection of its own, for one thread."""
        return self._connection.cursor()

    def fetch(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._connection.cursor() as cursor:
            return cursor.execute(query, list(values)).fetchall()

    def close(self) -> None:
        """Close it. Cursors that are open still see what they have begun to read."""
        self._connection.close()

    def add(self, parts: Sequence[IndexedPart], extract: Extract | None) -> None:
        """Add parts with their rows, in the order of the extract's; None for parts without rows, which are broken."""
        with self._writing() as cursor:
            # an id is given once: words and labels of removed rows stay, and must not become those of others
            ((first, part),) = cursor.execute(
                "select rows, (select coalesce(max(id), -1) + 1 from parts) from meta"
            ).fetchall()
            counts = np.array([one.images for one in parts], np.int64)
            firsts = first + np.cumsum(counts) - counts
            columns = {name: [getattr(one, name) for one in parts] for name in IndexedPart._fields}
            columns |= {"id": list(range(part, part + len(parts))), "first_id": firsts.tolist()}
            self._insert(cursor, "parts", pa.table(columns, schema=_PARTS))
            cursor.execute("update meta set runs = runs + 1, rows = rows + ?", [int(counts.sum())])
            if extract is None:
                return
            of_part = np.repeat(np.arange(part, part + len(parts)), counts)
            figures = extract.figures.append_column("part", pa.array(of_part, pa.int32()))
            figures = _shifted(figures, first).rename_columns({"row": "id"})
            self._insert(cursor, "images", figures)
            self._insert(cursor, "words", _shifted(extract.words, first))
            self._insert(cursor, "labels", _shifted(extract.labels, first))
            self._insert(cursor, "bitmaps", _placed(extract.bitmaps, first))
            self._insert(cursor, "names", extract.names, "anti join names using (kind, term)")

    def remove(self, parts: Iterable[int]) -> None:
        """Remove parts by their ids. The bytes of their rows stay in the file until `copy` has made another one."""
        ids = list(parts)
        with self._writing() as cursor:
            # words and labels of a row that is not there any more are never found
            gone = "in (select unnest(?::integer[]))"
            cursor.execute(
                f"update meta set removed = removed + (select count(*) from images where part {gone})", [ids]
            )
            for table, column in (("images", "part"), ("parts", "id")):
                cursor.execute(f"delete from {table} where {column} {gone}", [ids])

    def set_latest(self, latest: Sequence[int], others: Sequence[int]) -> None:
        """Note which parts are those of the newest attempts, and which are there for snapshots alone."""
        with self._writing() as cursor:
            for value, ids in ((True, latest), (False, others)):
                cursor.execute(
                    "update parts set latest = ? where id in (select unnest(?::integer[]))", [value, list(ids)]
                )

    def copy(self, target: Database) -> None:
        """Write all that is not removed to an empty database, in larger runs of sorted words."""
        ((most,),) = self.fetch("select rows from meta")
        with self.cursor() as source, target._writing() as cursor:
            for table in ("parts", "names"):
                target._insert(cursor, table, source.sql(f"select * from {table}").to_arrow_table())
            # a label that no row has any more is left out; the ids of rows stay
            for start in range(0, most, COPIED_ROWS):
                block = range(start, min(most, start + COPIED_ROWS))
                found = source.sql(
                    "select * from images where id >= ? and id < ? order by id", params=[block.start, block.stop]
                )
                target._insert(cursor, "images", found.to_arrow_table())
                for kind in (WORD, *range(len(LABELS))):
                    target._copy_postings(source, cursor, kind, block)
            used = "(select kind, term from labels union select kind, term from bitmaps)"
            cursor.execute(f"delete from names where (kind, term) not in {used}")
            cursor.execute("update meta set runs = ?, rows = ?", [-(-most // COPIED_ROWS), most])

    def _copy_postings(self, source: Cursor, target: Cursor, kind: int, rows: range) -> None:
        """Copy the terms of a kind with those of some rows that have them and are not removed."""
        between = [rows.start, rows.stop]
        listed, which = ("words", "") if kind == WORD else ("labels", f"kind = {kind} and ")
        found = source.execute(
            f"select term, row from {listed} where {which}row >= ? and row < ?", between
        ).fetchnumpy()
        overlap = "kind = ? and first < ? and first + 8 * octet_length(bits) > ?"
        query = f"select term, first, bits from bitmaps where {overlap}"
        bitmaps = source.execute(query, [kind, rows.stop, rows.start]).fetchall()
        pairs = pairs_of(bitmaps, rows)
        terms = np.concatenate([found["term"].astype(np.int64), pairs[0]])
        of_term = np.concatenate([found["row"].astype(np.int64), pairs[1]]) - rows.start
        # without the rows that were removed, in order
        alive = np.zeros(len(rows), bool)
        ids = source.execute("select id from images where id >= ? and id < ?", between).fetchnumpy()["id"]
        alive[ids.astype(np.int64) - rows.start] = True
        terms, of_term = terms[alive[of_term]], of_term[alive[of_term]]
        order = np.lexsort((of_term, terms))
        terms, of_term = terms[order], of_term[order]
        some, many = divided(terms, of_term, len(rows))
        table = {"term": terms[some], "row": pa.array(of_term[some] + rows.start, pa.uint32())}
        table |= {} if kind == WORD else {"kind": pa.array(np.full(some.sum(), kind), pa.uint8())}
        self._insert(target, listed, pa.table(table))
        self._insert(target, "bitmaps", _placed(bitmap_table({kind: many}), rows.start))

    @contextmanager
    def _writing(self) -> Iterator[Cursor]:
        """A cursor in a transaction, which is undone after an exception."""
        with self.cursor() as cursor:
            cursor.begin()
            try:
                yield cursor
            except BaseException:
                cursor.rollback()
                raise
            cursor.commit()

    def _insert(self, cursor: Cursor, table: str, rows: pa.Table, only: str = "") -> None:
        cursor.register("added", rows)
        cursor.execute(f"insert into {table} by name select added.* from added {only}")
        cursor.unregister("added")


# what a listing tells of a part, and what reading it tells
_PARTS = pa.schema(
    [
        *LISTED,
        ("images", pa.int32()),
        ("broken", pa.string()),
        ("id", pa.int32()),
        ("first_id", pa.uint32()),
    ]
)


def _shifted(table: pa.Table, first: int) -> pa.Table:
    """The table with ids in the index instead of indexes of rows in the extract."""
    place = table.column_names.index("row")
    return table.set_column(place, "row", pc.add(table.column("row").cast(pa.int64()), first).cast(pa.uint32()))


def _placed(bitmaps: pa.Table, first: int) -> pa.Table:
    """The bitmaps with the id of the row that their first bit stands for."""
    return bitmaps.append_column("first", pa.array(np.full(bitmaps.num_rows, first), pa.uint32()))


class Folder:
    """The folder of the index: which file in it is the current one.

    A process that finds the file in use by another one takes a temporary folder, which is removed with the object.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def files(self) -> list[Path]:
        """The files of an index in the folder, the newest first."""
        found = {path: _FILE.fullmatch(path.name) for path in self.folder.glob("index-*.duckdb")}
        numbers = {path: int(match[1]) for path, match in found.items() if match}
        return sorted(numbers, key=lambda path: numbers[path], reverse=True)

    def open(self) -> Database:
        """The current database; a new one if there is none that can be used. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return self._open()
        except _InUse:
            log.warning("the search index in %s is in use by another process; this one makes its own", self.folder)
            self._temporary = tempfile.TemporaryDirectory(prefix="strata-search-")
            self.folder = Path(self._temporary.name)
            return self._open()

    def _open(self) -> Database:
        for path in self.files():
            try:
                database = Database(path)
            except duckdb.IOException as error:
                if "lock" in str(error):
                    raise _InUse from error
                log.warning("the search index is made anew: %s", _line(error))
            except duckdb.Error as error:
                log.warning("the search index is made anew: %s", _line(error))
            else:
                if database.version == VERSION:
                    self.remove_others(path)
                    return database
                database.close()
            _remove(path)
        return self.new()

    def new(self) -> Database:
        """A new empty database. Raises OSError."""
        number = 1 + max((int(match[1]) for path in self.files() if (match := _FILE.fullmatch(path.name))), default=0)
        try:
            return Database(self.folder / f"index-{number}.duckdb")
        except duckdb.IOException as error:
            raise OSError(_line(error)) from error

    def remove_others(self, current: Path) -> None:
        """Remove all files but the current one: what is left of an index before it, or of a copy that was not ended."""
        for path in self.folder.glob("index-*"):
            if not path.name.startswith(current.name):
                _remove(path)

    def free(self) -> int:
        """The free bytes of the disk."""
        return shutil.disk_usage(self.folder).free

    def close(self) -> None:
        """Remove the temporary folder, if there is one."""
        if self._temporary is not None:
            self._temporary.cleanup()


class _InUse(StrataError):
    """Another process uses the file."""


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}.wal")):
        with suppress(FileNotFoundError):
            name.unlink()
    shutil.rmtree(path.with_name(f"{path.name}.tmp"), ignore_errors=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
