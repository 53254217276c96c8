"""The composition of a snapshot: along each axis, how many rows each label has before and after the selection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from strata.axes import Axis

Composition = dict[str, dict[str, tuple[int, int]]]  # feature -> label -> rows before, rows after


def composition_of(table: pa.Table, places: npt.NDArray[Any], axes: Iterable[Axis]) -> Composition:
    """Count a table of features, and its rows at places, along axes."""
    counted: Composition = {}
    for axis in axes:
        column = table.column(axis.feature)
        known = axis.resolved(column)
        codes, labels = known.codes(column), known.labels
        before, after = (np.bincount(some, minlength=len(labels)).tolist() for some in (codes, codes[places]))
        counted[axis.feature] = dict(zip(labels, zip(before, after, strict=True), strict=True))
    return counted
