"""Lists of images: a Parquet or JSON Lines file with a path, and perhaps a caption and a key, in each row.

Fields: the path is `image`, `path`, `url`, `image_path` or `file_name`; the caption `caption`, `text` or `alt_text`;
the key `key` or `id`, else the file's name. Paths are absolute, URIs, or relative to the list's folder.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from strata.core.index_rows import IndexRow
from strata.shards.patterns import Roots, SourceError, normalise, short
from strata.shards.tars import AltText, Keys
from strata.store.filesystem import file_system

LIST_EXTENSIONS = (".parquet", ".jsonl")
PATH_FIELDS = ("image", "path", "url", "image_path", "file_name")
CAPTION_FIELDS = ("caption", "text", "alt_text")
KEY_FIELDS = ("key", "id")
MAX_LINE = 2**20  # bytes of a JSON line
_PIECE = 2**20  # bytes read at a time
_BATCH = 1000  # rows held at a time
_THREADS = 16  # questions at a time to a remote storage


class Entry(NamedTuple):
    """One row of a list as it stands there: values of any type, each None if it has none; place: "line 7"."""

    place: str
    path: Any = None
    caption: Any = None
    key: Any = None
    error: str | None = None


class ListReader:
    """Reads a list once, forward, whatever its length. After `rows` has ended, failure says why it ended early."""

    def __init__(self, uri: str, file: IO[bytes], roots: Roots) -> None:
        self._uri, self._file, self._roots = uri, file, roots
        self._folder = uri.partition("?")[0].rpartition("/")[0]
        self.failure: str | None = None

    def rows(self) -> Iterator[IndexRow]:
        """A row for each entry, in order; those that name no image that can be read carry an error."""
        parquet = self._uri.partition("?")[0].lower().endswith(".parquet")
        entries = _parquet_entries(self._file) if parquet else _json_entries(self._file)
        keys, count = Keys(), 0
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                while batch := list(itertools.islice(entries, _BATCH)):
                    remote = "://" in self._uri or any("://" in str(entry.path) for entry in batch)
                    for row in (pool.map if remote else map)(self._row, batch):
                        yield row._replace(key=keys.distinct(row.key))
                    count += len(batch)
            except (SourceError, pa.ArrowException, OSError) as error:
                line = " ".join(str(error).split())[:200]
                self.failure = f"{line} (after {count:,} rows)" if count else line
        if not count and self.failure is None:
            self.failure = "a list without rows"

    def _row(self, entry: Entry) -> IndexRow:
        """The entry's row; its key may have been there before."""
        own = Keys.clean(str(entry.key)) if isinstance(entry.key, str | int) else ""
        caption = AltText.from_text(entry.caption) if isinstance(entry.caption, str) else None
        bad = IndexRow(own or entry.place.replace(" ", "-"), self._uri, 0, 0, caption)
        if entry.error or not isinstance(entry.path, str) or not entry.path:
            return bad._replace(error=f"{entry.place}: {entry.error or 'no path of an image'}")
        try:
            uri, size = self._image(entry.path)
        except FileNotFoundError:
            return bad._replace(error=f"{entry.place}: no such image: {short(entry.path)}")
        except Exception as error:  # each storage has its own; the rows' neighbours must not suffer
            line = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
            return bad._replace(error=f"{entry.place}: {' '.join(line.split())[:200]}")
        key = own or Keys.clean(uri.rpartition("/")[2].partition("?")[0].partition(".")[0]) or bad.key
        return IndexRow(key, uri, 0, size, caption, None if size else "an empty file")

    def _image(self, path: str) -> tuple[str, int]:
        """URI and size in bytes of an image. Raises SourceError, and what the storage raises."""
        if "://" not in path and not path.startswith("/"):
            path = f"{self._folder}/{path}" if self._folder else path
        if "://" not in path:
            return self._local_image(path)
        uri = self._roots.check(path)
        filesystem, place = file_system(uri)
        info = filesystem.info(place)
        if info["type"] != "file" or info["size"] is None:
            raise SourceError(f"{short(path)} is no file, or its server does not tell the size")
        return uri, int(info["size"])

    def _local_image(self, path: str) -> tuple[str, int]:
        folder, _, name = path.rpartition("/")
        if name in ("", ".", "..") or not name.isprintable():
            raise SourceError(f"{short(ascii(path))} is no path of an image")
        uri = f"{_real_folder(folder or '/').rstrip('/')}/{name}"
        if not self._roots.hold(uri):
            self._roots.check(path)  # raises
        info = os.lstat(uri)
        if stat.S_ISLNK(info.st_mode):
            uri = self._roots.check(uri)
            info = os.lstat(uri)
        if not stat.S_ISREG(info.st_mode):
            raise SourceError(f"{short(path)} is no file")
        return uri, info.st_size


@functools.lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    """A folder without links: the costly part of a path's normal form, and the same for many images."""
    return normalise(folder)


def _json_entries(file: IO[bytes]) -> Iterator[Entry]:
    for number, line in enumerate(_lines(file), 1):
        place = f"line {number}"
        if len(line) > MAX_LINE:
            yield Entry(place, error=f"longer than {MAX_LINE:,} bytes")
        elif line.strip():
            yield _json_entry(place, line)


def _json_entry(place: str, line: bytes) -> Entry:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Entry(place, error=f"no JSON: {error}")
    if not isinstance(fields, dict):
        return Entry(place, error="no JSON object")
    names = (PATH_FIELDS, CAPTION_FIELDS, KEY_FIELDS)
    values = (next((fields[name] for name in choice if fields.get(name) is not None), None) for choice in names)
    return Entry(place, *values)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines without their ends; of one that is too long MAX_LINE bytes and some."""
    rest = b""
    while piece := file.read(_PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        rest = rest[: MAX_LINE + 1]
    if rest:
        yield rest


def _parquet_entries(file: IO[bytes]) -> Iterator[Entry]:
    """Raises SourceError and pyarrow's exceptions."""
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"not a Parquet file: {error}") from None
    schema = parquet.schema_arrow
    path, caption, key = (_text_column(schema, choice) for choice in (PATH_FIELDS, CAPTION_FIELDS, KEY_FIELDS))
    if path is None:
        raise SourceError(f"no column of texts is named {', '.join(PATH_FIELDS)}")
    wanted = [name for name in (path, caption, key) if name is not None]
    numbers = itertools.count(1)
    for batch in parquet.iter_batches(_BATCH, columns=wanted, use_threads=False):
        columns = {name: _values(batch.column(name)) for name in wanted}
        for i in range(batch.num_rows):
            values = (columns[name][i] if name is not None else None for name in (path, caption, key))
            yield Entry(f"row {next(numbers)}", *values)


def _text_column(schema: pa.Schema, names: tuple[str, ...]) -> str | None:
    """The first of the names that is a column of texts (a key may be a number), or None."""
    for name in names:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        number = names is KEY_FIELDS and pa.types.is_integer(kind)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or number:
            return name
    return None


def _values(column: Any) -> list[Any]:
    """A column's values; texts that are no UTF-8 are None, and their neighbours whole."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type):
        return list(column.to_pylist())
    values: list[Any] = []
    for data in column.cast(pa.large_binary()).to_pylist():
        try:
            values.append(None if data is None else data.decode())
        except UnicodeDecodeError:
            values.append(None)
    return values
