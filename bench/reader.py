"""`python -m bench.reader`: samples a second out of Strata's reader, webdataset and Hugging Face datasets.

The same JPEGs of scenes in the same tars, decoded by the same function, by as many DataLoader workers, with warm page
cache. The reader gives them shuffled globally; webdataset and datasets read the tars straight through. Rounds take
turns, so that what else the machine does meets all of them; the medians are compared. datasets is also measured with
the decoding that it does itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from samples.shards import ShardOptions, write_shards
from strata import images
from strata.chunks import Chunk
from strata.mixtures import Mixture
from strata.reader import MAX_PIXELS, Sample, SampleReader
from strata.records import Caption, Description, ImageReference, Record
from strata.selection import Selection
from strata.snapshot_sources import snapshot_source
from strata.snapshots import Snapshots
from strata.sources import index_shard
from strata.store import Store

FIRST_SEED = 7_000_000  # scenes that no other run uses
BATCH = 32
CHUNK = 256
WORDS = "a red car stands to the left of a blue dog and below it is a sign that says EXIT"

Batch = list[tuple[int, int, int]]


def describe(store: Store, shards: Sequence[Path]) -> None:
    """A snapshot `bench` of all images, each with some description."""
    chunks = []
    for shard in shards:
        index = index_shard(str(shard))
        for number, first in enumerate(range(0, index.table.num_rows, CHUNK)):
            rows = index.rows[first : first + CHUNK]
            chunk = Chunk("llm", "bench", "b" * 16, str(shard), index.identity, number, len(rows))
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


def told(image: Image.Image, text: str) -> tuple[int, int, int]:
    """What a worker hands back of a sample: enough to know that it was there, too little to cost anything."""
    return image.width, image.height, len(text)


def of_samples(batch: Sequence[Sample]) -> Batch:
    """A batch of the reader's."""
    return [told(sample.image, sample.conversation[1]["content"]) for sample in batch]


def of_rows(batch: Sequence[dict[str, Any]]) -> Batch:
    """A batch of datasets' own decoding."""
    return [told(row["jpg"], row["txt"]) for row in batch]


def of_bytes(batch: Sequence[dict[str, Any]]) -> Batch:
    """A batch of datasets', decoded by our function."""
    return [told(images.decode(row["jpg"]["bytes"], MAX_PIXELS), row["txt"]) for row in batch]


def decoded(sample: dict[str, Any]) -> tuple[int, int, int]:
    """A sample of webdataset's, decoded by our function."""
    return told(images.decode(sample["jpg"], MAX_PIXELS), sample["txt"].decode())


class Bench:
    """The four ways to read the same images."""

    def __init__(self, folder: Path, images: int, shards: int, workers: int) -> None:
        self.images, self.workers = images, workers
        paths = write_shards(folder / "shards", ShardOptions(images, FIRST_SEED, -(-images // shards)))
        self.tars = [str(path) for path in paths]
        store = Store(str(folder / "store"))
        describe(store, paths)
        source = snapshot_source(store, Snapshots(store).open("bench"), "description", folder / "cache")
        self.mixture = Mixture.of(source, "Describe this image.")

    def _loader(self, dataset: Any, collate: Callable[[Any], Batch]) -> DataLoader[Any]:
        return DataLoader(dataset, BATCH, num_workers=self.workers, collate_fn=collate)

    def reader(self) -> DataLoader[Any]:
        """Strata's, in an order of its own."""
        return self._loader(SampleReader(self.mixture, seed=1, batch_size=BATCH), of_samples)

    def webdataset(self) -> DataLoader[Any]:
        """webdataset, straight through."""
        stages = (webdataset.split_by_worker, webdataset.tarfile_to_samples(), webdataset.map(decoded))
        return self._loader(webdataset.DataPipeline(webdataset.SimpleShardList(self.tars), *stages), list)

    def datasets(self) -> DataLoader[Any]:
        """datasets, streaming, images as its Image feature decodes them."""
        return self._loader(self._streamed(), of_rows)

    def datasets_same_decode(self) -> DataLoader[Any]:
        """datasets, streaming, images decoded by our function."""
        return self._loader(self._streamed().cast_column("jpg", datasets.Image(decode=False)), of_bytes)

    def _streamed(self) -> Any:
        return datasets.load_dataset("webdataset", data_files=self.tars, split="train", streaming=True)

    def rates(self, rounds: int) -> dict[str, list[float]]:
        """Samples a second of each way, by rounds that take turns; a first one, which warms up, is left out."""
        ways = (self.reader, self.webdataset, self.datasets, self.datasets_same_decode)
        found: dict[str, list[float]] = {way.__name__: [] for way in ways}
        for number in range(rounds + 1):
            for way in ways:
                rate = self.images / _seconds(way(), self.images)
                print(
                    f"{'warm-up' if not number else f'round {number}'}: {way.__name__} {rate:,.0f}/s", file=sys.stderr
                )
                if number:
                    found[way.__name__].append(rate)
        return found


def _seconds(batches: Iterator[Batch] | DataLoader[Any], images: int) -> float:
    """Seconds to read all, workers' start included. Raises RuntimeError if some are missing."""
    start = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    if count != images:
        raise RuntimeError(f"{count} samples instead of {images}")
    return time.perf_counter() - start


def main() -> None:
    """Measure and print medians, ratios and whether they are as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.images, arguments.shards, arguments.workers)
        rates = bench.rates(arguments.rounds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {f"reader / {name}": medians["reader"] / medians[name] for name in medians if name != "reader"}
    met = ratios["reader / webdataset"] >= 0.9 and ratios["reader / datasets"] >= 2
    print(json.dumps({"samples per second": medians, "ratios": ratios, "as promised": met}, indent=2))
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
