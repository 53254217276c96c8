"""A store in which every call takes a while, as in a bucket: `slow:///FOLDER`, for tests and measurements.

The files lie in a folder. SLOW_STORE_SECONDS is the time of one call (0.05), SLOW_STORE_CALLS a folder in which each
process notes its calls, in a file named by its process id. `bench/plugins` registers the scheme in every process.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

SCHEME = "slow"


class Call(NamedTuple):
    """One call: its name, the path's first folder below the store, and its start and end by the wall clock."""

    process: int
    name: str
    folder: str
    start: float
    end: float


class SlowFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A local file system that behaves as a bucket does: whole objects appear at once, and each call takes a while."""

    protocol = SCHEME

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, auto_mkdir=True, **options)
        self.seconds = float(os.environ.get("SLOW_STORE_SECONDS", "0.05"))
        self.notes = os.environ.get("SLOW_STORE_CALLS")
        self._inside = threading.local()
        self._file: int | None = None

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write an object: other processes see all of it or nothing."""
        with self._call("put", path):
            target = Path(self._strip_protocol(path))
            if mode == "create" and target.exists():
                raise FileExistsError(str(target))
            temporary = target.with_name(f".{uuid.uuid4().hex}")
            try:
                temporary.write_bytes(value)
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(value)
            temporary.rename(target)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Read an object, or some of its bytes."""
        with self._call("get", path):
            found: bytes = super().cat_file(path, start=start, end=end, **options)
            return found

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open an object: a bucket is asked for its size, and then for the bytes that are read."""
        with self._call("info", path):
            pass
        with self._call("get", path):
            return super().open(path, mode, **options)

    def exists(self, path: str, **options: Any) -> bool:
        """Whether an object exists."""
        with self._call("exists", path):
            return bool(super().exists(path, **options))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """An object's size and times."""
        with self._call("info", path):
            found: dict[str, Any] = super().info(path, **options)
            return found

    def ls(self, path: str, detail: bool = False, **options: Any) -> list[Any]:
        """The objects of a folder, without those that are being written."""
        with self._call("list", path):
            found: list[Any] = super().ls(path, detail=detail, **options)
            return [one for one in found if "/." not in (one["name"] if detail else one)]

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        """All objects below a folder: one listing in a bucket."""
        with self._call("list", path):
            return super().find(path, *arguments, **options)

    def rm_file(self, path: str) -> None:
        """Remove an object."""
        with self._call("remove", path):
            super().rm_file(path)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove an object, or all of a folder."""
        with self._call("remove", path):
            super().rm(path, recursive, maxdepth)

    @contextmanager
    def _call(self, name: str, path: str) -> Iterator[None]:
        """Take the time of a call and note it; what fsspec calls within a call is a part of it."""
        if getattr(self._inside, "value", False):
            yield
            return
        self._inside.value = True
        start = time.time()
        try:
            time.sleep(self.seconds)
            yield
        finally:
            self._inside.value = False
            self._note(name, path, start)

    def _note(self, name: str, path: str, start: float) -> None:
        if self.notes is None:
            return
        # the folder below the store's root, which is named `store`
        folder = str(path).rpartition("/store/")[2].split("/")[:2]
        line = json.dumps([name, "/".join(folder[:2] if folder[0] == "parts" else folder[:1]), start, time.time()])
        # one write at the file's end is not mixed with that of another thread
        if self._file is None:
            self._file = os.open(Path(self.notes, str(os.getpid())), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(self._file, f"{line}\n".encode())


def calls_in(folder: Path) -> list[Call]:
    """The calls that the processes have noted in a folder, in the order of their starts."""
    found = [
        Call(int(file.name), *json.loads(line))
        for file in folder.iterdir()
        for line in file.read_text("utf-8").splitlines()
    ]
    return sorted(found, key=lambda call: call.start)


def chain(calls: list[Call]) -> int:
    """The greatest number of calls that came one after another: no two of them overlap in time."""
    # the well-known greedy rule of interval scheduling: always the call that ends first
    length, end = 0, 0.0
    for call in sorted(calls, key=lambda call: call.end):
        if call.start >= end:
            length, end = length + 1, call.end
    return length
