"""Shards: a tar, a folder of images or a list of images, indexed in one pass; and images read by their offsets.

Nothing is ever unpacked: a row says where an image lies, and member names are used as keys only.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from strata.core.index_rows import IndexRow, ShardIndex, index_table
from strata.shards.lists import LIST_EXTENSIONS, ListReader
from strata.shards.patterns import OutsideRoots, Roots, ShardMissing, SourceError, check_roots, expand
from strata.shards.tars import IMAGE_EXTENSIONS, AltText, Keys, Sample, TarReader
from strata.store.filesystem import LIBRARIES, file_system

__all__ = ["IndexRow", "OutsideRoots", "ShardChanged", "ShardIndex", "ShardMissing", "SourceError", "check_roots"]
__all__ += ["expand", "index_shard", "read_file", "read_images", "shard_identity", "verify_unchanged"]

MAX_GAP = 256 * 2**10  # bytes read for nothing between two images rather than asking twice
MAX_SPAN = 64 * 2**20  # bytes held by one ranged read
_VERSION_FIELDS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


class ShardChanged(SourceError):
    """A shard whose file is not the one that was indexed."""


class Located(Protocol):
    """Anything that says where an image lies."""

    @property
    def uri(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...


def shard_identity(uri: str) -> str:
    """16 hex digits that change with the file: over URI, size, and mtime or ETag; of a folder, its files'.

    Raises ShardMissing, SourceError for what is no shard or may not be read (credentials lack), and OSError if the
    storage cannot be reached.
    """
    with _storage_errors(uri):
        filesystem, path, info = _locate(uri)
        return _identity(uri, _listing(filesystem, path) if info["type"] == "directory" else [info])


def verify_unchanged(uri: str, identity: str) -> None:
    """Raise ShardChanged if `shard_identity(uri)` is no longer `identity`; for a tar or a list: one look at its file.

    Of a folder only the existence is checked, since its listing may be long, and the images that a list names are
    not looked at: there `read_images` compares each file's size. Not for uploads, whose identity is their content's.
    Raises else as shard_identity does.
    """
    with _storage_errors(uri):
        _, _, info = _locate(uri)
        if info["type"] != "directory" and _identity(uri, [info]) != identity:
            raise ShardChanged(f"{uri} has changed since it was indexed: submit it anew")


def index_shard(uri: str, roots: Sequence[str] = ()) -> ShardIndex:
    """Read a shard's index in one pass.

    A shard is a tar by webdataset's convention, a folder of images with NAME.txt beside, or a list
    (`strata.shards.lists`) of images, each of which must lie under `roots`. What cannot be read becomes a row's
    error or the shard's failure. Raises as shard_identity does.
    """
    with _storage_errors(uri):
        filesystem, path, info = _locate(uri)
        if info["type"] == "directory":
            return _index_folder(uri, filesystem, path)
        identity = _identity(uri, [info])
        if info["type"] != "file":
            return ShardIndex(identity, index_table([]), "neither a file nor a folder")
        with filesystem.open(path, "rb") as file:
            if path.lower().endswith(LIST_EXTENSIONS):
                listed = ListReader(uri, file, Roots(roots))
                return ShardIndex(identity, index_table(listed.rows()), listed.failure)
            if info["size"] is None:
                raise SourceError(f"{uri}: its server does not tell the size, and so cannot give parts of it")
            reader, keys = TarReader(file, int(info["size"])), Keys()
            table = index_table(_tar_row(uri, sample, keys, reader) for sample in reader.samples())
        return ShardIndex(identity, table, reader.failure(table.column("error").null_count))


def _tar_row(uri: str, sample: Sample, keys: Keys, reader: TarReader) -> IndexRow:
    key, text, image = keys.distinct(sample.key), sample.alt_text(), sample.image()
    if image is None:
        return IndexRow(key, uri, 0, 0, text, "sample without image")
    return IndexRow(key, uri, image.offset, image.size, text, reader.defect(sample, image))


@contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    """Storages' own exceptions as OSError where waiting may help, else as SourceError: one bad shard, not a crash."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        kind, library = type(error).__name__, type(error).__module__.partition(".")[0]
        refused = isinstance(error, PermissionError) or "Credential" in kind
        if isinstance(error, OSError) and not refused:
            raise
        line = f"{uri} cannot be read: {kind}: {' '.join(str(error).split())[:200]}"
        raise (OSError if library in LIBRARIES and not refused else SourceError)(line) from error


def _locate(uri: str) -> tuple[Any, str, dict[str, Any]]:
    """File system, path and info of a URI."""
    if "::" in uri:
        raise SourceError("chained URIs are not read")
    try:
        filesystem, path = file_system(uri)
        return filesystem, path, filesystem.info(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ShardMissing(f"no such shard: {uri}") from None
    except (ImportError, ValueError) as error:
        raise SourceError(f"{uri}: {error}") from None


def _identity(uri: str, infos: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256(uri.encode("utf-8", "surrogateescape"))
    for info in infos:
        version = next((info[field] for field in _VERSION_FIELDS if info.get(field)), "")
        name = posixpath.basename(info["name"]) if len(infos) > 1 else ""
        digest.update(f"\n{name}\t{info['size']}\t{version}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _listing(filesystem: Any, path: str) -> list[dict[str, Any]]:
    files = [info for info in filesystem.ls(path, detail=True) if info["type"] == "file" or info.get("islink")]
    return sorted(files, key=lambda info: str(info["name"]))


def _index_folder(uri: str, filesystem: Any, path: str) -> ShardIndex:
    """Loose images, sorted by name; links are not followed, they could lead out of the allowed roots."""
    files = _listing(filesystem, path)
    by_name = {posixpath.basename(info["name"]): info for info in files}
    keys, rows = Keys(), []
    for name, info in by_name.items():
        stem, _, extension = name.rpartition(".")
        if not stem or extension.lower() not in IMAGE_EXTENSIONS:
            continue
        row_uri = f"{uri.rstrip('/')}/{name}"
        key = keys.distinct(Keys.clean(stem))
        if info.get("islink"):
            rows.append(IndexRow(key, row_uri, 0, 0, error="links are not followed"))
            continue
        text = _folder_text(filesystem, by_name, stem)
        size = int(info["size"])
        rows.append(IndexRow(key, row_uri, 0, size, text, None if size else "an empty file"))
    return ShardIndex(_identity(uri, files), index_table(rows), None if rows else "a folder without images")


def _folder_text(filesystem: Any, by_name: dict[str, dict[str, Any]], stem: str) -> str | None:
    for extension, read in (("txt", AltText.from_txt), ("json", AltText.from_json)):
        info = by_name.get(f"{stem}.{extension}")
        if info is None or info.get("islink"):
            continue
        text = read(filesystem.cat_file(info["name"], start=0, end=AltText.MAX_BYTES))
        if text is not None:
            return text
    return None


def read_images(rows: Sequence[Located]) -> list[bytes | Exception]:
    """The bytes of each row's image, in order; neighbours in a file are fetched with one ranged read.

    A row that cannot be read has its exception in its place: SourceError if the file ends before it, ShardChanged
    if a whole file (offset 0) has another size than its row says.
    """
    results: list[bytes | Exception] = []
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and _joins(rows[start], rows[end - 1], rows[end]):
            end += 1
        results += _read_span(rows[start:end])
        start = end
    return results


def _joins(first: Located, before: Located, row: Located) -> bool:
    """Whether a row is read along with the one before it."""
    gap = row.offset - (before.offset + before.size)
    near = 0 <= gap <= MAX_GAP and row.offset + row.size - first.offset <= MAX_SPAN
    return near and row.uri == first.uri and before.size > 0 and row.size > 0


def _read_span(rows: Sequence[Located]) -> list[bytes | Exception]:
    """Rows of one file, by offset."""
    first, last = rows[0], rows[-1]
    if first.size <= 0:
        return [SourceError("the row has no image")]
    whole = first.offset == 0 and len(rows) == 1
    end = last.offset + last.size + whole  # one byte more tells that a file has grown
    try:
        data = _read_bytes(first.uri, first.offset, end)
    except Exception as error:  # each storage has its own exceptions; the rows' neighbours must not suffer
        return [error for _ in rows]
    if whole and len(data) != first.size:
        return [ShardChanged(f"the file is not of {first.size:,} bytes as when it was indexed")]
    results: list[bytes | Exception] = []
    for row in rows:
        image = data[row.offset - first.offset : row.offset - first.offset + row.size]
        short = SourceError(f"the file ends {row.size - len(image)} bytes before the image does")
        results.append(image if len(image) == row.size else short)
    return results


def read_file(uri: str) -> bytes:
    """A whole file. Raises what its storage raises."""
    filesystem, path = file_system(uri)
    data: bytes = filesystem.cat_file(path)
    return data


def _read_bytes(uri: str, start: int, end: int) -> bytes:
    """Bytes start..end of a file, fewer if it is shorter."""
    if uri.startswith("/"):  # as fsspec would, in a tenth of the time: training reads some thousand a second
        file = os.open(uri, os.O_RDONLY)
        try:
            return os.pread(file, end - start, start)
        finally:
            os.close(file)
    filesystem, path = file_system(uri)
    data: bytes = filesystem.cat_file(path, start=start, end=end)
    return data
