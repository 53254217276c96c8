"""The composition of a snapshot: the rows of each label before and after the selection, as numbers and as a plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from strata.errors import InvalidInput
from strata.snapshots.features import FEATURES
from strata.snapshots.nouns import nouns_of
from strata.snapshots.selection.axes import COMMONEST, Axis

Composition = dict[str, dict[str, tuple[int, int]]]  # feature -> label -> rows before, rows after


def composition_of(table: pa.Table, selected: np.typing.NDArray[Any], axes: Iterable[Axis]) -> Composition:
    """Count all rows of a table of features, and the selected ones (indices), by label along each axis.

    Labels of numbers keep their order, names are sorted by their count.
    """
    counted: Composition = {}
    for axis in axes:
        # labels as codes, which are counted in all rows and in the selected ones
        column = table.column(axis.feature)
        known = axis.resolved(column)
        codes, labels = known.codes(column), known.labels
        before, after = (np.bincount(some, minlength=len(labels)).tolist() for some in (codes, codes[selected]))
        counts = list(zip(labels, zip(before, after, strict=True), strict=True))
        if FEATURES[axis.feature].kind == "name":
            counts.sort(key=lambda label: label[1], reverse=True)
        counted[axis.feature] = dict(counts)
    return counted


def shares_of(labels: Mapping[str, tuple[int, int]]) -> tuple[list[float], list[float]]:
    """The share of each label before and after the selection, 0..1."""
    before, after = (max(1, sum(counts)) for counts in zip(*labels.values(), strict=True))
    return [count / before for count, _ in labels.values()], [count / after for _, count in labels.values()]


def noun_counts(table: pa.Table, selected: np.typing.NDArray[Any]) -> dict[str, tuple[int, int]]:
    """The rows of a table of features whose description names each of the commonest nouns, before and after."""
    rows, nouns, names = nouns_of(table.column("description"))
    taken = np.zeros(table.num_rows, bool)
    taken[selected] = True
    before, after = (np.bincount(some, minlength=len(names)) for some in (nouns, nouns[taken[rows]]))
    commonest = np.argsort(-before, kind="stable")[:COMMONEST]
    return {names[noun]: (int(before[noun]), int(after[noun])) for noun in commonest}


def moved_away(composition: Composition, axes: Iterable[Axis]) -> list[str]:
    """A line for each label of a balanced selection whose share is farther from its target than before it.

    A difference below a hundredth of the rows, or of fewer than two rows, is not told. The cause is mostly an axis that
    comes before, in whose strata the label has too few rows.
    """
    lines = []
    for axis in axes:
        labels = composition[axis.feature]
        selected = max(1, sum(after for _, after in labels.values()))
        targets = dict(zip(axis.labels, axis.weights().tolist(), strict=True))
        for label, before, after in zip(labels, *shares_of(labels), strict=True):
            target = targets[label]
            away = abs(after - target) - abs(before - target)
            if label not in axis.held and away > max(0.01, 2 / selected):
                name = f"{axis.feature}={label}"
                lines.append(f"{name}: {before:.1%} before, {after:.1%} after; the target is {target:.1%}")
    return lines


FORMATS = (".png", ".svg", ".pdf")


def plot_composition(composition: Composition, title: str, path: Path) -> None:
    """Save a plot of the shares before and after, one panel per axis, as PNG, SVG or PDF by the path's suffix.

    Raises InvalidInput for another suffix or if matplotlib is not installed, or if the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidInput(f"{path}: a plot is saved as {', '.join(FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidInput("plots need matplotlib: pip install 'strata[training]'") from None
    # the height grows with the labels of the largest panel; sizes in inches
    most = max(len(labels) for labels in composition.values())
    figure = Figure(figsize=(4 * len(composition), 1.2 + 0.3 * most), layout="constrained")
    panels = figure.subplots(1, len(composition), squeeze=False)[0]
    for panel, (feature, labels) in zip(panels, composition.items(), strict=True):
        # two bars for each label, the first label at the top
        rows = range(len(labels))
        for offset, name, shares in zip((-0.2, 0.2), ("before", "after"), shares_of(labels), strict=True):
            panel.barh([row + offset for row in rows], [100 * share for share in shares], 0.4, label=name)
        panel.set_yticks(rows, list(labels))
        panel.invert_yaxis()
        panel.set_title(feature)
        panel.set_xlabel("% of rows")
    panels[0].legend()
    figure.suptitle(title)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:  # ValueError: a format that is not known
        raise InvalidInput(f"{path}: {getattr(error, 'strerror', None) or error}") from None
