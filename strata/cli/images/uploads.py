"""`strata submit --upload`: images of this machine are sent to the service, then a job describes them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strata.cli.images.targets import targets_of
from strata.cli.terminal import steps
from strata.errors import InvalidInput
from strata.files import valid_name

if TYPE_CHECKING:
    from strata.client import Client
    from strata.core import JobView


def submit_images(client: Client, arguments: Iterable[str], **options: Any) -> tuple[JobView, int]:
    """Send the images that the service lacks and submit a job over all; returns it, and how many were left out.

    arguments: files, folders and globs. A text beside an image is its alt text, as in a shard that is a folder. Each
    image that cannot be used is told on stderr. options: as of `Client.submit`. Raises InvalidInput if nothing is left.
    """
    from strata.client.bulk import send_images
    from strata.core import MAX_UPLOADS
    from strata.counts import counted

    names = _named(arguments)
    if len(names) > MAX_UPLOADS:
        raise InvalidInput(f"{len(names):,} images; one job takes {MAX_UPLOADS:,}: submit sub-folders one by one")
    with steps() as show:
        sent = send_images(client, list(names), show)
    for file, reason in sent.refused.items():
        _tell(f"{file}: {reason}")
    if not sent.digests:
        raise InvalidInput("none of the images can be described")
    kept = len(sent.digests) - sent.new
    _tell(f"{counted(sent.new, 'image')} sent, {kept} known, {len(sent.refused)} left out")
    alt_texts = [_alt_text(file) for file in sent.digests]
    images = [(digest, names[file]) for file, digest in sent.digests.items()]
    return client.submit_uploads(images, alt_texts if any(alt_texts) else None, **options), len(sent.refused)


def _named(arguments: Iterable[str]) -> dict[Path, str]:
    """The files, each with the name from which its key is made: of a folder's images the path within the folder."""
    names: dict[Path, str] = {}
    for argument in arguments:
        folder = Path(argument) if Path(argument).is_dir() else None
        for target in targets_of([argument]):
            if target.path is None:
                raise InvalidInput(f"--upload: {target.name} is no file; URLs and stdin are for `strata caption`")
            name = target.path.relative_to(folder).as_posix() if folder is not None else target.path.name
            names.setdefault(target.path, valid_name(name))
    return names


def _alt_text(image: Path) -> str | None:
    """The text of a file beside the image, by the rules of a shard that is a folder."""
    from strata.shards.captions import TEXT_FILES

    for extension, read, most in TEXT_FILES:
        beside = image.with_name(f"{image.stem}.{extension}")
        try:
            if not beside.is_symlink() and beside.is_file():
                with beside.open("rb") as file:
                    found = read(file.read(most + 1)).text
                if found:
                    return found
        except OSError:
            continue  # an image whose text cannot be read is described without it
    return None


def _tell(line: str) -> None:
    from strata.cli.rendering.records import clean

    print(f"strata: {clean(line)}", file=sys.stderr, flush=True)
