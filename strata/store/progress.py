"""Progress: the rows of a chunk that a worker had computed when its work on it ended early, for the next holder.

It lies beside the parts and is no part: nobody but the next holder reads it, and it is removed with the chunk's end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from pydantic import BaseModel

from strata.core import Chunk, Record
from strata.store.filesystem import Files

FOLDER = "progress"
_PATH = re.compile(r"progress/[a-z]+/[0-9a-f]+/[^/]+/\d+(\.\d+)?\.json", re.ASCII)
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
    return store.path(FOLDER, chunk.group, chunk.fingerprint, chunk.identity, f"{chunk.name}.json")
