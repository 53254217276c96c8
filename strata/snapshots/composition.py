"""The composition of a snapshot: rows of each label before and after the selection, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from strata.errors import InvalidInput
from strata.snapshots.axes import Axis
from strata.snapshots.features import FEATURES

Composition = dict[str, dict[str, tuple[int, int]]]  # feature -> label -> rows before, rows after


def composition_of(table: pa.Table, indices: np.typing.NDArray[Any], axes: Iterable[Axis]) -> Composition:
    """Count a table of features, and its rows at indices, along axes; labels of names by their frequency."""
    counted: Composition = {}
    for axis in axes:
        column = table.column(axis.feature)
        known = axis.resolved(column)
        codes, labels = known.codes(column), known.labels
        before, after = (np.bincount(some, minlength=len(labels)).tolist() for some in (codes, codes[indices]))
        counts = list(zip(labels, zip(before, after, strict=True), strict=True))
        if FEATURES[axis.feature].kind == "name":
            counts.sort(key=lambda label: label[1], reverse=True)
        counted[axis.feature] = dict(counts)
    return counted


def shares_of(labels: Mapping[str, tuple[int, int]]) -> tuple[list[float], list[float]]:
    """The labels' shares of all rows before and after, 0..1."""
    before, after = (max(1, sum(counts)) for counts in zip(*labels.values(), strict=True))
    return [count / before for count, _ in labels.values()], [count / after for _, count in labels.values()]


FORMATS = (".png", ".svg", ".pdf")


def plot_composition(composition: Composition, title: str, path: Path) -> None:
    """Save the shares before and after, a panel an axis, as PNG, SVG or PDF by the path's suffix.

    Raises InvalidInput for another suffix or where matplotlib lacks, and OSError.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidInput(f"{path}: a plot is saved as {', '.join(FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidInput("plots need matplotlib: pip install 'strata[training]'") from None
    most = max(len(labels) for labels in composition.values())
    figure = Figure(figsize=(4 * len(composition), 1.2 + 0.3 * most), layout="constrained")
    panels = figure.subplots(1, len(composition), squeeze=False)[0]
    for panel, (feature, labels) in zip(panels, composition.items(), strict=True):
        rows = range(len(labels))
        for offset, name, shares in zip((-0.2, 0.2), ("before", "after"), shares_of(labels), strict=True):
            panel.barh([row + offset for row in rows], [100 * share for share in shares], 0.4, label=name)
        panel.set_yticks(rows, list(labels))
        panel.invert_yaxis()
        panel.set_title(feature)
        panel.set_xlabel("% of rows")
    panels[0].legend()
    figure.suptitle(title)
    figure.savefig(path)
