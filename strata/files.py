"""Files of this machine that a person names: how they are opened, and how their names are told."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises OSError, also for a pipe, a device and a socket, which may have no end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "neither a regular file nor a folder", str(path))
    return path.open("rb")  # of a folder this is the system's own error


def valid_name(name: str) -> str:
    """A name that UTF-8 and JSON can hold: its bytes that are not UTF-8 are replaced by question marks."""
    return name.encode("utf-8", "replace").decode()
