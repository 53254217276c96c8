"""Index a shard (a tar, a folder or a list of images) in one pass, and read its images by their offsets.

Nothing is unpacked: a row of the index has the position of an image in the shard, and member names are used only as
keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from strata.shards.bounds import MAX_FILES, BoundedRows
from strata.shards.lists import (
    LIST_EXTENSIONS,
    VERSION_FIELDS,
    ListReader,
    earlier_version_of,
    local_version,
    same_time,
    version_of,
)
from strata.shards.ranges import expand
from strata.shards.roots import OutsideRoots, Roots, ShardMissing, SourceError, check_roots, encodable
from strata.shards.tars import IMAGE_EXTENSIONS, AltText, Keys, Sample, TarReader
from strata.store import IndexRow, ShardIndex, file_system, identity_of, index_table, is_transient, reason_of

__all__ = ["IndexRow", "OutsideRoots", "ShardChanged", "ShardIndex", "ShardMissing", "SourceError", "check_roots"]
__all__ += ["expand", "find_shard", "index_shard", "read_file", "read_images", "shard_stamp", "shard_stamps"]

Item = TypeVar("Item")
MAX_GAP = (
    256 * 2**10
)  # bytes; a smaller gap between two images is read and discarded, which is faster than a second request
MAX_IMAGE = 512 * 2**20  # bytes of one image: 100 million pixels without compression have 400 MB
MAX_SPAN = 64 * 2**20  # bytes of one ranged read
_BATCH = 1000  # rows as Python objects at a time
# what is used of the information about a file
_FIELDS = frozenset(("name", "size", "type", "islink", "ino", *VERSION_FIELDS))


class ShardChanged(SourceError):
    """A shard's file has changed since it was indexed."""


class Located(Protocol):
    """The position of an image: bytes offset..offset+size of the file at uri."""

    @property
    def uri(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...


class Stamps(NamedTuple):
    """What tells whether a shard is the same as when it was read last; it says nothing of a copy.

    now: a hash (16 hex digits) of its URI, size and version (see `version_of`), of a folder of those of its files; None
    if its storage does not tell the version. earlier: the stamp that earlier versions of the program gave it.
    """

    now: str | None
    earlier: str

    @classmethod
    def of(cls, uri: str, infos: list[dict[str, Any]]) -> Stamps:
        """The stamps of a shard with these files."""
        known = all(version_of(info) for info in infos)
        return cls(_stamp(uri, infos, version_of) if known else None, _stamp(uri, infos, earlier_version_of))


def shard_stamps(uri: str, at: str | None = None) -> Stamps:
    """A shard's stamps. It takes one request.

    at: where the shard lies now, if it was moved. Raises ShardMissing, SourceError if it is not a shard or may not be
    read (missing credentials), and OSError if the storage cannot be reached.
    """
    with _storage_errors(uri):
        filesystem, path, info = _locate(uri, at)
        return Stamps.of(uri, _listing(filesystem, path) if info["type"] == "directory" else [info])


def find_shard(uri: str, at: str | None = None) -> None:
    """Find a shard's file or folder. It takes one request. Raises as shard_stamps does."""
    with _storage_errors(uri):
        _locate(uri, at)


def shard_stamp(uri: str, at: str | None = None) -> str:
    """A shard's stamp; if its storage does not tell its version, a hash of its URI and size. Otherwise shard_stamps."""
    stamps = shard_stamps(uri, at)
    return stamps.now or stamps.earlier


def index_shard(
    uri: str, roots: Sequence[str] = (), at: str | None = None, progress: Callable[[], None] = lambda: None
) -> ShardIndex:
    """Build a shard's index in one pass over it.

    A shard is a tar by webdataset's convention, a folder of images with a NAME.txt beside each, or a list
    (`strata.shards.lists`) of images, each of which must lie under `roots`. An image that cannot be read becomes a
    row with an error; a shard that cannot be read to its end has a `failure`. The identity is a hash of what was read:
    a copy of a tar has the same. progress: called for each row. Raises as shard_stamps does.
    """
    with _storage_errors(uri):
        filesystem, path, info = _locate(uri, at)
        # a folder: its stamp covers the files that are listed
        if info["type"] == "directory":
            return _index_folder(uri, filesystem, path, progress)
        stamps = Stamps.of(uri, [info])
        if info["type"] != "file":
            return ShardIndex(uri, stamps.now, stamps.earlier, index_table([]), "neither a file nor a folder")
        with filesystem.open(path, "rb") as file:
            # a list: the image of each entry is looked up, because its size is needed
            if path.lower().endswith(LIST_EXTENSIONS):
                listed = ListReader(uri, file, Roots(roots))
                table, failure = _table(listed.rows(), progress)
                families = _families(uri, table)
                return ShardIndex(uri, None, identity_of(uri, table), table, failure or listed.failure, families)
            # a tar: images are read by offsets later, which needs a server that supports ranged reads
            if info["size"] is None:
                raise SourceError(f"{uri}: its server does not report the size, so that parts of it cannot be read")
            reader, keys = TarReader(file, int(info["size"])), Keys()
            rows = (_tar_row(sample, keys, reader) for sample in reader.samples())
            table, failure = _table(rows, progress)
        failure = failure or reader.failure(table.column("error").null_count)
        return ShardIndex(uri, stamps.now, identity_of(int(info["size"]), table), table, failure)


def _table(rows: Iterable[IndexRow], progress: Callable[[], None]) -> tuple[pa.Table, str | None]:
    """The table of a shard's rows, and why it has not all of them, or None. progress is called after each row."""
    bounded = BoundedRows(rows)
    return index_table(_noted(bounded, progress)), bounded.failure


def _noted(items: Iterable[Item], progress: Callable[[], None]) -> Iterator[Item]:
    """The items; progress is called after each."""
    for item in items:
        yield item
        progress()


def _tar_row(sample: Sample, keys: Keys, reader: TarReader) -> IndexRow:
    key, text, found = keys.distinct(sample.key), sample.alt_text(), sample.image()
    if found is None:
        return IndexRow(key, "", 0, 0, text, "sample without image")
    image, stamp = found
    return IndexRow(key, "", image.offset, image.size, text, reader.defect(sample, image), stamp)


def _families(uri: str, table: pa.Table) -> list[str]:
    """Under which names the indexes of a folder or list are found: one of its URI, one of the names of its images.

    So another version of the folder is found where it lies, and a copy of the folder elsewhere.
    """
    # the JSON list of the names, sorted and each once, without having all of them as objects
    names = hashlib.sha256(b"[")
    uris = pc.unique(table.column("uri"))
    order, separator = pc.sort_indices(uris), ""
    for start in range(0, len(order), _BATCH):
        for name in uris.take(order[start : start + _BATCH]).to_pylist():
            names.update(f"{separator}{json.dumps(name)}".encode())
            separator = ", "
    names.update(b"]")
    return [digest.hexdigest()[:16] for digest in (hashlib.sha256(uri.encode()), names)]


@contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    """Convert the exceptions of storage libraries: to OSError if a later attempt may succeed, else to SourceError."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        line = f"{uri} cannot be read: {type(error).__name__}: {reason_of(error)}"
        raise (OSError if is_transient(error) else SourceError)(line) from error


def _locate(uri: str, at: str | None = None) -> tuple[Any, str, dict[str, Any]]:
    """The file system, path and info of a URI, or of the place that it was moved to.

    Raises ShardMissing and SourceError.
    """
    if "::" in uri:
        raise SourceError("chained URIs are not supported")
    try:
        filesystem, path = file_system(at or uri)
        return filesystem, path, filesystem.info(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        # a web server that is away looks like a missing file; the cause tells the difference
        if is_transient(error) or _refused(error):
            raise
        raise ShardMissing(f"no such shard: {uri}") from None
    except (ImportError, ValueError) as error:
        raise SourceError(f"{uri}: {error}") from None


def _refused(error: BaseException) -> bool:
    """Whether a web server has answered that it does not give the file to us."""
    return getattr(error.__cause__, "status", None) in (401, 403)


def _stamp(uri: str, infos: list[dict[str, Any]], version: Callable[[dict[str, Any]], str]) -> str:
    digest = hashlib.sha256(uri.encode("utf-8", "surrogateescape"))
    for info in infos:
        # the mtime or ETag changes when a file is replaced; its content is not read
        name = posixpath.basename(info["name"]) if len(infos) > 1 else ""
        digest.update(f"\n{name}\t{info['size']}\t{version(info)}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _listing(filesystem: Any, path: str) -> list[dict[str, Any]]:
    """The files and links of a folder, by name. Raises SourceError if there are too many."""
    files = []
    for info in _infos(filesystem, path):
        if info["type"] == "file" or info.get("islink"):
            files.append({name: value for name, value in info.items() if name in _FIELDS})
        if len(files) > MAX_FILES:
            raise SourceError(f"a folder of more than {MAX_FILES:,} files: make tars or several folders of it")
    return sorted(files, key=lambda info: str(info["name"]))


def _infos(filesystem: Any, path: str) -> Iterator[dict[str, Any]]:
    if not isinstance(filesystem, LocalFileSystem):
        yield from filesystem.ls(path, detail=True)
        return
    # fsspec would have all of them at once
    with os.scandir(path) as entries:
        for entry in entries:
            yield filesystem.info(entry)


def _index_folder(uri: str, filesystem: Any, path: str, progress: Callable[[], None]) -> ShardIndex:
    """Index a folder's images, sorted by name. Links are not followed: they could lead out of the allowed roots."""
    files = _listing(filesystem, path)
    # captions are looked up by name among the listed files, without further requests
    by_name = {posixpath.basename(info["name"]): info for info in files}
    table, failure = _table(_folder_rows(filesystem, by_name), progress)
    failure = failure or (None if table.num_rows else "a folder without images")
    return ShardIndex(uri, Stamps.of(uri, files).now, identity_of(uri, table), table, failure, _families(uri, table))


def _folder_rows(filesystem: Any, by_name: dict[str, dict[str, Any]]) -> Iterator[IndexRow]:
    keys = Keys()
    for name, info in by_name.items():
        stem, _, extension = name.rpartition(".")
        if not stem or extension.lower() not in IMAGE_EXTENSIONS:
            continue
        # NAME.jpg and NAME.png would otherwise have the same key
        key = keys.distinct(Keys.clean(stem))
        unusable = "links are not followed" if info.get("islink") else _defect_of_name(name)
        if unusable:
            yield IndexRow(key, f"./{encodable(name)}", 0, 0, error=unusable)
            continue
        text = _folder_text(filesystem, by_name, stem)
        size = int(info["size"])
        yield IndexRow(key, f"./{name}", 0, size, text, None if size else "an empty file", version_of(info))


def _defect_of_name(name: str) -> str | None:
    """Why a file with this name cannot be an image of a folder, or None."""
    # such a name cannot be written in a part, in JSON or in an address
    return None if encodable(name) == name else "the file's name is not valid UTF-8: rename the file"


def _folder_text(filesystem: Any, by_name: dict[str, dict[str, Any]], stem: str) -> str | None:
    for extension, read in (("txt", AltText.from_txt), ("json", AltText.from_json)):
        info = by_name.get(f"{stem}.{extension}")
        if info is None or info.get("islink"):
            continue
        # the text file first, then the caption in the JSON file
        text = read(filesystem.cat_file(info["name"], start=0, end=AltText.MAX_BYTES))
        if text is not None:
            return text
    return None


def _same(uri: str) -> str:
    return uri


def read_images(
    rows: Sequence[Located], locate: Callable[[str], str] = _same, versions: Sequence[str | None] = ()
) -> list[bytes | Exception]:
    """The bytes of each row's image, in order; images that lie close together are fetched with one ranged read.

    A row that cannot be read gives an exception instead: SourceError if it has more than MAX_IMAGE bytes; ShardChanged
    if a whole file (offset 0) has another size than its row says, or a local one another version than `versions` says
    (None: it is not known); OSError for which `is_transient` holds if a later attempt may succeed (the storage does not
    answer, or its answer ends before the image does); else an exception of the storage. locate: tells where the file of
    a URI lies now.
    """
    results: list[bytes | Exception] = []
    start = 0
    while start < len(rows):
        # extend the span while the next row lies shortly after the last one in the same file
        end = start + 1
        while end < len(rows) and _joins(rows[start], rows[end - 1], rows[end]):
            end += 1
        at, version = locate(rows[start].uri), versions[start] if versions else None
        # a file that was moved with its root has other times and another inode
        results += _read_span(rows[start:end], at, version if at == rows[start].uri else None)
        start = end
    return results


def _joins(first: Located, before: Located, row: Located) -> bool:
    """Whether a row is fetched by the same read as the row before it."""
    gap = row.offset - (before.offset + before.size)
    near = 0 <= gap <= MAX_GAP and row.offset + row.size - first.offset <= MAX_SPAN
    return near and row.uri == first.uri and before.size > 0 and row.size > 0


def _read_span(rows: Sequence[Located], at: str, version: str | None) -> list[bytes | Exception]:
    """Fetch rows of one file, sorted by offset, with one read. at: where the file lies; version: of a whole file."""
    first, last = rows[0], rows[-1]
    if first.size <= 0:
        return [SourceError("the row has no image")]
    if first.size > MAX_IMAGE:
        return [SourceError(f"{first.size:,} bytes, but at most {MAX_IMAGE:,} are read for one image")]
    # for a whole file one byte more is requested, which shows whether the file has grown
    whole = first.offset == 0 and len(rows) == 1
    end = last.offset + last.size + whole
    try:
        data = _read_bytes(at, first.offset, end, version if whole else None)
    except Exception as error:  # each storage library has its own exceptions; other rows must still be read
        return [error for _ in rows]
    # spans of a tar need no such check, because callers compare the tar's identity (`ImageReader.verify`)
    if whole and len(data) != first.size:
        return [_size_error(first, at, len(data))]
    # cut the span into images
    results: list[bytes | Exception] = []
    for row in rows:
        image = data[row.offset - first.offset : row.offset - first.offset + row.size]
        short = OSError(f"the answer of the storage ends {row.size - len(image)} bytes before the image does")
        results.append(image if len(image) == row.size else short)
    return results


def _size_error(row: Located, at: str, got: int) -> Exception:
    """Why a whole file was read with another size than its row says: the file has changed, or the answer was cut."""
    changed = ShardChanged(f"the file no longer has the {row.size:,} bytes that it had when it was indexed")
    if got > row.size:
        return changed
    try:
        now = _locate(row.uri, at)[2]["size"]
    except Exception as error:  # each storage library has its own exceptions
        return error
    cut = OSError(f"the answer of the storage ends {row.size - got:,} bytes before the file does")
    return cut if now == row.size else changed


def read_file(uri: str) -> bytes:
    """Read a whole file. Raises the exceptions of its storage."""
    filesystem, path = file_system(uri)
    data: bytes = filesystem.cat_file(path)
    return data


def _read_bytes(uri: str, start: int, end: int, version: str | None = None) -> bytes:
    """Read bytes start..end of a file, fewer if it is shorter. Raises ShardChanged if a local one has another version.

    The version is not compared if it is one without inode, of an earlier version of the program.
    """
    # local files without fsspec, in a tenth of its time: training reads thousands of images per second
    if uri.startswith("/"):
        file = os.open(uri, os.O_RDONLY)
        try:
            data = os.pread(file, end - start, start)
            # of the open file, after it was read: it is the one that the bytes are of
            if version and " " in version and not same_time(local_version(os.fstat(file)), version):
                raise ShardChanged("the file is no longer the one that was indexed: submit it again")
            return data
        finally:
            os.close(file)
    filesystem, path = file_system(uri)
    # other storages: one ranged request
    found: bytes = filesystem.cat_file(path, start=start, end=end)
    return found
