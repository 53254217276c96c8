"""Images that lie in the entries of a file themselves: as bytes in Parquet, or as base64 in JSON (`data:`, RFC 2397).

A sample is read by the place of its image. So such images are copied, when the entries are read, to one file beside the
table of samples. (`datasets` copies Parquet files in the same way, because Parquet has no places of single values.)
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import uuid
from pathlib import Path
from types import TracebackType
from typing import IO

from strata.data.sources.entries import EntryError

MOST_BYTES = 64 * 2**20  # of an image that is in its entry
_HEAD = b"images\n"  # so that no image is at offset 0, where a whole file would be meant
_PLACE = re.compile(r"^(.*)#bytes=(\d+)\+(\d+)$", re.DOTALL)


def decoded_url(url: str) -> bytes:
    """The bytes of a `data:` URL. Raises EntryError if it is not base64, or too long."""
    head, comma, data = url.partition(",")
    if not comma or not head.rstrip().lower().endswith(";base64"):
        raise EntryError("its image is in the entry itself (data:), but not as base64")
    if len(data) > MOST_BYTES * 4 // 3 + 4:
        raise EntryError(f"its image in the entry itself has more than {MOST_BYTES:,} bytes")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise EntryError("its image is in the entry itself (data:), but its base64 is damaged") from None


def place_of(uri: str) -> tuple[str, int, int]:
    """The file of a URI FILE#bytes=OFFSET+SIZE, the offset and the size; any other URI with 0 and 0: a whole file."""
    match = _PLACE.match(uri)
    return (match[1], int(match[2]), int(match[3])) if match else (uri, 0, 0)


class ImagesInside:
    """Writes the file with the images of entries; a context manager. Without an image there is no file.

    It is written under another name and renamed at the end, so that it is complete or absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._file: IO[bytes] | None = None
        self._temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")

    def add(self, image: bytes) -> str:
        """Append an image; return its URI FILE#bytes=OFFSET+SIZE."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
            self._file.write(_HEAD)
        offset = self._file.tell()
        self._file.write(image)
        return f"{self.path}#bytes={offset}+{len(image)}"

    def __enter__(self) -> ImagesInside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            if error is None:
                self._temporary.rename(self.path)
            self._temporary.unlink(missing_ok=True)
