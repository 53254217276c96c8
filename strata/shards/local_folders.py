"""Files of a folder, as `index_shard` finds them, and of a glob: for commands that send images of this machine."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from strata.shards.globs import Glob
from strata.shards.kinds import IMAGE_EXTENSIONS, extension_of, is_hidden


def images_below(folder: Path) -> list[Path]:
    """The images of a folder and its sub-folders by their extensions, sorted by name, without hidden files and links.

    Raises OSError if the folder cannot be listed; a sub-folder that cannot is an error too, and not passed over.
    """
    found: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        place = os.path.relpath(parent, folder)
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [os.path.normpath(f"{place}/{name}") for name in files if extension_of(name) in IMAGE_EXTENSIONS]
    images = [folder / name for name in sorted(found) if not is_hidden(name)]
    return [image for image in images if image.is_file() and not image.is_symlink()]


def files_of_glob(pattern: str) -> list[Path]:
    """The files that a glob names, sorted, in which `**` stands for any number of folders.

    What programs hide is found only by a segment that is written so, as for `Glob`. Below a `**` links are passed over,
    and a folder that cannot be listed raises OSError, as in `images_below`; else both are as in a shell.
    """
    segments = [segment for segment in pattern.split("/") if segment]
    found = _found(Path("/" if pattern.startswith("/") else "."), segments, walked=False)
    return [path for path in sorted(set(found), key=str) if path.is_file()]


def _found(folder: Path, segments: list[str], walked: bool) -> Iterator[Path]:
    """The paths below a folder that segments of a glob match. walked: a `**` stood before them."""
    first, *rest = segments
    if first == "**":
        while rest[:1] == ["**"]:
            del rest[0]
        yield from _found(folder, rest or ["*"], walked=True)
        for entry in _entries(folder, walked=True):
            if entry.is_dir() and not is_hidden(entry.name):
                yield from _found(folder / entry.name, segments, walked=True)
        return
    if walked or glob.has_magic(first):
        matching = Glob(first)
        found = [folder / entry.name for entry in _entries(folder, walked) if matching.lists(entry.name)]
    else:
        found = [folder / first]
    for path in found:
        if not rest:
            yield path
        elif path.is_dir():
            yield from _found(path, rest, walked)


def _entries(folder: Path, walked: bool) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not (walked and entry.is_symlink())]
    except OSError:
        if walked:
            raise
        return []


def _raise(error: OSError) -> None:
    raise error
