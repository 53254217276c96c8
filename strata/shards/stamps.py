"""The stamps of shards: where a shard's file or folder is found, and what tells whether it has changed.

No content is read: a stamp follows from what the storage tells about the files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from strata.shards.bounds import MAX_FILES
from strata.shards.kinds import is_hidden
from strata.shards.roots import ShardMissing, SourceError
from strata.store import file_system, is_transient, reason_of

# the fields of a storage's file info that identify the version; the first that is present is used
VERSION_FIELDS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")
# what is used of the information about a file
_FIELDS = frozenset(("name", "size", "type", "islink", "ino", "left_out", *VERSION_FIELDS))

RULES = 2  # the version of the rules by which the rows of a shard are made; another one reads every shard once more


def version_of(info: dict[str, Any]) -> str:
    """What changes when a file is replaced: its ETag or modification time; empty if its storage tells neither.

    Of a local file also its inode, which changes if another file of the same time is moved to its name.
    """
    version = earlier_version_of(info)
    return _local_version(info["mtime"], info["ino"]) if "ino" in info and "mtime" in info else version


def earlier_version_of(info: dict[str, Any]) -> str:
    """What earlier versions of the program took for a file's version: without the inode."""
    return str(next((info[field] for field in VERSION_FIELDS if info.get(field)), ""))


def local_version(info: os.stat_result) -> str:
    """The same as version_of for a local file."""
    return _local_version(info.st_mtime, info.st_ino)


def same_time(version: str, other: str) -> bool:
    """Whether two versions of a local file have the same time: each machine may number a FUSE mount's inodes itself."""
    return version.partition(" ")[0] == other.partition(" ")[0]


def _local_version(mtime: float, inode: int) -> str:
    return f"{mtime} {inode}"


class Stamps(NamedTuple):
    """What tells whether a shard is the same as when it was read last; it says nothing of a copy.

    now: a hash (16 hex digits) of its URI, size and version (see `version_of`), of a folder of those of its files, and
    of the version of the rules by which shards are read; None if its storage does not tell the version. Earlier
    versions of the program gave it other stamps: before is without the rules, and earlier also without the inode. A
    shard of which only these are known is read again; if the new rules change nothing in it, its identity stays.
    """

    now: str | None
    before: str | None
    earlier: str

    @classmethod
    def of(cls, uri: str, infos: list[dict[str, Any]]) -> Stamps:
        """The stamps of a shard with these files; sub-folders that are not entered do not count."""
        infos = [info for info in infos if "left_out" not in info]
        known = all(version_of(info) for info in infos)
        before, earlier = _stamp(uri, infos, version_of), _stamp(uri, infos, earlier_version_of)
        now = hashlib.sha256(f"{RULES}\n{before}".encode()).hexdigest()[:16]
        return cls(now if known else None, before if known else None, earlier)


def shard_stamps(uri: str, at: str | None = None) -> Stamps:
    """A shard's stamps. It takes one request.

    at: where the shard lies now, if it was moved. Raises ShardMissing, SourceError if it is not a shard or may not be
    read (missing credentials), and OSError if the storage cannot be reached.
    """
    with storage_errors(uri):
        filesystem, path, info = look_up(uri, at)
        return Stamps.of(uri, listing(filesystem, path) if info["type"] == "directory" else [info])


def find_shard(uri: str, at: str | None = None) -> None:
    """Find a shard's file or folder. It takes one request. Raises as shard_stamps does."""
    with storage_errors(uri):
        look_up(uri, at)


def shard_stamp(uri: str, at: str | None = None) -> str:
    """A shard's stamp; if its storage does not tell its version, a hash of its URI and size. Otherwise shard_stamps."""
    stamps = shard_stamps(uri, at)
    return stamps.now or stamps.earlier


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Convert the exceptions of storage libraries: to OSError if a later attempt may succeed, else to SourceError."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        line = f"{uri} cannot be read: {type(error).__name__}: {reason_of(error)}"
        raise (OSError if is_transient(error) else SourceError)(line) from error


def look_up(uri: str, at: str | None = None) -> tuple[Any, str, dict[str, Any]]:
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
        name = info["relative"] if len(infos) > 1 else ""
        digest.update(f"\n{name}\t{info['size']}\t{version(info)}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def listing(filesystem: Any, path: str) -> list[dict[str, Any]]:
    """The files and links of a folder and of its sub-folders, by name; `relative` is the path below the folder.

    A sub-folder that is not entered is an entry too, with the reason in `left_out`: hidden, or not readable. Links
    are not followed. Raises SourceError if there are too many files.
    """
    files, top = [], len(path.rstrip("/")) + 1
    local = isinstance(filesystem, LocalFileSystem)
    for info in _local_infos(filesystem, path) if local else _remote_infos(filesystem, path):
        if info["type"] == "file" or info.get("islink") or "left_out" in info:
            kept = {name: value for name, value in info.items() if name in _FIELDS}
            files.append({**kept, "relative": str(info["name"])[top:]})
        if len(files) > MAX_FILES:
            raise SourceError(f"a folder of more than {MAX_FILES:,} files: make tars or several folders of it")
    return sorted(files, key=lambda info: str(info["name"]))


def _remote_infos(filesystem: Any, path: str) -> Iterator[dict[str, Any]]:
    # one listing of all that begins with the path; a folder that was made by hand is an object with a slash at its end
    found = filesystem.find(path, detail=True)
    yield from (info for info in found.values() if not str(info["name"]).endswith("/"))


def _local_infos(filesystem: Any, path: str) -> Iterator[dict[str, Any]]:
    # fsspec would have all of them at once
    folders = [path]
    while folders:
        folder = folders.pop()
        try:
            entries = os.scandir(folder)
        except OSError:
            if folder == path:
                raise
            yield {"name": folder, "type": "directory", "left_out": "unreadable_folder"}
            continue
        with entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield filesystem.info(entry)
                elif is_hidden(entry.name):
                    yield {"name": entry.path, "type": "directory", "left_out": "hidden"}
                else:
                    folders.append(entry.path)
