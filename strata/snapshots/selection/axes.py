"""Axes: a feature and the division of its values into labels. A balanced selection has one stratum for each label."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from strata.errors import InvalidInput
from strata.snapshots.features import CLUSTER, FEATURES, Kind

OTHER = "other"  # also of a value that is so called: two labels of one name could not be told apart
UNKNOWN = "unknown"
COMMONEST = 16  # default number of names with a label of their own
EDGES = {  # default edges of common features
    "objects": (1.0, 2.0, 4.0, 7.0),
    "regions": (1.0, 2.0, 4.0, 7.0),
    "masks": (1.0, 2.0, 4.0, 7.0),
    "words": (20.0, 40.0, 80.0),
    "evidence": (0.5, 0.75, 1.0),
    "match": (0.5, 0.75, 0.9),
}


class AxisError(InvalidInput):
    """An axis or a target share that is not valid. The message gives the reason in one line."""


class Setting(BaseModel):
    """Base class of what a selection is made of.

    LATER: fields that a later version added, with the values that mean what earlier versions did. These are not
    written, so that the id of a snapshot, which is a hash of its selection, stays the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    LATER: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_serializer(mode="wrap")
    def _as_earlier(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unwritten = {name for name, values in self.LATER.items() if getattr(self, name) in values}
        return {name: value for name, value in write(self).items() if name not in unwritten}


def _names_of(text: str, feature: str, values: list[str]) -> dict[str, Any]:
    """The settings of an axis of names: how many of the commonest ones have a label, or which. Raises AxisError."""
    if len(values) == 1 and values[0].isdecimal():
        if int(values[0]) < 1:
            raise AxisError(f"--by {text!r}: a number of labels is 1 or more")
        return {"commonest": int(values[0])}
    # clusters are all labels, and their names are found; their number may be asked for
    if feature == CLUSTER and values:
        raise AxisError(f"--by {text!r}: clusters take their number, such as cluster:512, and no names")
    if feature == CLUSTER:
        return {}
    names = tuple(dict.fromkeys(value for value in values if value != OTHER))
    if values and not names:
        raise AxisError(f"--by {text!r}: {OTHER!r} is the label of all values that are not named: name another one")
    return {"names": names} if names else {"commonest": COMMONEST}


class Axis(Setting):
    """The division of rows by one feature.

    edges: for a number, the lower bounds of all labels but the first. names: for a name, the values with a label of
    their own, all others are "other"; None: the `commonest` values of the table. shares: target shares of labels, 0..1;
    the labels without one share the rest equally. held: labels whose share stays what it is among the rows that pass:
    while other rows are left they get no more (see `strata.snapshots.selection`); `resolved` writes it into `shares`.
    own: the kind of a column of the user's scores; None: of a feature. A number or a flag that is not known there has a
    label of its own. fractions: whether numbers may lie between whole ones, so that 4 to below 5 is "4-5" and not "4".
    """

    LATER: ClassVar = {"held": ((),), "own": (None,), "fractions": (False,)}

    feature: str
    edges: tuple[float, ...] = ()
    names: tuple[str, ...] | None = None
    commonest: int | None = None
    shares: dict[str, float] = {}
    held: tuple[str, ...] = ()
    own: Kind | None = None
    fractions: bool = False

    @property
    def kind(self) -> Kind:
        """The kind of its values."""
        return self.own or FEATURES[self.feature].kind

    @classmethod
    def parse(cls, text: str, own: Mapping[str, Kind] | None = None, fractions: Collection[str] = ()) -> Self:
        """Parse FEATURE, NUMBER:EDGE,EDGE…, NAME:COUNT or NAME:NAME,NAME… (the option `--by`). Raises AxisError.

        own: the kinds of the columns of the user's scores; fractions: those of them with numbers that are not whole.
        """
        feature, _, rest = text.partition(":")
        kinds = {name: one.kind for name, one in FEATURES.items()} | dict(own or {})
        if feature not in kinds:
            raise AxisError(f"--by {text!r}: there is no feature {feature!r}; there are: {', '.join(kinds)}")
        kind, values = kinds[feature], [value.strip() for value in rest.split(",") if value.strip()]
        axis = cls(feature=feature)
        if own and feature in own:
            axis = cls(feature=feature, own=kind, held=() if kind == "name" else (UNKNOWN,))
        # a yes-or-no feature takes no values
        if kind == "flag" and not values:
            return axis
        if kind == "name":
            return axis.model_copy(update=_names_of(text, feature, values))
        # a number takes rising edges; common features have default ones
        try:
            edges = tuple(map(float, values)) or EDGES.get(feature, ())
        except ValueError:
            edges = ()
        if kind == "flag" or not edges or any(not a < b for a, b in itertools.pairwise((*edges, float("inf")))):
            raise AxisError(f"--by {text!r}: {_wanted(kind, feature)}")
        between = feature in fractions if axis.own else FEATURES[feature].fractions
        # edges that are not whole have such labels anyway
        update = {"edges": edges, "fractions": between and all(map(float.is_integer, edges))}
        return axis.model_copy(update=update)

    def with_shares(self, shares: Mapping[str, float]) -> Self:
        """The axis with target shares. Raises AxisError for shares that are not valid."""
        if any(not 0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
            raise AxisError(f"the target shares of {self.feature} must lie in 0..1, and their sum must not exceed 1")
        # a name with a target share needs a label of its own
        names = self.names
        if self.kind == "name" and names is not None:
            names = tuple(dict.fromkeys([*names, *(label for label in shares if label != OTHER)]))
        held = tuple(label for label in self.held if label not in shares)
        axis = self.model_copy(update={"names": names, "shares": dict(shares), "held": held})
        # the labels of an axis by the commonest names, or by clusters, are not known yet; `resolved` checks them later
        if axis.names is not None or (axis.commonest is None and self.feature != CLUSTER):
            axis.weights()
        return axis

    def with_clusters(self, names: tuple[str, ...]) -> Self:
        """The axis with a label for each cluster, if it is by clusters and has none yet. Raises AxisError.

        Rows without an embedding are no kind that a balance should favour: their share stays what it is.
        """
        if self.feature != CLUSTER or self.names is not None:
            return self
        update = {"names": names, "commonest": len(names), "held": (OTHER,)}
        return self.model_copy(update=update).with_shares(self.shares)

    def resolved(self, column: pa.ChunkedArray) -> Self:
        """The axis with what depends on the rows: the commonest names of a column, the shares of held labels."""
        if self.commonest is not None and self.names is None:
            # of equally common names the first in the alphabet
            known = column.filter(pc.not_equal(column, OTHER))
            counts = sorted((-entry["counts"], entry["values"]) for entry in pc.value_counts(known).to_pylist())
            names = tuple(sorted(name for _, name in counts[: self.commonest]))
            return self.model_copy(update={"names": names}).with_shares(self.shares)
        missing = [label for label in self.held if label not in self.shares]
        if missing and len(column):
            counted = np.bincount(self.codes(column), minlength=len(self.labels)) / len(column)
            natural = {label: round(float(counted[self.labels.index(label)]), 6) for label in missing}
            return self.model_copy(update={"shares": self.shares | natural})
        return self

    @property
    def targets(self) -> dict[str, float]:
        """The shares that were asked for, by label; those of held labels are not among them."""
        return {label: share for label, share in self.shares.items() if label not in self.held}

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in order. The names must be set (see `resolved`)."""
        if self.kind == "name":
            return (*self._named, OTHER)
        known = ("no", "yes") if self.kind == "flag" else tuple(_ranges(self.edges, self.fractions))
        return known if self.own is None else (*known, UNKNOWN)

    def codes(self, column: pa.ChunkedArray) -> np.typing.NDArray[np.int64]:
        """The index of each value's label in `labels`."""
        if self.kind == "name":
            found = pc.index_in(column, pa.array(self._named, pa.string()))
            codes: Any = pc.fill_null(found, len(self._named)).to_numpy()
        elif self.kind == "number":
            codes = np.searchsorted(self.edges, column.to_numpy(), side="right")
        else:
            codes = pc.fill_null(column, False).to_numpy()
        if self.own is not None and self.kind != "name":
            codes = np.where(column.is_null().to_numpy(), len(self.labels) - 1, codes)
        return np.asarray(codes, np.int64)

    @property
    def _named(self) -> tuple[str, ...]:
        """The names with a label of their own; a snapshot of an earlier version may name `other` among them."""
        return tuple(name for name in self.names or () if name != OTHER)

    def weights(self) -> np.typing.NDArray[np.float64]:
        """The target share of each label, in order, which it gets if it has enough rows. Raises AxisError."""
        labels = self.labels
        unknown = [label for label in self.shares if label not in labels]
        if unknown:
            raise AxisError(f"{self.feature} has no label {unknown[0]!r}; it has: {', '.join(labels)}")
        # the labels without a target share the rest equally
        others = len(labels) - len(self.shares)
        rest = max(0.0, 1 - sum(self.shares.values())) / others if others else 0.0
        return np.array([self.shares.get(label, rest) for label in labels])


# rows without things are no kind that a balance should favour: their share stays what it is (docs/decisions.md)
DEFAULT_AXES = (
    Axis.parse("text"),
    Axis.parse("objects").model_copy(update={"held": ("0",)}),
    Axis.parse("words"),
    Axis.parse("thing"),
)
BY_CLUSTER = (Axis(feature=CLUSTER),)  # of a diverse selection


def axes_of(
    texts: Iterable[str],
    targets: Iterable[str],
    default: tuple[Axis, ...] = DEFAULT_AXES,
    own: Mapping[str, Kind] | None = None,
    fractions: Collection[str] = (),
) -> tuple[Axis, ...]:
    """Parse the axes of `--by`, or take the default ones, and `--target` FEATURE=LABEL:SHARE. Raises AxisError.

    own, fractions: as of `Axis.parse`.
    """
    axes = tuple(Axis.parse(text, own, fractions) for text in texts) or default
    shares: dict[str, dict[str, float]] = {axis.feature: {} for axis in axes}
    if len(shares) < len(axes):
        raise AxisError("a feature can be given with --by only once")
    for text in targets:
        feature, _, rest = text.partition("=")
        label, colon, share = rest.rpartition(":")
        try:
            shares[feature][label] = float(share)
        except (KeyError, ValueError):
            colon = ""
        if not colon:
            raise AxisError(f"--target {text!r} is not FEATURE=LABEL:SHARE with a feature of --by")
    return tuple(axis.with_shares(shares[axis.feature]) for axis in axes)


def _wanted(kind: Kind, feature: str) -> str:
    if kind == "flag":
        return "a yes-or-no feature has no edges"
    return f"a number needs rising edges, such as {feature if feature not in EDGES else 'words'}:20,40,80"


def _ranges(edges: tuple[float, ...], fractions: bool) -> Iterable[str]:
    """ "0", "1", "2-3", "4+" for whole edges that begin at 1; "<0.5", "0.5-0.75", "0.75+" for others, and fractions."""
    whole: Any = not fractions and all(map(float.is_integer, edges))
    yield f"<{edges[0]:g}" if not whole or edges[0] < 1 else "0" if edges[0] == 1 else f"0-{edges[0] - 1:g}"
    for low, high in itertools.pairwise(edges):
        last = high - 1 if whole else high
        yield f"{low:g}" if last == low else f"{low:g}-{last:g}"
    yield f"{edges[-1]:g}+"
