"""Getting an export back, from a hub or a storage: every file is checked, and the folder appears when all are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from strata.errors import InvalidInput, NotFound, RequestRefused
from strata.files import writing
from strata.publishing.checksums import SUMS, BadSums, parse_sums, sums_of, sums_text
from strata.publishing.storage import THREADS


class Place(Protocol):
    """Where an export lies: a `Storage` or a `HubDataset`."""

    name: str

    def sums(self) -> str | None:
        """The SHA256SUMS of a complete export; None if there is none."""

    def revision(self) -> str:
        """What is read, so that it can be named again."""

    def fetch(self, name: str, target: Path) -> None:
        """Read a file of the export to a local path, where its beginning may lie."""


def pull(place: Place, out: Path, advance: Callable[[int, int], object] = lambda done, total: None) -> int:
    """Get an export into a new folder; returns the number of its files, SHA256SUMS among them.

    advance: is called with how many files are there, and of how many.

    Files are written into the hidden folder `.NAME.partial` beside it; a later pull goes on there. Raises InvalidInput
    if the folder exists, NotFound without a complete export, BadSums for a file that arrives changed, and OSError.
    """
    if out.exists():
        raise InvalidInput(f"{out} exists already: an export is pulled into a new folder")
    text = place.sums()
    if text is None:
        raise NotFound(f"{place.name} has no {SUMS}: there is no export, or its push has not ended")
    sums = parse_sums(text)
    folder = out.absolute().with_name(f".{out.name}.partial")
    _tidy(folder, sums)
    folder.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        _fetch(place, folder, name, sums[name])

    with writing(out):
        with ThreadPoolExecutor(THREADS) as pool:
            for done, _ in enumerate(pool.map(one, sums), 1):
                advance(done, len(sums))
        (folder / SUMS).write_text(sums_text(sums), encoding="utf-8")
    folder.rename(out)
    return len(sums) + 1


def _tidy(folder: Path, sums: Mapping[str, str]) -> None:
    """Remove from the folder of an earlier pull what is not of this export.

    That is: other files, links, through which a file would be written elsewhere, and empty folders.
    """
    if folder.is_symlink():
        folder.unlink()
    for place, folders, files in os.walk(folder, topdown=False):
        for path in (Path(place, name) for name in [*files, *folders]):
            if path.is_symlink() or (path.is_file() and path.relative_to(folder).as_posix() not in sums):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _fetch(place: Place, folder: Path, name: str, digest: str) -> None:
    target = folder / name
    if target.is_file() and sums_of(folder, [name])[name] == digest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # what lies there may be the beginning of this file, or of another one of the same name
    if target.is_file():
        with suppress(RequestRefused):
            place.fetch(name, target)
        if sums_of(folder, [name])[name] == digest:
            return
        target.unlink()
    place.fetch(name, target)
    if sums_of(folder, [name])[name] != digest:
        target.unlink()
        raise BadSums(f"{place.name}: {name} does not have the checksum of {SUMS}")
