"""The composition of a snapshot: along each axis, how many rows each label has before and after the selection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from strata.axes import Axis
from strata.features import FEATURES

Composition = dict[str, dict[str, tuple[int, int]]]  # feature -> label -> rows before, rows after


def composition_of(table: pa.Table, places: npt.NDArray[Any], axes: Iterable[Axis]) -> Composition:
    """Count a table of features, and its rows at places, along axes: numbers in order, names by how common they are."""
    counted: Composition = {}
    for axis in axes:
        column = table.column(axis.feature)
        known = axis.resolved(column)
        codes, labels = known.codes(column), known.labels
        before, after = (np.bincount(some, minlength=len(labels)).tolist() for some in (codes, codes[places]))
        counts = list(zip(labels, zip(before, after, strict=True), strict=True))
        if FEATURES[axis.feature].kind == "name":
            counts.sort(key=lambda label: label[1], reverse=True)
        counted[axis.feature] = dict(counts)
    return counted


def shares_of(labels: Mapping[str, tuple[int, int]]) -> tuple[list[float], list[float]]:
    """The labels' shares of all rows before and after, 0..1."""
    before, after = (max(1, sum(counts)) for counts in zip(*labels.values(), strict=True))
    return [count / before for count, _ in labels.values()], [count / after for _, count in labels.values()]
