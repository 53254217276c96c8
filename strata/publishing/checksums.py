"""`SHA256SUMS`: the checksum of every file of a folder, in the form that `sha256sum -c` reads."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from strata.errors import DataError

SUMS = "SHA256SUMS"
CARD = "README.md"
NOTES = ".strata-push"  # the folder of a push's notes, at the place that is pushed to
THREADS = 4  # files that are hashed at a time
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class BadSums(DataError):
    """A file of checksums cannot be used, or a file does not have its checksum. The message is one line."""


def files_of(folder: Path) -> list[str]:
    """The files below a folder, as sorted paths with `/`, without SHA256SUMS. Raises OSError."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path != SUMS)


def sums_of(folder: Path, names: list[str], advance: Callable[[int], object] = lambda size: None) -> dict[str, str]:
    """The SHA-256 of files of a folder, by their paths. advance: is called with the bytes of each. Raises OSError."""

    def one(name: str) -> str:
        path = folder / name
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        advance(path.stat().st_size)
        return digest

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def sums_text(sums: Mapping[str, str]) -> str:
    """Checksums by path as the content of SHA256SUMS."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def parse_sums(text: str) -> dict[str, str]:
    """The checksums by path of a file SHA256SUMS.

    Raises BadSums: for a line of another form, for a path that leads out of the folder on some system (`is_inside`) or
    that is ours, and for two paths that are one file where upper and lower case are the same, or of which one would be
    a folder of the other.
    """
    sums: dict[str, str] = {}
    folders, files = set[str](), {folded(SUMS)}
    for line in text.split("\n"):
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if found is None or not is_inside(found[2]):
            raise BadSums(f"{SUMS} has a line that cannot be used: {line[:120]!r}")
        place = folded(found[2])
        above = {place[: at.start()] for at in re.finditer("/", place)}
        if place in files or place in folders or above & files or NOTES in above:
            raise BadSums(f"{SUMS} has a path that another one is in the way of: {found[2][:120]!r}")
        files.add(place)
        folders |= above
        sums[found[2]] = found[1]
    return sums


def folded(name: str) -> str:
    """What is equal for paths that are one file where case does not count; "é" may be one character or two there."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def is_inside(name: str) -> bool:
    """Whether a path with `/` names a file below a folder, on every system, and the same one on each.

    Windows takes `\\` for a separator and `:` for a drive or a stream, and drops a dot or a blank at the end of a name.
    """
    if any(unicodedata.category(one) == "Cc" for one in name) or "\\" in name or ":" in name:
        return False
    return not any(not piece or piece.endswith((".", " ")) for piece in name.split("/"))
