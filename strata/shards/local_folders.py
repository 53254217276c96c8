"""The images in a folder of this machine, as `index_shard` finds them: for commands that send images themselves."""

from __future__ import annotations

import os
from pathlib import Path

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


def _raise(error: OSError) -> None:
    raise error
