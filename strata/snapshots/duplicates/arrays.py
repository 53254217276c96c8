"""Arrays with a row for each picture, which may lie on disk: 3.3 million thumbnails take 5 GB."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

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


def on_disk(shape: Sequence[int], kind: type[np.generic], folder: Path) -> Array:
    """An array of zeros in a file that has no name, and goes with the array. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if not math.prod(shape):
        return np.zeros(shape, kind)  # nothing can be mapped
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # writing to a mapped file on a full disk ends the process
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(kind).itemsize)
        return np.memmap(file, kind, "w+", shape=tuple(shape))
