"""Which rows are selected: by chance, balanced along axes, the best; and what is left out before.

Read `settings.py` first, then `choices.py` and `order.py`.
"""

from __future__ import annotations

from strata.snapshots.selection.axes import BY_CLUSTER, DEFAULT_AXES, EDGES, Axis, AxisError, axes_of
from strata.snapshots.selection.better import Better
from strata.snapshots.selection.choices import Choice, Given, Pictures, select
from strata.snapshots.selection.clusters import Clusters
from strata.snapshots.selection.order import row_hashes
from strata.snapshots.selection.quotas import Quota, quotas_of
from strata.snapshots.selection.settings import AXES_OF, Selection, SelectionError, Split
from strata.snapshots.selection.targets import check_labels, check_targets

__all__ = [
    "AXES_OF",
    "BY_CLUSTER",
    "DEFAULT_AXES",
    "EDGES",
    "Axis",
    "AxisError",
    "Better",
    "Choice",
    "Clusters",
    "Given",
    "Pictures",
    "Quota",
    "Selection",
    "SelectionError",
    "Split",
    "axes_of",
    "check_labels",
    "check_targets",
    "quotas_of",
    "row_hashes",
    "select",
]
