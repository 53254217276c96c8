"""`python -m bench.store.s3`: reading images and planning in an S3 bucket, beside plain ranged reads of the same bytes.

The bucket is on moto's server, or on the one of AWS_ENDPOINT_URL. Plain reads are those of aiobotocore, as many at a
time as the reader has connections. The two take turns, three rounds each, and medians are compared:

- images: those of a tar in an order drawn by chance, as the training reader fetches them (before it decodes them);
- planning: which parts of a shard exist and what they count: a listing and the footers of the parts, one range each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import get_session  # type: ignore[import-untyped]
from fsspec.asyn import sync

from bench.inputs.s3_server import s3_server
from bench.store.planted import FINGERPRINTS
from strata.core import Chunk, ImageReference, Record, Status
from strata.data.prefetch import prefetch_map
from strata.data.reader import RUN, THREADS
from strata.shards import ImageReader
from strata.store import Attempts, Footer, IndexRow, Part, Store
from strata.store.part_files import TAIL
from strata.store.storages import CONNECTIONS

ROUNDS = 3
SIZE, GAP = 40_000, 300_000  # bytes of an image, and between two: none are joined by chance
BUCKET = "bench-reader"
Get = tuple[str, int, int]  # key, first byte, end


async def _plain(gets: Sequence[Get], listed: str) -> int:
    """The bytes of ranges, and before that a listing of the keys with a prefix if one is given."""
    room, config = asyncio.Semaphore(CONNECTIONS), AioConfig(max_pool_connections=CONNECTIONS)
    async with get_session().create_client("s3", config=config) as client:
        if listed:
            await client.list_objects_v2(Bucket=BUCKET, Prefix=listed)

        async def get(key: str, start: int, end: int) -> int:
            span = f"bytes={start}-{end - 1}" if start >= 0 else f"bytes={start}"
            async with room:
                answer = await client.get_object(Bucket=BUCKET, Key=key, Range=span)
                async with answer["Body"] as body:
                    return len(await body.read())

        return sum(await asyncio.gather(*(get(*each) for each in gets)))


def plain(gets: Sequence[Get], listed: str = "") -> int:
    """The number of bytes that plain ranged reads get."""
    return asyncio.run(_plain(gets, listed))


class Images:
    """The images of a tar in a bucket, in an order drawn by chance."""

    def __init__(self, store: Store, count: int) -> None:
        store.fs.pipe_file(f"{BUCKET}/a.tar", os.urandom(count * (SIZE + GAP)))
        order = random.Random(1).sample(range(count), count)
        self.rows = [IndexRow(str(n), f"s3://{BUCKET}/a.tar", n * (SIZE + GAP) + 512, SIZE) for n in order]
        self.reader = ImageReader()

    def ours(self) -> int:
        """By the reader."""
        runs = (self.rows[start : start + RUN] for start in range(0, len(self.rows), RUN))
        return sum(len(one) for run in prefetch_map(self._read, runs, THREADS) for one in run)

    def _read(self, run: Sequence[IndexRow]) -> list[bytes]:
        # in file order, as `ImageFiles` has it
        found = self.reader.read(sorted(run, key=lambda row: row.offset))
        if bad := next((one for one in found if not isinstance(one, bytes)), None):
            raise bad
        return [one for one in found if isinstance(one, bytes)]

    def theirs(self) -> int:
        """By plain reads."""
        return plain([("a.tar", row.offset, row.offset + row.size) for row in self.rows])


class Planning:
    """The parts of a shard in a bucket, of which each has some records."""

    def __init__(self, store: Store, count: int) -> None:
        self.store = store
        self.chunks = [Chunk("llm", "bench", FINGERPRINTS["llm"], "a.tar", "a" * 16, n, 8) for n in range(count)]
        record = Record(key="0", image=ImageReference(uri="s", size=1), status=Status.SUCCEEDED)
        for chunk in self.chunks:
            store.write_records(chunk, [record] * 8)

    def ours(self) -> int:
        """By a plan's own calls."""
        attempts: Attempts = self.store.attempts(self.chunks[0])
        there = [chunk for chunk in self.chunks if attempts.newest(chunk)]
        footers = self.store.read_all_footers(there)
        return sum(footer.counts.total() for footer in footers if isinstance(footer, Footer))

    def theirs(self) -> int:
        """By plain reads of the same bytes."""
        keys = [f"store/{Part.of_chunk(chunk).path}" for chunk in self.chunks]
        return plain([(key, -TAIL, 0) for key in keys], keys[0].rpartition("/")[0])


def _seconds(act: Callable[[], int]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measured(name: str, of: Any, number: int) -> dict[str, float]:
    """The rates of both ways, in turn; the first round warms up."""
    rounds = [(_seconds(of.ours), _seconds(of.theirs)) for _ in range(ROUNDS + 1)][1:]
    ours, theirs = (number / statistics.median(times) for times in zip(*rounds, strict=True))
    ratios = sorted(theirs / ours for ours, theirs in rounds)
    return {f"{name}/s": ours, f"{name}/s, plain": theirs, f"{name}: ratio, median of rounds": ratios[len(ratios) // 2]}


@contextmanager
def server() -> Iterator[None]:
    """A block with a server, whose address is in the environment."""
    if "AWS_ENDPOINT_URL" in os.environ:
        yield
        return
    with s3_server() as s3:
        os.environ.update(s3.environment)
        yield


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=500)
    options = parser.parse_args()
    with server():
        store = Store(f"s3://{BUCKET}/store")
        store.fs.mkdirs(BUCKET, exist_ok=True)
        figures = measured("images", Images(store, options.images), options.images)
        figures |= measured("parts planned", Planning(store, options.parts), options.parts)
        store.fs.rm(BUCKET, recursive=True)
        sync(store.fs.loop, store.fs._s3creator.__aexit__, None, None, None)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
