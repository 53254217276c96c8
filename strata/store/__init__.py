"""The store: parts, uploads and job files in a folder or a bucket.

Of Strata it imports only `strata.core` and `strata.errors`. Read `store.py` first, then `parts.py`.
"""

from __future__ import annotations

from strata.store.filesystem import as_os_error, file_system
from strata.store.index_rows import IndexRow, ShardIndex, identity_of, index_table, located_rows
from strata.store.parts import Part, PartsOf, UnknownSource, last_attempts
from strata.store.provenance import Provenance, keep_profile, provenance_of
from strata.store.shard_files import upload_digest
from strata.store.storage_errors import is_transient, reason_of
from strata.store.store import READERS, Store, count_of, families_of

__all__ = [
    "READERS",
    "IndexRow",
    "Part",
    "PartsOf",
    "Provenance",
    "ShardIndex",
    "Store",
    "UnknownSource",
    "as_os_error",
    "count_of",
    "families_of",
    "file_system",
    "identity_of",
    "index_table",
    "is_transient",
    "keep_profile",
    "last_attempts",
    "located_rows",
    "provenance_of",
    "reason_of",
    "upload_digest",
]
