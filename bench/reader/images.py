"""The data of `bench.reader`: shards of three kinds of images, and a snapshot in which each has a description."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from bench.inputs import tiny_shards
from samples.shards import ShardOptions, write_shards
from strata.core import Caption, Chunk, Description, ImageReference, Record
from strata.shards import index_shard
from strata.snapshots import Selection, Snapshots
from strata.store import Store

FIRST_SEED = 7_000_000  # scenes that no other run uses
PHOTOGRAPH = (500, 375)  # pixels
SHARDS = 8
CHUNK = 256
WORDS = "a red car stands to the left of a blue dog and below it is a sign that says EXIT"


def photographs(folder: Path, count: int) -> list[Path]:
    """Write shards of photographs' crops, all different."""
    whole, random, found = load_sample_images().images, np.random.default_rng(0), {}
    width, height = PHOTOGRAPH
    for number in range(count):
        pixels = whole[number % len(whole)]
        top, left = (
            random.integers(0, side - part + 1) for side, part in zip(pixels.shape[:2], (height, width), strict=True)
        )
        crop, buffer = pixels[top : top + height, left : left + width], io.BytesIO()
        Image.fromarray(crop[:, :: random.choice((-1, 1))]).save(buffer, "JPEG", quality=90)
        found[number] = buffer.getvalue()
    return _tars(folder, count, found)


def scenes(folder: Path, count: int) -> list[Path]:
    """Write shards of drawings."""
    return write_shards(folder, ShardOptions(count, FIRST_SEED, -(-count // SHARDS)))


def tiny(folder: Path, count: int) -> list[Path]:
    """Write shards of tiny images."""
    return _tars(folder, count, {})


def _tars(folder: Path, count: int, special: dict[int, bytes]) -> list[Path]:
    paths = [folder / f"{shard:05d}.tar" for shard in range(SHARDS)]
    bounds = np.linspace(0, count, SHARDS + 1).astype(int).tolist()
    for path, first, end in zip(paths, bounds, bounds[1:], strict=False):
        tiny_shards.write_shard(path, first, end - first, special)
    return paths


IMAGES: dict[str, tuple[Callable[[Path, int], list[Path]], int]] = {
    "photographs": (photographs, 2000),
    "scenes": (scenes, 4000),
    "tiny": (tiny, 8000),
}


def describe(store: Store, shards: Sequence[Path]) -> None:
    """Make a snapshot `bench` of all images, each with a made-up description."""
    chunks = []
    for shard in shards:
        # the image references come from a real index
        index = index_shard(str(shard))
        for number, first in enumerate(range(0, index.table.num_rows, CHUNK)):
            rows = index.rows[first : first + CHUNK]
            chunk = Chunk("llm", "bench", "b" * 16, str(shard), index.identity, number, len(rows))
            # only what the reader needs: a caption and a description
            records = [
                Record(
                    key=row.key,
                    image=ImageReference(uri=row.uri, offset=row.offset, size=row.size),
                    caption=Caption(text=WORDS),
                    regions=[],
                    objects=[],
                    text=[],
                    description=Description(text=f"{row.key}: {WORDS}", sentences=[]),
                )
                for row in rows
            ]
            store.write_records(chunk, records)
            chunks.append(chunk)
    Snapshots(store).create("bench", chunks, Selection(method="random"))
