"""Bundles: small parts of a shard in one file, so that a store of 100 million images has few files.

`format.py` has the bytes, `locks.py` who may bundle a shard's parts, `compaction.py` how that is done.
"""

from __future__ import annotations

from strata.store.bundles.compaction import Compaction, FolderPlan, move_misplaced, recover, unbundle
from strata.store.bundles.format import OpenBundle, OpenBundles, encode_bundle
from strata.store.bundles.locks import Busy, folder_lock

__all__ = [
    "Busy",
    "Compaction",
    "FolderPlan",
    "OpenBundle",
    "OpenBundles",
    "encode_bundle",
    "folder_lock",
    "move_misplaced",
    "recover",
    "unbundle",
]
