"""Progress: the rows of a chunk that a worker had computed when its work on it ended early, for the next holder.

It lies beside the parts and is no part: nobody but the next holder reads it, and it is removed with the chunk's end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress

from pydantic import BaseModel

from strata.core import Chunk, Record
from strata.store.filesystem import Files

FOLDER = "progress"
_PATH = re.compile(r"progress/[a-z]+/[0-9a-f]+/[^/]+/\d+(\.\d+)?\.json", re.ASCII)
LISTED_SECONDS = 1.0  # for which a listing of a shard's progress is believed
LIFETIME_SECONDS = 7 * 86_400.0  # after it, progress that nobody has asked for is removed


class Progress(BaseModel):
    """The content of a file: records by the number of their row in the chunk."""

    rows: dict[int, Record]


def write_progress(store: Files, chunk: Chunk, rows: Mapping[int, Record]) -> None:
    """Keep computed rows. Raises OSError, and ValueError for text that is not Unicode."""
    store.put(_path(store, chunk), Progress(rows=dict(rows)).model_dump_json().encode())


def read_progress(store: Files, chunk: Chunk) -> dict[int, Record]:
    """The rows that are kept; none if there is no file. Raises OSError."""
    try:
        return Progress.model_validate_json(store.get(_path(store, chunk))).rows
    # a file of another version, or damaged: the rows are computed again
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return {}


class ProgressListing:
    """Says whether rows of a chunk are kept, by one listing of a shard's folder a second and not a read for each chunk.

    So what another process has kept within the last second may be missed.
    """

    def __init__(self, store: Files) -> None:
        self._store = store
        self._names: dict[str, tuple[float, frozenset[str]]] = {}  # by folder: until when they are believed

    def has(self, chunk: Chunk) -> bool:
        """Whether the chunk has rows that are kept. Raises OSError."""
        folder, now = _folder(chunk), time.monotonic()
        until, names = self._names.get(folder, (0.0, frozenset[str]()))
        if now >= until:
            names = frozenset(self._store.names(folder, ""))
            # most chunks follow others of their shard
            self._names = {folder: (now + LISTED_SECONDS, names)}
        return f"{chunk.name}.json" in names


def remove_progress(store: Files, chunk: Chunk) -> None:
    """Remove the rows that were kept, because the chunk has ended; `sweep_progress` removes what is left."""
    with suppress(OSError):
        store.remove(_path(store, chunk))


def sweep_progress(store: Files) -> int:
    """Remove progress that nobody has asked for. Returns the number of files. Raises OSError."""
    removed = 0
    for path in (store.path(found) for found in store.find(FOLDER) if _PATH.fullmatch(found)):
        # another process may remove the file at the same time
        with suppress(FileNotFoundError):
            if store.age(path) > LIFETIME_SECONDS:
                store.remove(path)
                removed += 1
    return removed


def _path(store: Files, chunk: Chunk) -> str:
    return store.path(_folder(chunk), f"{chunk.name}.json")


def _folder(chunk: Chunk) -> str:
    return f"{FOLDER}/{chunk.group}/{chunk.fingerprint}/{chunk.identity}"
