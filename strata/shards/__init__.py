"""Shards: expanding their patterns, indexing tars, folders and lists, and reading images by their offsets.

It imports `strata.core` and `strata.store`. Read `sources.py` first (`index_shard`), then
`image_reader.py` (`read_images`).
"""

from __future__ import annotations

from strata.shards.image_reader import ImageReader, ShardChanged, read_file, read_images
from strata.shards.keys import Keys
from strata.shards.metadata import MetadataReader
from strata.shards.patterns import find_shards
from strata.shards.ranges import TooManyShards, expand
from strata.shards.roots import OutsideRoots, ShardMissing, SourceError, normalise
from strata.shards.sources import index_shard
from strata.shards.stamps import shard_stamp, shard_stamps

__all__ = [
    "ImageReader",
    "Keys",
    "MetadataReader",
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
