"""Hashes of files, with a note beside the files that spares the next process from reading them."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

NOTE = "strata-hashes.json"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Hashes:
    """The hashes of the files of a folder. A file is read again when its size, time of change or inode differs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NOTE
        self._noted: dict[str, Any] = {}
        # without a note that can be read, everything is read
        with suppress(OSError, ValueError):
            noted = json.loads(self._path.read_text(encoding="utf-8"))
            self._noted = noted if isinstance(noted, dict) else {}

    def match(self, path: Path, expected: str) -> bool:
        """Whether a file of the folder has a SHA-256. Raises OSError."""
        if self.of(path) == expected:
            return True
        # only the file itself tells that it is damaged; the note may be that of another file with the same mark
        found = sha256_of(path)
        self._noted.pop(path.name, None)
        return found == expected

    def of(self, path: Path, known: str = "") -> str:
        """The SHA-256 of a file of the folder, in hex. known: it, if it was just read. Raises OSError."""
        info = path.stat()
        mark = [info.st_size, info.st_mtime_ns, info.st_ino]
        noted = self._noted.get(path.name)
        if isinstance(noted, list) and noted[:-1] == mark:
            return str(noted[-1])
        found = known or _read(path, *mark)
        self._noted[path.name] = [*mark, found]
        self._write()
        return found

    def _write(self) -> None:
        # the folder may be read-only: then the next process reads the files again
        with suppress(OSError):
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False, encoding="utf-8") as file:
                json.dump(self._noted, file)
            Path(file.name).chmod(0o644)  # workers may run as other users
            Path(file.name).replace(self._path)


@functools.lru_cache(maxsize=1000)
def _read(path: Path, size: int, changed: int, inode: int) -> str:
    """The hash of a file with this size, time and inode; in a process it is read once."""
    return sha256_of(path)
