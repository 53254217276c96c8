"""A file system `faulty://PATH` in a local folder whose calls fail while the harness says so.

It behaves as a bucket does: a file appears when it is complete, and folders need not be created.
"""

from __future__ import annotations

import errno
import functools
import os
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from bench.faults.orders import Orders

STORE_FLAKY, DISK_FULL = "store_flaky", "disk_full"  # states of `Orders`
_READS = ("cat_file", "info", "ls", "exists", "find", "modified", "rm_file", "rm", "mv", "cp_file", "_open")
_WRITES = ("pipe_file", "put_file")


class FaultyFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A local file system that is away or full at times."""

    protocol = ("faulty",)

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "auto_mkdir": True})
        self._orders = Orders.from_environment()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return super()._strip_protocol(str(path).removeprefix("faulty://"))

    def unstrip_protocol(self, name: str) -> str:
        """The URI of a path."""
        return f"faulty://{self._strip_protocol(name)}"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write a file completely or not at all."""
        target = Path(self._strip_protocol(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        temporary.write_bytes(value)
        try:
            if mode == "create":
                os.link(temporary, target)
            else:
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _may_fail(self, writes: bool) -> None:
        if self._orders is None:
            return
        if writes and self._orders.holds(DISK_FULL):
            self._orders.meet(DISK_FULL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._orders.holds(STORE_FLAKY) and random.random() < 0.5:  # of the process; no seed decides it
            self._orders.meet(STORE_FLAKY)
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _failing(name: str, writes: bool) -> Callable[..., Any]:
    real = getattr(FaultyFileSystem, name)

    @functools.wraps(real)
    def call(self: FaultyFileSystem, *args: Any, **kwargs: Any) -> Any:
        self._may_fail(writes)
        return real(self, *args, **kwargs)

    return call


for _name in _READS:
    setattr(FaultyFileSystem, _name, _failing(_name, writes=False))
for _name in _WRITES:
    setattr(FaultyFileSystem, _name, _failing(_name, writes=True))
