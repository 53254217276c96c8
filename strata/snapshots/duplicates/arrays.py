"""Arrays with a row for each picture, which may lie on disk: 3.3 million thumbnails take 5 GB."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from strata.errors import InvalidInput

Array = np.typing.NDArray[Any]
Ints = np.typing.NDArray[np.int64]


@dataclass(frozen=True)
class RowArray:
    """Some rows of an array, in an order of their own. None of them is copied before it is asked for.

    whole: (all rows, width), in memory or mapped; chosen: their indices, None for all.
    """

    whole: Array
    chosen: Ints | None = None

    def __len__(self) -> int:
        return len(self.whole) if self.chosen is None else len(self.chosen)

    @property
    def width(self) -> int:
        """The numbers of a row."""
        return int(self.whole.shape[1])

    def __getitem__(self, rows: slice | Ints) -> Array:
        """Some rows, in memory."""
        return np.asarray(self.whole[rows if self.chosen is None else self.chosen[rows]])

    def take(self, rows: Ints) -> Self:
        """Those of some rows, in this order."""
        return type(self)(self.whole, rows if self.chosen is None else self.chosen[rows])


class FilledRows:
    """Rows of one width that threads fill in; those that nobody fills are zeros.

    folder: in which they lie in a file; None: they are in memory.
    """

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        self._rows, self._folder = rows, folder
        self._lock = threading.Lock()
        self._whole: Array | None = None

    def fill(self, start: int, values: Array) -> None:
        """Fill in some rows. Raises InvalidInput for those of another width, and OSError."""
        if not values.shape[1]:
            return
        with self._lock:
            if self._whole is None:
                shape, kind = (self._rows, values.shape[1]), values.dtype.type
                self._whole = np.zeros(shape, kind) if self._folder is None else on_disk(shape, kind, self._folder)
        if self._whole.shape[1] != values.shape[1]:
            raise InvalidInput("the embeddings have different lengths: they are those of different models")
        self._whole[start : start + len(values)] = values

    def rows(self) -> RowArray | None:
        """All rows; None if none was filled in."""
        return None if self._whole is None else RowArray(self._whole)


def on_disk(shape: Sequence[int], kind: type[np.generic], folder: Path) -> Array:
    """An array of zeros in a file that has no name, and goes with the array. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if not math.prod(shape):
        return np.zeros(shape, kind)  # nothing can be mapped
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # writing to a mapped file on a full disk ends the process
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(kind).itemsize)
        return np.memmap(file, kind, "w+", shape=tuple(shape))
