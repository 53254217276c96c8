"""The images that the arguments of `strata caption` mean: files, folders, globs, URLs, and `-` for stdin."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from strata.cli.terminal import stdin

MAX_LIST = 64 * 2**20  # bytes of a list of paths on stdin, and of an image
STDIN = "-"


@dataclass(frozen=True)
class Target:
    """One image: a file, a URL, or the bytes of stdin. name: as it is shown."""

    name: str
    image: Path | str | bytes

    @property
    def path(self) -> Path | None:
        """Its file, if it has one."""
        return self.image if isinstance(self.image, Path) else None


def checked_arguments(arguments: list[str]) -> list[str]:
    """The arguments. Raises BadParameter for one that names nothing."""
    for argument in arguments:
        if argument == STDIN or _is_url(argument) or os.path.lexists(argument):
            continue
        if _has_scheme(argument):
            raise typer.BadParameter(f"{argument!r}: the address of an image begins with http:// or https://")
        if not glob.has_magic(argument):
            raise typer.BadParameter(f"Path {argument!r} does not exist.")
    return arguments


def targets_of(arguments: Iterable[str]) -> list[Target]:
    """The images in the order of the arguments. Raises InvalidInput for an argument without images."""
    return [target for argument in arguments for target in _of_argument(argument)]


def _of_argument(argument: str) -> Iterator[Target]:
    from strata.errors import InvalidInput
    from strata.shards.local_folders import files_of_glob, images_below

    if argument == STDIN:
        yield from _of_stdin()
        return
    path = Path(argument)
    if _has_scheme(argument) and not os.path.lexists(argument):  # the service says which ones it fetches
        yield Target(argument, _quoted(argument))
    elif os.path.isdir(path):  # noqa: PTH112 - pathlib raises an error for a name that is too long
        images = images_below(path)
        if not images:
            raise InvalidInput(f"{argument}: no images in this folder")
        yield from (Target(str(image), image) for image in images)
    elif os.path.lexists(path) or not glob.has_magic(argument):
        yield Target(argument, path)  # a file that is missing is reported when it is its turn
    else:
        files = files_of_glob(argument)  # a pattern with quotes around it, which the shell has not expanded
        if not files:
            raise InvalidInput(f"{argument}: no file has such a name")
        yield from (Target(str(file), file) for file in files)


def _of_stdin() -> Iterator[Target]:
    """The image on stdin, or those of its list of paths and URLs: one in each line, or between zero bytes."""
    from strata.errors import InvalidInput
    from strata.shards.kinds import MAGIC_BYTES, is_image

    data = stdin().buffer.read(MAX_LIST + 1)
    if len(data) > MAX_LIST:
        raise InvalidInput(f"stdin has more than {MAX_LIST:,} bytes")
    if is_image(data[:MAGIC_BYTES]):
        yield Target(STDIN, data)
        return
    names = [os.fsdecode(name) for name in (data.split(b"\0") if b"\0" in data else data.splitlines()) if name]
    # an image of a kind that is not known, rather than names that are missing
    binary = not _is_utf8(data) and not any(_is_url(name) or os.path.lexists(name) for name in names)
    if not names or binary:
        raise InvalidInput("stdin has neither an image nor a list of paths")
    for name in names:
        if name == STDIN:
            raise InvalidInput("a list on stdin cannot name stdin")
        yield from _of_argument(name)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(url: str) -> str:
    """A URL in which the bytes that are not UTF-8 are percent-encoded."""
    return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", url)


def _has_scheme(argument: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", argument) is not None


def _is_url(argument: str) -> bool:
    return argument.lower().startswith(("http://", "https://"))
