"""The images of described rows, read and decoded some at a time, while those before them are computed."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from strata.core import ImageReference, Status
from strata.images import ImageError, decode, shrunk
from strata.shards import ImageReader, SourceError
from strata.store import Store, is_transient, reason_of

AT_ONCE = 16  # images in memory, and as many that are read ahead
Rows = Sequence[Mapping[str, Any]]


class FileAway(Exception):
    """The images of a part cannot be read now, and no image is at fault: their file is away, or it is another one."""


class PartImages:
    """Reads the images of a part's rows. max_pixels: of an image that is decoded."""

    def __init__(self, store: Store, max_pixels: int) -> None:
        self._reader = ImageReader(store)
        self._decode = functools.partial(_decoded, max_pixels=max_pixels)

    def of(self, rows: Rows, identity: str) -> Iterator[list[Image.Image | Exception]]:
        """The images in order, some at a time, each as a stage sees it, or why there is none.

        rows: with `status` and `image`; an image whose row has failed is not read again. identity: of their shard.
        Raises FileAway if the shard is another one than was described, if an image cannot be read now and may be later,
        or if not one can be read; OSError if the store is away.
        """
        self._verify(rows, identity)
        portions = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
        errors: list[Exception] = []
        readable = 0
        with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(os.cpu_count()) as pool:
            coming = ahead.submit(self._read, portions[0], pool) if portions else None
            for following in (*portions[1:], None):
                if coming is None:
                    return
                images, there, faults = coming.result()
                coming = ahead.submit(self._read, following, pool) if following is not None else None
                errors += faults
                readable += there - len(faults)
                if errors and not readable and coming is None:
                    raise FileAway(f"no image can be read: {_line(errors[0])}")
                yield images

    def _verify(self, rows: Rows, identity: str) -> None:
        """Raise FileAway if a tar is not the one that was described: other images would lie at these places."""
        for uri in dict.fromkeys(row["image"]["uri"] for row in rows if row["image"]["offset"]):
            try:
                self._reader.verify(uri, identity)
            except (SourceError, OSError) as error:
                raise FileAway(reason_of(error)) from error

    def _read(self, rows: Rows, pool: ThreadPoolExecutor) -> tuple[list[Image.Image | Exception], int, list[Exception]]:
        """The images of some rows, the number of those that were asked for, and why some of these cannot be read."""
        asked = [row for row in rows if row["status"] != Status.FAILED.value]
        data = self._reader.read([ImageReference(**row["image"]) for row in asked])
        faults = [one for one in data if isinstance(one, Exception)]
        for fault in faults:
            if is_transient(fault):
                raise FileAway(f"an image cannot be read now: {_line(fault)}")
        images = iter(pool.map(self._decode, data))  # decoding releases the interpreter's lock
        found = [
            next(images) if row["status"] != Status.FAILED.value else ValueError("its row has failed") for row in rows
        ]
        return found, len(asked), faults


def _decoded(data: bytes | Exception, max_pixels: int) -> Image.Image | Exception:
    """The image of a file's bytes as stages see it, or why there is none."""
    if isinstance(data, Exception):
        return data
    try:
        return shrunk(decode(data, max_pixels))
    except ImageError as error:
        return error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {reason_of(error)}"
