"""Files in a folder or a bucket through fsspec, each written whole or not at all.

No listing is cached, and every error of a storage library is raised as OSError.
"""

from __future__ import annotations

import functools
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import fsspec

# these raise exceptions of their own: no credentials, an endpoint that is away, a connection that breaks
LIBRARIES = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "google"})

P = ParamSpec("P")
Result = TypeVar("Result")


def file_system(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path in it. Raises ImportError or ValueError where there is none for it.

    Other processes write what is read here: a listing that was kept would deny files that are there by now.
    """
    return cast("tuple[Any, str]", fsspec.url_to_fs(uri, use_listings_cache=False))


def as_os_error(act: Callable[P, Result]) -> Callable[P, Result]:
    """A function that raises OSError where a storage's library raised something else."""

    @functools.wraps(act)
    def told(*args: P.args, **kwargs: P.kwargs) -> Result:
        try:
            return act(*args, **kwargs)
        except Exception as error:
            library = type(error).__module__.partition(".")[0]
            if isinstance(error, OSError) or library not in LIBRARIES:
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error

    return told


class Files:
    """Files by their paths. Safe to use from several threads and machines.

    Every method raises OSError where the storage cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        self.fs, self.root = file_system(uri)
        self.uri = uri
        self.local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def path(self, *names: str) -> str:
        """A path in the store."""
        return "/".join((self.root.rstrip("/"), *names))

    def relative(self, path: str) -> str:
        """A path in the store as one that begins at its root."""
        return path.removeprefix(self.path("")).lstrip("/")

    @as_os_error
    def put(self, path: str, data: bytes) -> None:
        """Write a file so that it is there whole or not at all, also after a power cut. Raises OSError."""
        if not self.local:
            self.fs.pipe_file(path, data)
            return
        temporary = Path(self.path("tmp", uuid.uuid4().hex))
        try:
            with _with_folder(temporary, lambda: temporary.open("wb")) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a rename can reach the disk before the bytes do
            _with_folder(Path(path), lambda: temporary.rename(path))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    @as_os_error
    def put_new(self, path: str, data: bytes) -> None:
        """Write a file as `put` does, but only where none is. Raises FileExistsError, and OSError.

        Of two that write at once one wins: by a hard link in a folder, by a conditional write in S3 and GCS. Other
        remote storages look before they write, so that there the later of two in the same moment wins.
        """
        if not self.local:
            self._put_new_object(path, data)
            return
        temporary = self.path("tmp", uuid.uuid4().hex)
        self.put(temporary, data)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            os.link(temporary, path)
        finally:
            Path(temporary).unlink()

    def _put_new_object(self, path: str, data: bytes) -> None:
        try:
            self.fs.pipe_file(path, data, mode="create")
        except OSError as error:  # servers word a refusal differently, and may refuse a write of ours sent twice
            if not self.fs.exists(path):
                raise
            if self.fs.cat_file(path) != data:
                raise FileExistsError(path) from error

    def sweep(self, age: float) -> int:
        """Remove what killed writers left half written more than age seconds ago; returns how many files."""
        if not self.local:
            return 0
        swept = 0
        for path in Path(self.path("tmp")).glob("*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - age:
                    path.unlink()
                    swept += 1
        return swept

    @as_os_error
    def get(self, path: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError."""
        return cast(bytes, self.fs.cat_file(path))

    @as_os_error
    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return bool(self.fs.exists(path))

    @as_os_error
    def names(self, folder: str) -> list[str]:
        """The names of what lies in a folder at the store's root, sorted: one listing."""
        try:
            return sorted(path.rpartition("/")[2] for path in self.fs.ls(self.path(folder), detail=False, refresh=True))
        except FileNotFoundError:
            return []

    @as_os_error
    def find(self, *names: str) -> dict[str, int]:
        """The bytes of all files under a folder, by their paths from the store's root, sorted."""
        found = self.fs.find(self.path(*names), detail=True)
        return {self.relative(path): int(found[path]["size"]) for path in sorted(found)}

    @as_os_error
    def age(self, path: str) -> float:
        """Seconds since a file was written. Raises FileNotFoundError."""
        return time.time() - float(self.fs.modified(path).timestamp())

    @as_os_error
    def remove(self, path: str) -> None:
        """Remove a file; harmless if there is none."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(path)


def _with_folder(path: Path, act: Callable[[], Result]) -> Result:
    """What act answers, which writes to path; its folder is made if it is the first there."""
    try:
        return act()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return act()
