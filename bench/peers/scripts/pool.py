"""A script with multiprocessing, as one writes it in an afternoon: a shard a task, done shards are left out."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.peers.scripts.options import options
from bench.peers.scripts.stage import BATCH, describe_batch, images_of


def run(shard: Path, given: Namespace) -> None:
    """Describe a shard's images and write them under a name that is there only when it is whole."""
    keys: list[str] = []
    captions: list[str] = []
    images = images_of(shard)
    while batch := list(itertools.islice(images, BATCH)):
        keys += [key for key, _ in batch]
        captions += describe_batch(batch, given)
    table = pa.table({"key": keys, "caption": captions})
    unfinished = given.out / f"{shard.stem}.tmp"
    pq.write_table(table, unfinished)
    unfinished.rename(given.out / f"{shard.stem}.parquet")


def main() -> None:
    """Describe what is missing."""
    given = options(__doc__)
    missing = [one for one in sorted(given.shards.glob("*.tar")) if not (given.out / f"{one.stem}.parquet").exists()]
    with multiprocessing.Pool(given.workers) as pool:
        for _ in pool.imap_unordered(functools.partial(run, given=given), missing):
            pass


if __name__ == "__main__":
    main()
