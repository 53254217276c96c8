"""Target shares that cannot be met, and labels that no row has: errors, unless the shortfall is accepted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from strata.core.registry import suggestion
from strata.snapshots.selection.axes import OTHER, Axis, AxisError
from strata.snapshots.selection.choices import Choice
from strata.snapshots.selection.clusters import Ints
from strata.snapshots.selection.quotas import check_sources
from strata.snapshots.selection.settings import Selection, SelectionError

ACCEPT = "--accept-shortfall takes what is there"


def check_labels(table: pa.Table, selection: Selection) -> None:
    """Raise AxisError for a name of an axis that was asked for and that no row of a table of features has.

    Raise QuotaError for a source with a quota that no row comes from.
    """
    check_sources(table, selection.quotas)
    for axis in selection.axes:
        if axis.kind != "name":
            continue
        # names that an earlier selection found to be the commonest were not asked for
        named = axis.names or () if axis.commonest is None else ()
        asked = {label for label in (*axis.targets, *named) if label != OTHER}
        values = table.column(axis.feature)
        known = set(values.drop_null().unique().to_pylist()) if asked else set()
        for label in sorted(asked - known):
            raise AxisError(f"no row has the {axis.feature} {label!r}; {_near(label, known)}; {ACCEPT}")


def _near(label: str, known: set[str]) -> str:
    """The most similar value; without one how many there are: a list of all would be long."""
    hint = suggestion(label, known)
    return hint if hint.startswith("did") else f"there are {len(known):,} others"


def check_targets(table: pa.Table, choice: Choice) -> None:
    """Raise SelectionError if a target share of a choice from a table of features is not met.

    A share is met if it is right up to rounding: by one row in each of the strata that the axis divides. Also raise it
    if quotas leave fewer rows than were asked for.
    """
    asked = choice.selection.count is not None or choice.selection.share is not None
    if asked and len(choice.indices) < choice.wanted:
        left = f"but the quotas leave {len(choice.indices):,}"
        raise SelectionError(f"{choice.wanted:,} rows are requested, {left}; {ACCEPT}")
    chosen, parents = table.take(pa.array(choice.indices)), np.zeros(len(choice.indices), np.int64)
    for axis in choice.selection.axes:
        codes = axis.codes(chosen.column(axis.feature))
        for message in _unmet(axis, codes, allowed=len(np.unique(parents))):
            raise SelectionError(f"{message}; {ACCEPT}")
        # the strata that the next axis divides
        parents = np.unique(parents * len(axis.labels) + codes, return_inverse=True)[1]


def _unmet(axis: Axis, codes: Ints, allowed: int) -> Iterator[str]:
    """A line for each target share that is not met, those with too few rows first. allowed: rows of rounding."""
    counts = np.bincount(codes, minlength=len(axis.labels))
    missed = []
    for label, share in axis.targets.items():
        wanted, got = share * len(codes), int(counts[axis.labels.index(label)])
        if abs(got - wanted) > allowed:
            line = f"the target {axis.feature}={label}:{share:g} of {len(codes):,} rows is {round(wanted):,} rows, but"
            missed.append((got - wanted, f"{line} {'only ' if got < wanted else ''}{got:,} can be taken"))
    yield from (line for _, line in sorted(missed))
