"""Files of this machine that a person names: how they are opened and written, and how their names are told."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# what only writing meets: no space, a quota, a file that grows too large, a disk that takes nothing
_OF_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises OSError, also for a pipe, a device and a socket, which may have no end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "neither a regular file nor a folder", str(path))
    return path.open("rb")  # of a folder this is the system's own error


def is_of_writing(error: BaseException) -> bool:
    """Whether an error is the system's for a disk that takes no more bytes."""
    return isinstance(error, OSError) and error.errno in _OF_WRITING


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Within the block a file, or files of a folder, are written: an error of a full disk gets the path as its file.

    The system names the file of an error when it is opened, and not when it is written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None or not is_of_writing(error):
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def valid_name(name: str) -> str:
    """A name that UTF-8 and JSON can hold: its bytes that are not UTF-8 are replaced by question marks."""
    return name.encode("utf-8", "replace").decode()
