"""The lock of a shard's folder: who has it may bundle its parts, or take a bundle apart.

The lock is a file in the folder that plain Parquet readers take for one of Parquet, and stop at with an error. While it
is there the folder has rows twice, which they would not notice otherwise. Its name is sorted after all others, so that
it is listed last: a listing that has a bundle and not the lock was made before or after all of it. Readers that know
bundles need no lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from strata.errors import Conflict
from strata.store.filesystem import Files
from strata.store.part_paths import LOCK

LOCK_SECONDS = 600.0  # after which the holder of a lock in a bucket gives up; after twice the time another takes it
TEXT = "Strata is bundling the Parquet files of this folder. If this file stays, `strata compact --yes` removes it. "


class Busy(Conflict, OSError):
    """Another process bundles these parts now."""

    def __init__(self, folder: str) -> None:
        super().__init__(errno.EBUSY, f"the parts in {folder} are being bundled by another process")


@contextmanager
def folder_lock(files: Files, folder: str) -> Iterator[Callable[[], None]]:
    """A block in which this process alone bundles the parts of a folder. Raises Busy and OSError.

    folder: relative to the store's root. Yields a function to call before parts are removed; it raises Busy if the lock
    was lost. The lock of a process that has died passes to the next one; that stays in a folder if the block fails.
    """
    with _file_lock(files, folder) if files.local else _object_lock(files, folder) as check:
        yield check
        files.remove(files.path(folder, LOCK))


@contextmanager
def _file_lock(files: Files, folder: str) -> Iterator[Callable[[], None]]:
    """By a lock of the system, which ends with its process."""
    path = Path(files.path(folder, LOCK))
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(folder) from None
            # another holder may have removed the file in between
            if _is_at(file, path):
                os.pwrite(file, TEXT.encode(), 0)
                yield lambda: None
                return
        finally:
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _object_lock(files: Files, folder: str) -> Iterator[Callable[[], None]]:
    """By a file that is written once. A holder gives up long before another one may take the lock from it."""
    path, token = files.path(folder, LOCK), f"{TEXT}{secrets.token_hex(16)}".encode()
    ends = time.monotonic() + LOCK_SECONDS
    with suppress(FileNotFoundError):
        if files.exists(path) and files.age(path) > 2 * LOCK_SECONDS:
            files.remove(path)
    try:
        files.put_new(path, token)
    except FileExistsError:
        raise Busy(folder) from None

    def check() -> None:
        with suppress(FileNotFoundError):
            if time.monotonic() < ends and files.get(path) == token:
                return
        raise Busy(folder)

    yield check
