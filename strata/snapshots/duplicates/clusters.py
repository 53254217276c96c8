"""Clusters of rows with the same picture, and which row of each stays."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

Keep = Literal["first", "largest", "best"]
Ints = np.typing.NDArray[np.int64]
# part, row: as in a snapshot; cluster: the number of the cluster, from 0; kept: whether it is the row that stays
CLUSTER_SCHEMA = pa.schema([("part", pa.int32()), ("row", pa.int32()), ("cluster", pa.int32()), ("kept", pa.bool_())])


def kept_of(groups: Ints, worth: np.typing.NDArray[np.float64] | None) -> Ints:
    """The indices of the rows that stay, in order: of each group the row that is worth most, the first of equal ones.

    groups: of each row, the index of the first row of its group. worth: of each row; None: the first row stays.
    """
    if worth is None:
        return np.flatnonzero(groups == np.arange(len(groups)))
    # by group, then by falling worth, then by place
    order = np.lexsort((np.arange(len(groups)), -worth, groups))
    _, first = np.unique(groups[order], return_index=True)
    return np.sort(order[first])


def clusters_of(rows: pa.Table, groups: Ints, kept: Ints) -> pa.Table:
    """The rows of all clusters with more than one row, of CLUSTER_SCHEMA, sorted by part and row."""
    sizes = np.bincount(groups, minlength=len(groups))
    members = np.flatnonzero(sizes[groups] > 1)
    _, numbers = np.unique(groups[members], return_inverse=True)
    stays = np.zeros(len(groups), bool)
    stays[kept] = True
    there = rows.select(["part", "row"]).take(pa.array(members))
    columns = {
        "part": there.column("part"),
        "row": there.column("row"),
        "cluster": pa.array(numbers.astype(np.int32)),
        "kept": pa.array(stays[members]),
    }
    return pa.table(columns).cast(CLUSTER_SCHEMA)
