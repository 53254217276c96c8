"""Shards: patterns, tars, folders and lists, and the index of each."""

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
