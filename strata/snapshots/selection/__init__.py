"""Which rows are selected: by chance, balanced along axes, the best; and what is left out before.

Read `settings.py` first, then `choices.py` and `order.py`.
"""

from __future__ import annotations

from strata.snapshots.selection.axes import DEFAULT_AXES, EDGES, Axis, AxisError, axes_of
from strata.snapshots.selection.better import Better
from strata.snapshots.selection.choices import Choice, Pictures, select
from strata.snapshots.selection.order import row_hashes
from strata.snapshots.selection.settings import Selection, SelectionError, Split
from strata.snapshots.selection.targets import check_labels, check_targets

__all__ = [
    "DEFAULT_AXES",
    "EDGES",
    "Axis",
    "AxisError",
    "Better",
    "Choice",
    "Pictures",
    "Selection",
    "SelectionError",
    "Split",
    "axes_of",
    "check_labels",
    "check_targets",
    "row_hashes",
    "select",
]
