"""The composition of a snapshot: the rows of each label before and after the selection, as numbers and as a plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from strata.snapshots.selection.axes import COMMONEST, Axis
from strata.snapshots.selection.caps import Concepts

SHOWN = 24  # labels of a feature that are shown, if it has more
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
        if axis.kind == "name":
            counts.sort(key=lambda label: label[1], reverse=True)
        counted[axis.feature] = dict(counts)
    return counted


def shares_of(labels: Mapping[str, tuple[int, int]]) -> tuple[list[float], list[float]]:
    """The share of each label before and after the selection, 0..1."""
    before, after = (max(1, sum(counts[side] for counts in labels.values())) for side in (0, 1))
    return [count / before for count, _ in labels.values()], [count / after for _, count in labels.values()]


def commonest_of(labels: Mapping[str, tuple[int, int]], most: int = SHOWN) -> dict[str, tuple[int, int]]:
    """The labels with the most rows before a selection, in order, and all others in one; all if they are few."""
    if len(labels) <= most:
        return dict(labels)
    shown = set(sorted(labels, key=lambda label: -labels[label][0])[: most - 1])
    others = [counts for label, counts in labels.items() if label not in shown]
    before, after = (sum(some) for some in zip(*others, strict=True))
    return {label: labels[label] for label in labels if label in shown} | {f"{len(others):,} others": (before, after)}


def evenness_of(labels: Mapping[str, tuple[int, int]]) -> tuple[float, float]:
    """As how many equally large labels rows are spread before and after a selection; 0 without a row.

    It is the exponential of the entropy of the shares (Hill's number of order 1; M. Hill, Ecology 54, 1973).
    """
    spread = []
    for shares in shares_of(labels):
        known = np.array([share for share in shares if share > 0])
        spread.append(float(np.exp(-(known * np.log(known)).sum())) if len(known) else 0.0)
    return spread[0], spread[1]


def concept_counts(found: Concepts, rows: int, selected: np.typing.NDArray[Any]) -> dict[str, tuple[int, int]]:
    """The rows that name each of the commonest concepts, before and after. found: of all rows, whose number is rows."""
    taken = np.zeros(rows, bool)
    taken[selected] = True
    some = (found.numbers, found.numbers[taken[found.rows]])
    before, after = (np.bincount(numbers, minlength=len(found.names)) for numbers in some)
    commonest = np.argsort(-before, kind="stable")[:COMMONEST]
    return {found.names[one]: (int(before[one]), int(after[one])) for one in commonest}


def moved_away(composition: Composition, axes: Iterable[Axis]) -> list[str]:
    """A line for each label of a balanced selection whose share is farther from its target than before it.

    A difference below a hundredth of the rows, or of fewer than two rows, is not told. The cause is mostly an axis that
    comes before, in whose strata the label has too few rows.
    """
    lines = []
    for axis in axes:
        labels = composition.get(axis.feature, {})
        selected = max(1, sum(after for _, after in labels.values()))
        targets = dict(zip(axis.labels, axis.weights().tolist(), strict=True))
        for label, before, after in zip(labels, *shares_of(labels), strict=True):
            target = targets[label]
            away = abs(after - target) - abs(before - target)
            if label not in axis.held and away > max(0.01, 2 / selected):
                name = f"{axis.feature}={label}"
                lines.append(f"{name}: {before:.1%} before, {after:.1%} after; the target is {target:.1%}")
    return lines
