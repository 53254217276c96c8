"""Snapshots with real images (shards of small JPEGs) and descriptions, for tests of reading and exporting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from strata.core.chunks import Chunk
from strata.core.records import Caption, Description, ImageReference, Record, Region
from strata.shards.sources import index_shard
from strata.snapshots.selection import Selection
from strata.snapshots.snapshot import Snapshot
from strata.snapshots.snapshots import Snapshots
from strata.store.index_rows import IndexRow
from strata.store.store import Store
from tests.fakes import jpeg, write_shard

CHUNK = 4

Describe = Callable[[IndexRow], Record]


def describe(row: IndexRow) -> Record:
    """A record whose texts at every level contain its key."""
    return Record(
        key=row.key,
        image=ImageReference(uri=row.uri, offset=row.offset, size=row.size),
        width=100,
        height=50,
        alt_text=row.alt_text,
        caption=Caption(text=f"caption {row.key}"),
        regions=[
            Region(box=(0, 0, 50, 25), phrase=f"thing {row.key}"),
            Region(box=(0, 0, 1, 1), phrase="a ghost", kept=False, reason="low_match"),
            Region(box=(99.9, 10, 100, 50), phrase="an edge"),
        ],
        objects=[],
        text=[],
        description=Description(text=f"description {row.key}", sentences=[]),
    )


def write_shards(folder: Path, shards: int, images: int) -> list[str]:
    """Write tars of JPEGs, 100 + number wide and 50 high, so that the width identifies the image."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(shards):
        first = shard * images
        data = [jpeg(100 + number, 50) for number in range(first, first + images)]
        paths.append(write_shard(folder / f"{shard:05d}.tar", data, first))
    return paths


def pin(store: Store, shards: list[str], name: str = "pinned", describe: Describe = describe) -> Snapshot:
    """Make a snapshot of all images of these shards."""
    chunks = []
    for shard in shards:
        index = index_shard(shard)
        store.keep_identity(str(index.stamp), index.identity)  # as the indexer does
        for number, first in enumerate(range(0, index.table.num_rows, CHUNK)):
            rows = index.rows[first : first + CHUNK]
            chunk = Chunk("llm", "fake", "f" * 16, shard, index.identity, number, len(rows))
            store.write_records(chunk, [describe(row) for row in rows])
            chunks.append(chunk)
    return Snapshots(store).create(name, chunks, Selection(method="random"))
