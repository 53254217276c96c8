"""Files in a folder or a bucket through fsspec. A file is written completely or not at all.

Listings are not cached, and every error of a storage library is raised as OSError.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from strata.addresses import without_secrets
from strata.errors import InvalidInput
from strata.files import writing
from strata.store.storage_errors import as_os_error
from strata.store.storages import file_system, whole_file, write_limit

log = logging.getLogger(__name__)

Result = TypeVar("Result")

MARK = "strata-store.json"  # at the root of a store; see `Files.check_mark`
# the name that should hold the file is none of a folder, or leads nowhere: then the file does not exist
_NO_FILE = frozenset({errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class Files:
    """Files by their paths. Safe to use from several threads and machines.

    Every method raises OSError if the storage cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        """Open the storage. Raises InvalidInput if its library is not installed or the URI cannot be used."""
        try:
            self.fs, self.root = file_system(uri)
        except (ImportError, ValueError) as error:
            raise InvalidInput(f"the storage {without_secrets(uri)} cannot be opened: {error}") from error
        self.uri = uri
        # a file system may have several names, as "file" and "local"
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        self.local = "file" in protocols
        self._lists_prefixes = bool(protocols & {"s3", "s3a", "gs", "gcs"})
        self._told: set[str] = set()  # folders with foreign entries that the log has told of
        self._mark: bytes | None = None  # the content of the mark when this process has seen it first

    def path(self, *names: str) -> str:
        """The path of a file below the root."""
        return "/".join((self.root.rstrip("/"), *names))

    def relative(self, path: str) -> str:
        """A file's path relative to the root."""
        return path.removeprefix(self.path("")).lstrip("/")

    @as_os_error
    def check_mark(self) -> None:
        """Raise OSError if the store has lost its mark, or has another one than this process has seen at its start.

        Then another folder, often an empty one, is at the place of the store, because the store is not mounted: a file
        that is missing there may exist in the store. It takes one read, so it is called where something is missing, and
        not before each read. Nothing is checked in a process that has not read the mark (`Store.find_mark`).
        """
        if self._mark is None:
            return
        try:
            found = self.fs.cat_file(self.path(MARK))
        except (FileNotFoundError, NotADirectoryError):
            raise OSError(errno.EIO, f"the store is away: its mark {MARK} is missing") from None
        if found != self._mark:
            raise OSError(errno.EIO, f"another store is at the place of this one: its mark {MARK} is another")

    def check_folder(self) -> None:
        """As `check_mark`, but not of a bucket, where much is asked for that may be missing, and nothing is mounted."""
        if self.local:
            self.check_mark()

    def _with_folder(self, path: Path, act: Callable[[], Result]) -> Result:
        """The result of act, which writes a file; if the file's folder is missing, create it and call act again."""
        # trying first saves a system call for each file but the first in a folder
        try:
            return act()
        except FileNotFoundError:
            self.check_folder()
            path.parent.mkdir(parents=True, exist_ok=True)
            return act()

    @as_os_error
    def put(self, path: str, data: bytes, private: bool = False) -> None:
        """Write a file completely or not at all, also if the power fails. Raises OSError.

        private: it has a secret, so that in a folder only its owner may read and write it.
        """
        try:
            with writing(path):
                self._put(path, data, private)
        except FileNotFoundError as error:  # not the file, but what should hold it is missing
            raise OSError(errno.EIO, "the store's bucket or folder does not exist") from error

    def _put(self, path: str, data: bytes, private: bool) -> None:
        # a bucket shows an object only when its upload is complete
        if not self.local:
            self.fs.pipe_file(path, data, **write_limit(self.fs, len(data)))
            return
        # write a temporary file, flush it to the disk, then rename it: a rename is atomic
        temporary = Path(self.path("tmp", uuid.uuid4().hex))
        try:
            # whoever has opened a file can read it whatever its mode becomes: a private one is made as such
            if private:
                self._with_folder(temporary, lambda: temporary.touch(0o600, exist_ok=False))
            with self._with_folder(temporary, lambda: temporary.open("wb")) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a rename can reach the disk before the bytes do
            self._with_folder(Path(path), lambda: temporary.rename(path))
        except BaseException:
            with suppress(OSError):  # a storage that is away cannot remove it either, and the first error counts
                temporary.unlink(missing_ok=True)
            raise

    @as_os_error
    def put_new(self, path: str, data: bytes, private: bool = False) -> None:
        """Write a file as `put` does, but only if it does not exist. Raises FileExistsError and OSError.

        Of two writers at the same time one succeeds: by a hard link in a folder, by a conditional write in S3 and
        GCS. Other remote storages check and then write, so that there the later of two simultaneous writes wins.
        """
        if not self.local:
            self._put_new_object(path, data)
            return
        # write a temporary file, then link it to its name: unlike a rename, that fails if the name exists
        temporary = self.path("tmp", uuid.uuid4().hex)
        self.put(temporary, data, private)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            os.link(temporary, path)
        finally:
            Path(temporary).unlink()

    def _put_new_object(self, path: str, data: bytes) -> None:
        try:
            self.fs.pipe_file(path, data, mode="create", **write_limit(self.fs, len(data)))
        except OSError as error:  # each server reports an existing file in its own way
            if not self.fs.exists(path):
                if isinstance(error, FileNotFoundError):  # as in `put`
                    raise OSError(errno.EIO, "the store's bucket does not exist") from error
                raise
            # the library may have sent our own write twice: then the file has our content
            if self.fs.cat_file(path) != data:
                raise FileExistsError(path) from error

    def make_private(self, path: str) -> None:
        """Take from others what `put` with `private` does not give them; of a file that is another user's: nothing."""
        if self.local:
            with suppress(OSError):
                if stat.S_IMODE(Path(path).stat().st_mode) & 0o077:
                    Path(path).chmod(0o600)

    def sweep(self, age: float) -> int:
        """Remove temporary files that are older than age seconds, whose writers were killed; returns their number."""
        # only folders have temporary files
        if not self.local:
            return 0
        removed = 0
        for path in Path(self.path("tmp")).glob("*"):
            # another process may remove or rename the file at the same time; a folder is none of ours
            with suppress(FileNotFoundError, IsADirectoryError):
                if path.lstat().st_mtime < time.time() - age:
                    path.unlink()
                    removed += 1
        return removed

    @as_os_error
    def get(self, path: str) -> bytes:
        """The content of a file. Raises FileNotFoundError, and IsADirectoryError for a folder."""
        try:
            return cast(bytes, self.fs.cat_file(path, **whole_file(self.fs)))
        except FileNotFoundError:
            self.check_mark()
            raise
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise FileNotFoundError(errno.ENOENT, "no such file", path) from None

    @as_os_error
    def exists(self, path: str) -> bool:
        """Whether a file exists."""
        found = bool(self.fs.exists(path))
        if not found:
            self.check_folder()
        return found

    @as_os_error
    def names(self, folder: str, *prefixes: str) -> list[str]:
        """The names of the files in a folder of the store, sorted; only those that begin with one of some prefixes.

        It takes one listing. For a single prefix, S3 and GCS list only the files with it.
        """
        path = self.path(folder)
        try:
            if self.local:
                # several times as fast as fsspec in a folder of thousands of parts
                with os.scandir(path) as entries:
                    found = [entry.name for entry in entries]
            elif len(prefixes) == 1 and self._lists_prefixes:
                found = list(self.fs.find(path, prefix=prefixes[0]))
            else:
                found = self.fs.ls(path, detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            self.check_folder()
            return []
        names = (each.rpartition("/")[2] for each in found)
        return sorted(name for name in names if not prefixes or name.startswith(prefixes))

    @as_os_error
    def folders(self, folder: str, is_ours: Callable[[str], bool]) -> list[str]:
        """The names of the folders in a folder of the store that have the form of ours, sorted. It takes one listing.

        All else is foreign: it stays where it is, and the log tells of it once.
        """
        path = self.path(folder)
        try:
            if self.local:
                with os.scandir(path) as entries:
                    found = {entry.name: _is_folder(entry) for entry in entries}
            else:
                listed = self.fs.ls(path, detail=True, refresh=True)
                found = {one["name"].rstrip("/").rpartition("/")[2]: one["type"] == "directory" for one in listed}
        except (FileNotFoundError, NotADirectoryError):
            self.check_folder()
            return []
        return self.without_foreign(folder, found, lambda name: found[name] and is_ours(name))

    def without_foreign(self, folder: str, names: Iterable[str], is_ours: Callable[[str], bool]) -> list[str]:
        """Those of the names in a folder that are ours, sorted. The log tells once that there are others."""
        names = sorted(names)
        ours = [name for name in names if is_ours(name)]
        if len(ours) < len(names) and folder not in self._told:
            self._told.add(folder)
            known = set(ours)
            one = next(name for name in names if name not in known)
            log.warning("%s/ has %d foreign entries, which are ignored; one is %r", folder, len(names) - len(ours), one)
        return ours

    @as_os_error
    def find(self, *names: str) -> dict[str, int]:
        """The sizes in bytes of all files below a folder, by their paths relative to the root, sorted."""
        if self.local:
            found = {path: info.st_size for path, info in _files(self.path(*names))}
        else:
            found = {path: info["size"] for path, info in self.fs.find(self.path(*names), detail=True).items()}
        if not found:
            self.check_folder()
        return {self.relative(path): int(found[path]) for path in sorted(found)}

    @as_os_error
    def written_before(self, moment: float, *names: str) -> list[str]:
        """The paths, relative to the root, of the files below a folder that were written before a time (of the epoch).

        A file whose storage does not tell its time is not among them. It takes one listing.
        """
        if self.local:
            times = {path: info.st_mtime for path, info in _files(self.path(*names))}
        else:
            found = self.fs.find(self.path(*names), detail=True)
            times = {path: _time_of(info) for path, info in found.items()}
        return [self.relative(path) for path in sorted(times) if times[path] < moment]

    @as_os_error
    def age(self, path: str) -> float:
        """The seconds since a file was written. Raises FileNotFoundError."""
        return time.time() - float(self.fs.modified(path).timestamp())

    @as_os_error
    def move(self, path: str, target: str) -> None:
        """Move a file, both by their paths relative to the root. What is at the target already stays there.

        A bucket copies the file and then deletes it. Harmless if the file does not exist.
        """
        try:
            if self.local and Path(self.path(path)).is_dir():  # what is in it is not known, so nothing of it is removed
                target = f"{target}.{uuid.uuid4().hex}"
            if self.fs.exists(self.path(target)):
                self.fs.rm_file(self.path(path))
            elif self.local:
                self._with_folder(Path(self.path(target)), lambda: Path(self.path(path)).rename(self.path(target)))
            else:
                self.fs.cp_file(self.path(path), self.path(target), **write_limit(self.fs, 0))
                self.fs.rm_file(self.path(path))
        except FileNotFoundError:
            self.check_folder()

    @as_os_error
    def remove(self, path: str) -> None:
        """Remove a file. Harmless if it does not exist."""
        try:
            self.fs.rm_file(path)
        except FileNotFoundError:
            self.check_folder()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles
        return False


def _files(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a local folder, or a file itself; links that lead nowhere, pipes and the like are left out."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError) and error.errno not in _NO_FILE:
            raise error

    alone: list[tuple[str, list[str], list[str]]] = [(path, [], [""])] if Path(path).is_file() else []
    for folder, _, names in alone or os.walk(path, onerror=fail):
        for file in (Path(folder, name) for name in names):
            try:
                info = file.stat()
            except OSError as error:
                fail(error)
                continue
            if stat.S_ISREG(info.st_mode):
                yield str(file), info


def _time_of(info: Mapping[str, Any]) -> float:
    """When a file was written, in seconds of the epoch, by its entry in a listing; infinity if it is not told."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(name)
        if isinstance(value, str):
            with suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return float("inf")
