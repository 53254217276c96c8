"""Features of rows: what each is (`catalogue.py`), how they are computed (`values.py`) and read (`rows.py`)."""

from __future__ import annotations

from strata.snapshots.features.catalogue import CLUSTER, EVIDENCE_PATH, FEATURES, MATCH_PATHS, Kind
from strata.snapshots.features.rows import Rows, read_rows
from strata.snapshots.features.values import NOTHING, matches_of, unsupported_sentences

__all__ = [
    "CLUSTER",
    "EVIDENCE_PATH",
    "FEATURES",
    "MATCH_PATHS",
    "NOTHING",
    "Kind",
    "Rows",
    "matches_of",
    "read_rows",
    "unsupported_sentences",
]
