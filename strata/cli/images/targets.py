"""The images that the arguments of `strata caption` mean: files, folders, globs, URLs, and `-` for stdin."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

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
        known = argument == STDIN or _is_url(argument) or os.path.lexists(argument) or glob.has_magic(argument)
        if not known:
            raise typer.BadParameter(f"Path {argument!r} does not exist.")
    return arguments


def targets_of(arguments: Iterable[str]) -> list[Target]:
    """The images in the order of the arguments. Raises InvalidInput for an argument without images."""
    return [target for argument in arguments for target in _of_argument(argument)]


def _of_argument(argument: str) -> Iterator[Target]:
    from strata.errors import InvalidInput
    from strata.shards.local_folders import images_below

    if argument == STDIN:
        yield from _of_stdin()
        return
    path = Path(argument)
    if _is_url(argument):
        yield Target(argument, argument)
    elif path.is_dir():
        images = images_below(path)
        if not images:
            raise InvalidInput(f"{argument}: no images in this folder")
        yield from (Target(str(image), image) for image in images)
    elif path.exists() or not glob.has_magic(argument):
        yield Target(argument, path)  # a file that is missing is reported when it is its turn
    else:
        # a pattern with quotes around it, which the shell has not expanded
        # pathlib's own globs fail for patterns that begin with a root or end with **
        files = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207
        files = [file for file in files if file.is_file()]
        if not files:
            raise InvalidInput(f"{argument}: no file has such a name")
        yield from (Target(str(file), file) for file in files)


def _of_stdin() -> Iterator[Target]:
    """The image on stdin, or those of its list of paths and URLs: one in each line, or between zero bytes."""
    from strata.errors import InvalidInput
    from strata.shards.kinds import MAGIC_BYTES, is_image

    data = sys.stdin.buffer.read(MAX_LIST + 1)
    if len(data) > MAX_LIST:
        raise InvalidInput(f"stdin has more than {MAX_LIST:,} bytes")
    if is_image(data[:MAGIC_BYTES]):
        yield Target(STDIN, data)
        return
    names = [os.fsdecode(name) for name in (data.split(b"\0") if b"\0" in data else data.splitlines()) if name]
    if not names:
        raise InvalidInput("stdin has neither an image nor a list of paths")
    for name in names:
        if name == STDIN:
            raise InvalidInput("a list on stdin cannot name stdin")
        yield from _of_argument(name)


def _is_url(argument: str) -> bool:
    return argument.lower().startswith(("http://", "https://"))
