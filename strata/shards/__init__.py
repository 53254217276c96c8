"""Shards: expanding their patterns, indexing tars, folders and lists, and reading images by their offsets.

It imports `strata.core` and `strata.store`. Read `sources.py` first: `index_shard` and `read_images` are its interface.
"""

from __future__ import annotations

from strata.shards.patterns import OutsideRoots, ShardMissing, SourceError, expand, find_shards, normalise
from strata.shards.sources import index_shard, read_file, read_images, shard_identity, verify_unchanged
from strata.shards.tars import Keys

__all__ = [
    "Keys",
    "OutsideRoots",
    "ShardMissing",
    "SourceError",
    "expand",
    "find_shards",
    "index_shard",
    "normalise",
    "read_file",
    "read_images",
    "shard_identity",
    "verify_unchanged",
]
