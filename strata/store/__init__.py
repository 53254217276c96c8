"""The store: parts, uploads and job files in a folder or a bucket.

Read `store.py` first, then `parts.py`; `storages.py` opens the folder or bucket.
"""

from __future__ import annotations

from strata.store.arrow import import_ahead, without_pandas
from strata.store.bundles import Compaction, folder_lock, unbundle
from strata.store.feature_parts import (
    Beside,
    FeatureKind,
    FeatureReader,
    MissingFeatures,
    feature_part,
    keep_kind,
    kind_of,
    kinds_of,
    write_features,
)
from strata.store.index_rows import (
    SOURCE_NUMBER,
    IndexRow,
    ParquetCell,
    ShardIndex,
    file_folder,
    file_name,
    identity_of,
    index_table,
    located_rows,
)
from strata.store.part_files import READERS
from strata.store.part_format import BrokenPart, Footer, Source
from strata.store.part_paths import LOCK, Attempts, Bundle, Part, last_attempts, parts_at
from strata.store.parts import LostPart, PartsOf, UnknownSource
from strata.store.progress import ProgressListing, read_progress, remove_progress, sweep_progress, write_progress
from strata.store.provenance import (
    Provenance,
    keep_profile,
    keep_proof,
    kept_profiles,
    leave_out_of,
    matchers_of,
    proof_of,
    provenance_of,
    texts_of,
)
from strata.store.shard_files import MAX_FAMILY, upload_digest
from strata.store.storage_errors import as_os_error, is_transient, reason_of, storage_fault
from strata.store.storages import file_system
from strata.store.store import Store, count_of
from strata.store.upload_lists import (
    Received,
    ReceivedUploads,
    is_made_list,
    is_picked_list,
    received_uploads,
    uploads_of,
    write_list,
    write_picked,
)

__all__ = [
    "LOCK",
    "MAX_FAMILY",
    "READERS",
    "SOURCE_NUMBER",
    "Attempts",
    "Beside",
    "BrokenPart",
    "Bundle",
    "Compaction",
    "FeatureKind",
    "FeatureReader",
    "Footer",
    "IndexRow",
    "LostPart",
    "MissingFeatures",
    "ParquetCell",
    "Part",
    "PartsOf",
    "ProgressListing",
    "Provenance",
    "Received",
    "ReceivedUploads",
    "ShardIndex",
    "Source",
    "Store",
    "UnknownSource",
    "as_os_error",
    "count_of",
    "feature_part",
    "file_folder",
    "file_name",
    "file_system",
    "folder_lock",
    "identity_of",
    "import_ahead",
    "index_table",
    "is_made_list",
    "is_picked_list",
    "is_transient",
    "keep_kind",
    "keep_profile",
    "keep_proof",
    "kept_profiles",
    "kind_of",
    "kinds_of",
    "last_attempts",
    "leave_out_of",
    "located_rows",
    "matchers_of",
    "parts_at",
    "proof_of",
    "provenance_of",
    "read_progress",
    "reason_of",
    "received_uploads",
    "remove_progress",
    "storage_fault",
    "sweep_progress",
    "texts_of",
    "unbundle",
    "upload_digest",
    "uploads_of",
    "without_pandas",
    "write_features",
    "write_list",
    "write_picked",
    "write_progress",
]
