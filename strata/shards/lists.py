"""Read lists of images: Parquet or JSON Lines files with a path, and optionally a caption and a key, in each row.

A Parquet file may have the images themselves: in a binary column, or in a structure with a field `bytes`, as Hugging
Face's datasets have them.

The path's field is `image`, `path`, `url`, `image_path` or `file_name`; the caption's `caption`, `text` or
`alt_text`; the key's `key` or `id` (default: the file's name, of a link its own). A path is absolute, a URI, or
relative to the list's folder.
"""

from __future__ import annotations

import codecs
import itertools
import json
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, cast
from urllib.parse import unquote

from strata.counts import counted
from strata.shards import captions
from strata.shards.captions import CAPTION_FIELDS, Caption
from strata.shards.keys import Keys
from strata.shards.kinds import IMAGE_EXTENSIONS, Kind
from strata.shards.parquet import parquet_rows
from strata.shards.roots import MAX_URI, Roots, SourceError, scheme_of
from strata.shards.stamps import local_version, version_of
from strata.store import IndexRow, ParquetCell, file_folder, file_name, file_system, is_transient, reason_of

PATH_FIELDS = ("image", "path", "url", "image_path", "file_name")
KEY_FIELDS = ("key", "id")
IMAGE_FIELDS = ("image", "img", *sorted(IMAGE_EXTENSIONS), "image_bytes", "bytes")  # of columns with an image's bytes
MAX_LINE = captions.MAX_JSON  # bytes of a JSON line
_PIECE = 2**20  # bytes read at a time
_BATCH = 1000  # rows in memory at a time
_THREADS = 16  # concurrent requests to a remote storage


class Entry(NamedTuple):
    """One row of a list before checks: values of any type, None if missing. position: for messages, "line 7".

    note: as of an index row. inside, size, checksum: where the list itself has the image (Parquet), see ParquetCell.
    """

    position: str
    path: Any = None
    caption: Any = None
    key: Any = None
    error: str | None = None
    note: str | None = None
    inside: ParquetCell | None = None
    size: int = 0
    checksum: str | None = None


class ListReader:
    """Reads a list of any length once, forward.

    After `rows` has ended, `failure` is the reason why it ended early, or None, and `alone` is whether all images are
    in the list's own file.
    """

    def __init__(self, uri: str, file: IO[bytes], roots: Roots, kind: Kind = "lines") -> None:
        self._kind, self._uri, self._file, self._roots = kind, uri, _StorageFile(file), roots
        self._folder = file_folder(uri)
        self.failure: str | None = None
        self.alone = kind == "parquet"
        self._away: Exception | None = None  # the error of a storage in which an image was looked up

    def rows(self) -> Iterator[IndexRow]:
        """Yield a row for each entry, in order; the row of an entry without a readable image has an error.

        Raises the exceptions of the storages of the list and of its images if a later attempt may succeed.
        """
        file = cast("IO[bytes]", self._file)
        entries = parquet_entries(file) if self._kind == "parquet" else json_entries(file)
        keys, count = Keys(), 0
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                while batch := list(itertools.islice(entries, _BATCH)):
                    # for remote images each look-up is a request, so they run in threads
                    remote = "://" in self._uri or any("://" in str(entry.path) for entry in batch)
                    for row in (pool.map if remote else map)(self._row, batch):
                        yield row._replace(key=keys.distinct(row.key))
                    count += len(batch)
            except (SourceError, OSError) as error:
                # a storage that is away is not a damaged list
                away = self._away or self._file.error
                if away is not None and is_transient(away):
                    raise away from away.__cause__
                line = str(error) if isinstance(error, SourceError) else "the list cannot be read to its end"
                self.failure = f"{line} (after {counted(count, 'row')})" if count else line
        if not count and self.failure is None:
            self.failure = "a list without rows"

    def _row(self, entry: Entry) -> IndexRow:
        """The row of an entry; its key is not yet unique."""
        bad = IndexRow(entry.position.replace(" ", "-"), "", 0, 0)
        # of a row that is none of a list of images nothing is shown: any file may be named as a list
        if entry.inside is not None:
            return self._inner_row(entry, entry.inside)
        self.alone = False
        if entry.error or not isinstance(entry.path, str) or not entry.path:
            return bad._replace(error=f"{entry.position}: {entry.error or 'no path of an image'}")
        own = _own_key(entry)
        caption = captions.from_text(entry.caption) if isinstance(entry.caption, str) else None
        bad = bad._replace(key=own or bad.key, alt_text=caption, note=entry.note if caption else None)
        try:
            # look the image up now: a missing file is reported by its row, and its size is needed to read it
            uri, size, stamp = self._image(entry.path)
        except Exception as error:  # each storage library has its own exceptions; other rows must still be read
            if is_transient(error):
                self._away = error
                raise
            return bad._replace(error=f"{entry.position}: {_reason(error)}")
        # a path that the list gives relative to its folder stays so: the list may be moved together with its images
        inside = "://" not in entry.path and not entry.path.startswith("/") and uri.startswith(f"{self._folder}/")
        kept = f"../{uri[len(self._folder) + 1 :]}" if inside else uri
        return bad._replace(
            key=key_of(entry), uri=kept, size=size, error=None if size else "an empty file", stamp=stamp
        )

    def _inner_row(self, entry: Entry, cell: ParquetCell) -> IndexRow:
        """The row of an image in the file itself. Its path may be any text: nothing is looked up."""
        caption = captions.from_text(entry.caption) if isinstance(entry.caption, str) else None
        error = None if entry.size else f"{entry.position}: an empty image"
        note = entry.note if caption else None
        return IndexRow(key_of(entry), str(cell), 0, entry.size, caption, error, entry.checksum, note)

    def _image(self, path: str) -> tuple[str, int, str]:
        """The absolute URI, size in bytes and stamp of an image. Raises SourceError and its storage's exceptions."""
        # a relative path is relative to the list's folder
        if "://" not in path and not path.startswith("/"):
            path = f"{self._folder}/{path}" if self._folder else path
        if "://" not in path:
            return self._local_image(path)
        uri = self._roots.check(path, "its image")
        filesystem, remote_path = file_system(uri)
        info = filesystem.info(remote_path)
        if info["type"] != "file" or info["size"] is None:
            raise SourceError("its image is not a file, or the server does not report the size")
        return uri, int(info["size"]), version_of(info)

    def _local_image(self, path: str) -> tuple[str, int, str]:
        name = path.rpartition("/")[2]
        # a control character in a name could break messages and keys
        if name in ("", ".", "..") or not name.isprintable():
            raise SourceError("the path is none of an image")
        uri, info = self._roots.find(path, "its image")
        if info is None:
            info = Path(uri).stat()  # raises the reason
        if not stat.S_ISREG(info.st_mode):
            raise SourceError("its image is not a file")
        return uri, info.st_size, local_version(info)


def key_of(entry: Entry) -> str:
    """The key of an entry that can be used, not yet unique: its own, else its file's name, else its position."""
    if entry.inside is not None:
        name = str(entry.path or "").replace("\\", "/").rpartition("/")[2]
        named = name.rpartition(".")[0] or name
    else:
        named = _given_name(str(entry.path)).partition(".")[0]
    return _own_key(entry) or Keys.clean(named) or entry.position.replace(" ", "-")


def _own_key(entry: Entry) -> str:
    return Keys.clean(str(entry.key)) if isinstance(entry.key, str | int) else ""


def _given_name(path: str) -> str:
    """The name of an image as its row gives it: in the cache of a model hub it is a link to a file named by a hash."""
    name = file_name(path)
    return unquote(name) if scheme_of(path) == "file" else name


class _StorageFile:
    """A file that keeps the error of its storage: pyarrow's own errors about the content are of the same class."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _reason(error: Exception) -> str:
    """Why an image of a list cannot be used, in one line that quotes nothing of the list."""
    if isinstance(error, FileNotFoundError):
        return "no such image"
    if isinstance(error, SourceError):
        return str(error)
    # the texts of other errors may quote the path
    told = isinstance(getattr(error, "status", None), int) or getattr(error, "strerror", None)
    return f"{type(error).__name__}: {reason_of(error) if told else 'its image cannot be looked up'}"


def json_entries(file: IO[bytes], paths: Sequence[str] = PATH_FIELDS) -> Iterator[Entry]:
    """Yield the rows of a file of JSON lines. paths: the names that the field of an image's path may have."""
    return (json_entry(position, line, paths)[0] for position, line in json_rows(file))


def json_rows(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the position ("line 7") and the bytes of each line that is a row; of one that is too long not all bytes."""
    for number, line in enumerate(_lines(file), 1):
        if line.strip() or len(line) > MAX_LINE:
            yield f"line {number}", line


def json_entry(position: str, line: bytes, paths: Sequence[str] = PATH_FIELDS) -> tuple[Entry, dict[str, Any]]:
    """The entry of a line of JSON, and its fields; no fields if it has an error."""
    if len(line) > MAX_LINE:
        return Entry(position, error=f"longer than {MAX_LINE:,} bytes"), {}
    try:
        text, note = captions.decoded(line)
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return Entry(position, error="not JSON"), {}
    if not isinstance(fields, dict):
        return Entry(position, error="not a JSON object"), {}
    # of each choice of names the first that the row has
    path, key = (
        next((fields[name] for name in choice if fields.get(name) is not None), None) for choice in (paths, KEY_FIELDS)
    )
    caption = captions.from_fields(fields)
    return _entry(position, path, caption, key, captions.note_of(caption, Caption(text, note))), fields


def _entry(position: str, path: object, caption: object, key: object, note: str | None = None) -> Entry:
    """The entry of a row, of whose values no more is kept than is used."""
    if isinstance(path, str) and len(path) > MAX_URI:
        return Entry(position, error=f"the path of its image is longer than {MAX_URI:,} characters")
    text = caption[: 4 * captions.MAX_CHARACTERS] if isinstance(caption, str) else None
    short = key[: Keys.MAX_CHARACTERS] if isinstance(key, str) else key if isinstance(key, int) else None
    note = note or captions.note_of(text)
    return Entry(position, path if isinstance(path, str) else None, text, short, note=note)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends. A line longer than MAX_LINE is cut, but still longer than MAX_LINE."""
    rest = b""
    for piece in _pieces(file):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        rest = rest[: MAX_LINE + 1]  # limits the memory for one very long line
    if rest:
        yield rest


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's bytes, some at a time; those of UTF-16 or UTF-32, by its byte order mark, as UTF-8.

    What is not valid in such a file becomes U+FFFD, of which the note of its row tells.
    """
    piece = file.read(_PIECE)
    mark, encoding = captions.marked(piece)
    if encoding == "utf-8":
        yield piece
        yield from iter(lambda: file.read(_PIECE), b"")
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield decoder.decode(piece[len(mark) :]).encode()
    while piece := file.read(_PIECE):
        yield decoder.decode(piece).encode()
    yield decoder.decode(b"", final=True).encode()


def parquet_entries(file: IO[bytes], paths: Sequence[str] = PATH_FIELDS) -> Iterator[Entry]:
    """Yield the rows of a Parquet file, as `json_entries`. Raises SourceError and its storage's exceptions."""
    fields = (paths, CAPTION_FIELDS, KEY_FIELDS)
    # a longer path is told by its row; of the others no more is used
    longest = (MAX_URI + 1, 4 * captions.MAX_CHARACTERS, Keys.MAX_CHARACTERS)
    for number, row in enumerate(parquet_rows(file, fields, longest, IMAGE_FIELDS)):
        entry = _entry(f"row {number + 1}", *row.values)
        if row.column is None or row.size is None:
            yield entry
        else:
            path = entry.path if entry.error is None else None
            cell = ParquetCell("", row.column, number)
            yield entry._replace(path=path, error=None, inside=cell, size=row.size, checksum=row.checksum)
