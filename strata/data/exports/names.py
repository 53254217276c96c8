"""File names of exported samples: any key becomes a name that every file system and every reader of tars takes.

Where a name differs from its key, a table beside the export says which key it stands for.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import IO

from strata.shards import Keys

TABLE = "_names.jsonl"  # a line {"key": …, "file": …} for each sample whose name is not its key
MAX_NAME_BYTES = 200  # a file system allows 255 in UTF-8, with the extension
# what Windows forbids in names; a webdataset ends a key at the first dot
_FORBIDDEN = re.compile(r'[./\\<>:"|?*\x00-\x1f\x7f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)


def file_name(key: str) -> str:
    """A key as the name of a file without extension; two keys may give the same name."""
    name = _FORBIDDEN.sub("_", Keys.clean(unicodedata.normalize("NFC", key))).strip() or "_"
    # `datasets` passes over files that begin with two underscores; a hyphen begins an option of many commands
    if _DEVICES.fullmatch(name) or name.startswith(("__", "-")):
        name = f"x{name}"
    return _shortened(name)


def _shortened(name: str, end: str = "") -> str:
    """A name of at most MAX_NAME_BYTES, with something at its end."""
    return name.encode()[: MAX_NAME_BYTES - len(end.encode())].decode(errors="ignore") + end


class Names:
    """Gives each key of a folder or tar a name of its own, also where upper and lower case are the same."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._numbers: dict[str, int] = {}  # the last number that a name got

    def of(self, key: str) -> str:
        """The name for a key that comes next."""
        wanted = file_name(key)
        name, number = wanted, self._numbers.get(_folded(wanted), 1)
        while _folded(name) in self._used:
            number += 1
            name = _shortened(wanted, f"-{number}")
        self._numbers[_folded(wanted)] = number
        self._used.add(_folded(name))
        return name


def _folded(name: str) -> str:
    """What is equal for names that are one file where case does not count; "é" may be one character or two there."""
    return unicodedata.normalize("NFC", name.casefold())


class NameTable:
    """Writes the table of an export if a name differs from its key. A context manager, which may be entered again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / TABLE
        self._file: IO[str] | None = None

    def note(self, key: str, name: str, file: str) -> None:
        """Note a sample's file, if its name differs from its key."""
        if key == name:
            return
        self._file = self._file or self._path.open("a", encoding="utf-8")
        self._file.write(json.dumps({"key": key, "file": file}, ensure_ascii=False) + "\n")

    def __enter__(self) -> NameTable:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
