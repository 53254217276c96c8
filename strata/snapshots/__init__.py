"""Snapshots: immutable, named selections of the rows of parts, which training reads.

It imports `strata.core` and `strata.store`, and no queue. Read `snapshots.py` first, then `creation.py` and the
folder `selection`.
"""

from __future__ import annotations

from strata.snapshots.cleaning import Cleaning
from strata.snapshots.comparing import (
    Change,
    Compared,
    Descriptions,
    Difference,
    Overlap,
    Pair,
    Side,
    compared,
    difference,
)
from strata.snapshots.composition import commonest_of, evenness_of, moved_away, shares_of
from strata.snapshots.deletion import Deletion
from strata.snapshots.duplicates import (
    Benchmarks,
    FilledRows,
    Keep,
    PictureHashes,
    RowArray,
    Same,
    bits_of,
    bytes_of,
    found_in,
    read_benchmarks,
    same_pictures,
    vectors_of,
    write_benchmarks,
)
from strata.snapshots.features import FEATURES, read_rows
from strata.snapshots.filters import FilterError
from strata.snapshots.manifests import Manifest
from strata.snapshots.own_files import OwnFiles, read_own_files
from strata.snapshots.places import by_part
from strata.snapshots.plots import check_plot, plot_composition
from strata.snapshots.reviewing.queues import Doubt, Order, QueuedRow, ReviewQueue, find_rows, records_of, review_queue
from strata.snapshots.rules import LeftOut, rules_of
from strata.snapshots.selection import AXES_OF, EDGES, Axis, Better, Quota, Selection, axes_of, quotas_of
from strata.snapshots.selection.files import read_selection_file
from strata.snapshots.snapshot import LostRows, Snapshot
from strata.snapshots.snapshots import SHORT_ID, Snapshots, UnknownSnapshot
from strata.snapshots.verification import Report, Verification

__all__ = [
    "AXES_OF",
    "EDGES",
    "FEATURES",
    "SHORT_ID",
    "Axis",
    "Benchmarks",
    "Better",
    "Change",
    "Cleaning",
    "Compared",
    "Deletion",
    "Descriptions",
    "Difference",
    "Doubt",
    "FilledRows",
    "FilterError",
    "Keep",
    "LeftOut",
    "LostRows",
    "Manifest",
    "Order",
    "Overlap",
    "OwnFiles",
    "Pair",
    "PictureHashes",
    "QueuedRow",
    "Quota",
    "Report",
    "ReviewQueue",
    "RowArray",
    "Same",
    "Selection",
    "Side",
    "Snapshot",
    "Snapshots",
    "UnknownSnapshot",
    "Verification",
    "axes_of",
    "bits_of",
    "by_part",
    "bytes_of",
    "check_plot",
    "commonest_of",
    "compared",
    "difference",
    "evenness_of",
    "find_rows",
    "found_in",
    "moved_away",
    "plot_composition",
    "quotas_of",
    "read_benchmarks",
    "read_own_files",
    "read_rows",
    "read_selection_file",
    "records_of",
    "review_queue",
    "rules_of",
    "same_pictures",
    "shares_of",
    "vectors_of",
    "write_benchmarks",
]
