"""The append-only file of the embedded server: whether its parts are there, and how it is set aside.

Since Redis 7 it is a folder with a base, which is a snapshot, parts with the commands since then, and a manifest that
names them. A server that finds no manifest, or an empty base, starts with what the rest has and may overwrite files, so
that this is checked before it starts. The server itself finds all other damage when it reads the files, except a
changed byte in a command, because commands have no checksum. So the hashes of all files, the seal, are written when a
server has been stopped, and compared before the next start; after a crash there is no seal.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_FOLDER = "appendonlydir"  # a server moves the one file of Redis 6 there when it starts
_MANIFEST = "appendonly.aof.manifest"
_SEAL = "strata-hashes.json"
_LINE = re.compile(r"file (?P<name>[^\s\"/]+) seq \d+ type (?P<type>[bhi])(?: startoffset \d+)?(?: endoffset \d+)?")


def fault_of(folder: Path) -> str:
    """What is wrong with the manifest or the files that it names, in one line, or "". folder: the server's."""
    parts = folder / _FOLDER
    try:
        if not parts.exists() or (parts.is_dir() and not any(parts.iterdir())):
            return ""
        if not (parts / _MANIFEST).is_file():
            return f"{_MANIFEST} is not a file"
        return _fault_of_manifest(parts) or _fault_by_seal(parts)
    except OSError as error:
        return f"{parts}: {error.strerror}"


def _fault_of_manifest(parts: Path) -> str:
    text = (parts / _MANIFEST).read_text(encoding="utf-8", errors="replace")
    lines = [_LINE.fullmatch(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    files = [(parts / line["name"], line["type"]) for line in lines if line]
    bases = [path for path, kind in files if kind == "b"]
    if None in lines or len(bases) != 1 or all(kind != "i" for _, kind in files):
        return f"{_MANIFEST} is not complete"
    # of history nothing is read; it may be deleted already
    if missing := [path.name for path, kind in files if kind != "h" and not path.is_file()]:
        return f"{missing[0]} is not a file"
    # unlike the commands, a snapshot is never empty
    return "" if bases[0].stat().st_size else f"{bases[0].name} is empty"


def _fault_by_seal(parts: Path) -> str:
    with suppress(FileNotFoundError, ValueError):  # without a seal that can be read, there is nothing to compare
        sealed = json.loads((parts / _SEAL).read_text(encoding="utf-8"))
        found = _hashes(parts)
        if isinstance(sealed, dict) and sealed != found:
            changed = sorted(name for name in sealed.keys() | found.keys() if sealed.get(name) != found.get(name))
            return f"{changed[0]} has changed since the server was stopped"
    return ""


def _hashes(parts: Path) -> dict[str, str]:
    found = {}
    for path in parts.glob("appendonly.aof.*"):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def seal(folder: Path) -> None:
    """Note the hashes of all files. Call it when the server has stopped. Raises OSError."""
    parts = folder / _FOLDER
    if parts.is_dir():
        (parts / _SEAL).write_text(json.dumps(_hashes(parts)), encoding="utf-8")


def unseal(folder: Path) -> None:
    """Remove the seal. Call it before the server starts, which changes the files. Raises OSError."""
    with suppress(NotADirectoryError):
        (folder / _FOLDER / _SEAL).unlink(missing_ok=True)


def set_aside(folder: Path) -> Path | None:
    """Rename the append-only file; its new path, or None if there is none. Raises OSError."""
    parts = folder / _FOLDER
    if not parts.exists():
        return None
    target = folder / f"{_FOLDER}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    parts.rename(target)
    return target


def put_back(folder: Path, aside: Path) -> None:
    """Undo `set_aside`. What a server has begun meanwhile gets another name. Raises OSError."""
    if (folder / _FOLDER).exists():
        (folder / _FOLDER).rename(f"{aside}.begun")
    aside.rename(folder / _FOLDER)
