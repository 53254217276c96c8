"""A thousand damaged shards: no crash, no hang, and only the damaged samples are lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from bench.hostile.tars import MUTATIONS, STYLES, Broken, shard
from strata.images import ImageError, decode
from strata.shards.image_reader import read_images
from strata.shards.roots import SourceError
from strata.shards.sources import index_shard

SEEDS = 360  # mutated shards of each style
LONGEST = 2.0  # seconds of CPU for one shard of a few KB


@pytest.mark.parametrize("style", STYLES)
def test_broken_shards(tmp_path: Path, style: str) -> None:
    data, good = shard(style)
    path = tmp_path / "0.tar"
    check(path, Broken(data, good))
    for seed in range(SEEDS):
        rng = random.Random(f"{style} {seed}")
        mutate = rng.choice(MUTATIONS)
        try:
            check(path, mutate(data, good, rng))
        except AssertionError as error:
            raise AssertionError(f"{mutate.__name__}, seed {seed} of {style}") from error


def check(path: Path, broken: Broken) -> None:
    """Index, read and decode a shard: its undamaged samples must come out, without an exception and in time."""
    path.write_bytes(broken.data)
    started = time.process_time()
    index = index_shard(str(path))
    found = set()
    for row, data in zip(index.rows, read_images(index.rows), strict=True):
        if isinstance(data, Exception):
            assert isinstance(data, SourceError | OSError) and row.error
            continue
        assert row.error or (row.offset > 0 and row.offset + row.size <= len(broken.data))
        found.add((data, row.alt_text))
        try:
            decode(data, 10_000)
        except ImageError as error:
            assert error.kind
    assert time.process_time() - started < LONGEST
    lost = [sample.text for sample in broken.whole if (sample.image, sample.text) not in found]
    assert not lost, (lost, index.failure)
    assert index.failure or not broken.told
