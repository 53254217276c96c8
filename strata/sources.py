"""Shards: a tar indexed in one pass by offsets, or a folder of images; and images read back by their offsets.

Nothing is ever unpacked: a row says where an image lies, and member names are used as keys only.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import fsspec

from strata.tars import AltText, Keys, Member, Sample, TarReader
from strata.uris import OutsideRoots, SourceError, check_roots, expand

__all__ = ["IndexRow", "OutsideRoots", "ShardIndex", "ShardMissing", "SourceError", "check_roots", "expand"]
__all__ += ["index_shard", "read_images", "shard_identity"]

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})
MAX_GAP = 256 * 2**10  # bytes read for nothing between two images rather than asking twice
MAX_SPAN = 64 * 2**20  # bytes held by one ranged read
_VERSION_FIELDS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


class ShardMissing(SourceError):
    """A shard that does not exist."""


@dataclass(frozen=True)
class IndexRow:
    """One image of a shard: bytes offset..offset+size of the file at uri; error says why there is none."""

    key: str
    uri: str
    offset: int
    size: int
    alt_text: str | None = None
    error: str | None = None


@dataclass
class ShardIndex:
    """A shard's images in the order they lie; failure: why the shard could not be read, or not to its end."""

    identity: str
    rows: list[IndexRow]
    failure: str | None


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

    Raises ShardMissing, and OSError if the storage cannot be reached.
    """
    filesystem, path, info = _locate(uri)
    return _identity(uri, _listing(filesystem, path) if info["type"] == "directory" else [info])


def index_shard(uri: str) -> ShardIndex:
    """Read a shard's index: a tar by webdataset's convention, or a folder of images with NAME.txt beside.

    What cannot be read becomes a row's error or the shard's failure. Raises ShardMissing, and OSError if the
    storage cannot be reached.
    """
    filesystem, path, info = _locate(uri)
    if info["type"] == "directory":
        return _index_folder(uri, filesystem, path)
    identity = _identity(uri, [info])
    if info["type"] != "file":
        return ShardIndex(identity, [], "neither a file nor a folder")
    with filesystem.open(path, "rb") as file:
        reader = TarReader(file, int(info["size"]))
        keys = Keys()
        rows = [_tar_row(uri, sample, keys, reader) for sample in reader.samples()]
    failure = reader.failure
    if failure and reader.begun:
        failure += f" after {sum(row.error is None for row in rows)} images"
    return ShardIndex(identity, rows, failure)


def _tar_row(uri: str, sample: Sample, keys: Keys, reader: TarReader) -> IndexRow:
    key = keys.distinct(sample.key)
    image = _image_of(sample)
    text = reader.alt_text(sample)
    if image is None:
        return IndexRow(key, uri, 0, 0, text, "sample without image")
    error = reader.defect(image)
    return IndexRow(key, uri, image.offset, image.size, text, error)


def _image_of(sample: Sample) -> Member | None:
    """KEY.jpg before KEY.anything.jpg, which is often a mask or a thumbnail."""
    found = [m for m in sample.members.values() if m.extension.rpartition(".")[2] in IMAGE_EXTENSIONS]
    return min(found, key=lambda member: "." in member.extension, default=None)


def _locate(uri: str) -> tuple[Any, str, dict[str, Any]]:
    """File system, path and info of a URI."""
    if "::" in uri:
        raise SourceError("chained URIs are not read")
    try:
        filesystem, path = fsspec.url_to_fs(uri)
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
    return ShardIndex(_identity(uri, files), rows, None if rows else "a folder without images")


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

    A row that cannot be read has its exception in its place: SourceError if the file ends before it.
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
    try:
        filesystem, path = fsspec.url_to_fs(first.uri)
        data: bytes = filesystem.cat_file(path, start=first.offset, end=last.offset + last.size)
    except Exception as error:  # each storage has its own exceptions; the rows' neighbours must not suffer
        return [error for _ in rows]
    results: list[bytes | Exception] = []
    for row in rows:
        image = data[row.offset - first.offset : row.offset - first.offset + row.size]
        short = SourceError(f"the file ends {row.size - len(image)} bytes before the image does")
        results.append(image if len(image) == row.size else short)
    return results
