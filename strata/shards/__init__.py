"""Shards: expanding their patterns, indexing tars, folders and lists, and reading images by their offsets.

It imports `strata.core` and `strata.store`. Read `sources.py` first: `index_shard` and `read_images`; then
`image_reader.py`.
"""

from __future__ import annotations

from strata.shards.image_reader import ImageReader
from strata.shards.patterns import find_shards
from strata.shards.ranges import TooManyShards, expand
from strata.shards.roots import OutsideRoots, ShardMissing, SourceError, normalise
from strata.shards.sources import ShardChanged, index_shard, read_file, read_images, shard_stamp, shard_stamps
from strata.shards.tars import Keys

__all__ = [
    "ImageReader",
    "Keys",
    "OutsideRoots",
    "ShardChanged",
    "ShardMissing",
    "SourceError",
    "TooManyShards",
    "expand",
    "find_shards",
    "index_shard",
    "normalise",
    "read_file",
    "read_images",
    "shard_stamp",
    "shard_stamps",
]
