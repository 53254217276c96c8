"""Axes: a feature and how its values become labels; the strata of a selection are made along them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from strata.errors import InvalidInput
from strata.snapshots.features import FEATURES

OTHER = "other"
COMMONEST = 16  # names that an axis gives a label of their own unless it is told
EDGES = {  # of the numbers that people ask for most
    "objects": (1.0, 2.0, 4.0, 7.0),
    "regions": (1.0, 2.0, 4.0, 7.0),
    "masks": (1.0, 2.0, 4.0, 7.0),
    "words": (20.0, 40.0, 80.0),
    "evidence": (0.5, 0.75, 1.0),
    "match": (0.5, 0.75, 0.9),
}


class AxisError(InvalidInput):
    """An axis or a target share that cannot be read; one line says why."""


class Axis(BaseModel):
    """How rows are divided by one feature.

    edges: of a number, where the next label begins. names: of a name, the values with a label of their own, all others
    are "other"; None: the `commonest` of the rows there are. shares: the share of the rows that a label is to have;
    labels without one divide the rest equally.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str
    edges: tuple[float, ...] = ()
    names: tuple[str, ...] | None = None
    commonest: int | None = None
    shares: dict[str, float] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """An axis of FEATURE, NUMBER:EDGE,EDGE…, NAME:HOW_MANY or NAME:NAME,NAME…. Raises AxisError."""
        feature, _, rest = text.partition(":")
        if feature not in FEATURES:
            raise AxisError(f"--by {text!r}: there is no feature {feature!r}; there are: {', '.join(FEATURES)}")
        kind, values = FEATURES[feature].kind, [value.strip() for value in rest.split(",") if value.strip()]
        if kind == "flag" and not values:
            return cls(feature=feature)
        if kind == "name":
            if len(values) == 1 and values[0].isdecimal():
                return cls(feature=feature, commonest=int(values[0]))
            names = tuple(dict.fromkeys(values))
            return cls(feature=feature, names=names) if names else cls(feature=feature, commonest=COMMONEST)
        try:
            edges = tuple(map(float, values)) or EDGES.get(feature, ())
        except ValueError:
            edges = ()
        if kind == "flag" or not edges or any(not a < b for a, b in itertools.pairwise((*edges, float("inf")))):
            raise AxisError(f"--by {text!r}: {_wanted(kind)}")
        return cls(feature=feature, edges=edges)

    def with_shares(self, shares: Mapping[str, float]) -> Self:
        """The axis with target shares. Raises AxisError where they cannot be."""
        if any(not 0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
            raise AxisError(f"the target shares of {self.feature} must lie in 0..1, and their sum must not exceed 1")
        names = self.names
        if FEATURES[self.feature].kind == "name" and names is not None:
            names = tuple(dict.fromkeys([*names, *(label for label in shares if label != OTHER)]))
        axis = self.model_copy(update={"names": names, "shares": dict(shares)})
        if axis.names is not None or axis.commonest is None:
            axis.weights()
        return axis

    def resolved(self, column: pa.ChunkedArray) -> Self:
        """The axis with its names known: the commonest of a column, those with a target share among them."""
        if self.commonest is None or self.names is not None:
            return self
        counts = sorted((-entry["counts"], entry["values"]) for entry in pc.value_counts(column).to_pylist())
        names = tuple(sorted(name for _, name in counts[: self.commonest]))
        return self.model_copy(update={"names": names}).with_shares(self.shares)

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in order. The names must be known."""
        kind = FEATURES[self.feature].kind
        if kind == "flag":
            return ("no", "yes")
        if kind == "name":
            return (*(self.names or ()), OTHER)
        return tuple(_ranges(self.edges))

    def codes(self, column: pa.ChunkedArray) -> np.typing.NDArray[np.int64]:
        """The index of each value's label among the labels."""
        kind = FEATURES[self.feature].kind
        if kind == "number":
            codes: Any = np.searchsorted(self.edges, column.to_numpy(), side="right")
        elif kind == "flag":
            codes = column.to_numpy()
        else:
            codes = pc.fill_null(
                pc.index_in(column, pa.array(self.names, pa.string())), len(self.names or ())
            ).to_numpy()
        return np.asarray(codes, np.int64)

    def weights(self) -> np.typing.NDArray[np.float64]:
        """The share that each label is to have where there are enough rows. Raises AxisError."""
        labels = self.labels
        unknown = [label for label in self.shares if label not in labels]
        if unknown:
            raise AxisError(f"{self.feature} has no label {unknown[0]!r}; it has: {', '.join(labels)}")
        others = len(labels) - len(self.shares)
        rest = max(0.0, 1 - sum(self.shares.values())) / others if others else 0.0
        return np.array([self.shares.get(label, rest) for label in labels])


DEFAULT_AXES = tuple(Axis.parse(name) for name in ("objects", "text", "words", "thing"))


def axes_of(texts: Iterable[str], targets: Iterable[str]) -> tuple[Axis, ...]:
    """The axes of `--by`, or the default ones, with the shares of `--target` FEATURE=LABEL:SHARE. Raises AxisError."""
    axes = tuple(map(Axis.parse, texts)) or DEFAULT_AXES
    shares: dict[str, dict[str, float]] = {axis.feature: {} for axis in axes}
    if len(shares) < len(axes):
        raise AxisError("a feature can be balanced by once only")
    for text in targets:
        feature, _, rest = text.partition("=")
        label, colon, share = rest.rpartition(":")
        try:
            shares[feature][label] = float(share)
        except (KeyError, ValueError):
            colon = ""
        if not colon:
            raise AxisError(f"--target {text!r} is no FEATURE=LABEL:SHARE of a feature that is balanced by")
    return tuple(axis.with_shares(shares[axis.feature]) for axis in axes)


def _wanted(kind: str) -> str:
    return "a yes or no has no edges" if kind == "flag" else "a number needs edges that rise, such as words:20,40,80"


def _ranges(edges: tuple[float, ...]) -> Iterable[str]:
    """ "0", "1", "2-3", "4+" for whole edges that begin at 1; "<0.5", "0.5-0.75", "0.75+" for others."""
    whole: Any = all(edge == int(edge) for edge in edges)
    yield f"<{edges[0]:g}" if not whole or edges[0] < 1 else "0" if edges[0] == 1 else f"0-{edges[0] - 1:g}"
    for low, high in itertools.pairwise(edges):
        last = high - 1 if whole else high
        yield f"{low:g}" if last == low else f"{low:g}-{last:g}"
    yield f"{edges[-1]:g}+"
