"""`python -m bench.reader`: samples/s of Strata's reader, webdataset and Hugging Face datasets.

The same JPEGs in the same tars are decoded by the same function, by as many DataLoader workers, with warm page cache.
Each way has the decoded images of a whole batch at once, as the collate function of a training needs them. The reader
yields them shuffled globally; webdataset reads the tars in order; datasets streams them in order, through its shuffle
buffer, and with its own decoding. Rounds alternate, so that other load on the machine affects all of them; medians are
compared, with the CPU time per sample beside them.

Images: `photographs`, 500 by 375 crops of scikit-learn's two photographs; `scenes`, drawings of some
256 by 256, a common size of stored CC3M images; `tiny`, of 350 bytes, which measures mostly overhead.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import webdataset
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from bench.reader.images import IMAGES, describe
from strata import images
from strata.data import MAX_PIXELS, Mixture, Sample, SampleReader, snapshot_source
from strata.snapshots import Snapshots
from strata.store import Store

BATCH = 32
BUFFER = 1000  # images in datasets' shuffle buffer
WANTED = 1.0  # the reader's rate by that of each other way, at the least

Batch = list[tuple[int, int, int]]


def told(image: Image.Image, text: str) -> tuple[int, int, int]:
    """A worker's result for a sample: enough to show that it was decoded, but cheap to transfer."""
    return image.width, image.height, len(text)


def of_samples(batch: Sequence[Sample]) -> Batch:
    """Collate a batch of the reader."""
    return [told(sample.image, sample.conversation[1]["content"]) for sample in batch]


def of_rows(batch: Sequence[dict[str, Any]]) -> Batch:
    """Collate a batch that datasets has decoded."""
    return [told(row["jpg"], row["txt"]) for row in batch]


def of_bytes(batch: Sequence[dict[str, Any]]) -> Batch:
    """Decode and collate a batch of datasets by our function."""
    return of_pairs([(images.decode(row["jpg"]["bytes"], MAX_PIXELS), row["txt"]) for row in batch])


def decoded(sample: dict[str, Any]) -> tuple[Image.Image, str]:
    """Decode a sample of webdataset by our function."""
    return images.decode(sample["jpg"], MAX_PIXELS), sample["txt"].decode()


def of_pairs(batch: Sequence[tuple[Image.Image, str]]) -> Batch:
    """Collate a batch of images and texts."""
    return [told(*pair) for pair in batch]


class Ways:
    """The ways to read the same images, each as a DataLoader with `workers` workers."""

    def __init__(self, folder: Path, tars: Sequence[Path]) -> None:
        self.tars = [str(path) for path in tars]
        store = Store(str(folder / "store"))
        describe(store, tars)
        source = snapshot_source(store, Snapshots(store).open("bench"), "description", folder / "cache")
        self.mixture = Mixture.of(source, "Describe this image.")
        self.workers = 0

    def _loader(self, dataset: Any, collate: Callable[[Any], Batch]) -> DataLoader[Any]:
        return DataLoader(dataset, BATCH, num_workers=self.workers, collate_fn=collate)

    def reader(self) -> DataLoader[Any]:
        """Strata's reader, shuffled globally."""
        return self._loader(SampleReader(self.mixture, seed=1, batch_size=BATCH), of_samples)

    def webdataset(self) -> DataLoader[Any]:
        """webdataset, in order."""
        stages = (webdataset.split_by_worker, webdataset.tarfile_to_samples(), webdataset.map(decoded))
        return self._loader(webdataset.DataPipeline(webdataset.SimpleShardList(self.tars), *stages), of_pairs)

    def datasets(self) -> DataLoader[Any]:
        """datasets, streaming in order."""
        return self._loader(self._streamed().cast_column("jpg", datasets.Image(decode=False)), of_bytes)

    def datasets_shuffled(self) -> DataLoader[Any]:
        """datasets, streaming through a shuffle buffer."""
        streamed = self._streamed().cast_column("jpg", datasets.Image(decode=False))
        return self._loader(streamed.shuffle(seed=1, buffer_size=BUFFER), of_bytes)

    def datasets_decoding(self) -> DataLoader[Any]:
        """datasets, streaming in order, with images decoded by its Image feature."""
        return self._loader(self._streamed(), of_rows)

    def _streamed(self) -> Any:
        return datasets.load_dataset("webdataset", data_files=self.tars, split="train", streaming=True)


class Line:
    """One line of the report: the rates per round for one kind of images and one number of workers."""

    def __init__(self, kind: str, workers: int) -> None:
        self.kind, self.workers = kind, workers
        self.rates: dict[str, list[float]] = {}
        self.costs: dict[str, list[float]] = {}

    def measure(self, ways: Ways, rounds: int) -> None:
        """Read all images in each way, alternating. A first round warms up and is not counted."""
        ways.workers = self.workers
        for number in range(rounds + 1):
            for way in (ways.reader, ways.webdataset, ways.datasets, ways.datasets_shuffled, ways.datasets_decoding):
                # the ways alternate within a round, so that load on the machine affects all of them
                seconds, processor = _seconds(way(), len(ways.mixture))
                rate, cost = len(ways.mixture) / seconds, processor / len(ways.mixture)
                told = f"round {number}" if number else "warm-up"
                print(f"{self.kind}, {self.workers} workers, {told}: {way.__name__} {rate:,.0f}/s", file=sys.stderr)
                if number:
                    self.rates.setdefault(way.__name__, []).append(rate)
                    self.costs.setdefault(way.__name__, []).append(cost)

    def figures(self) -> dict[str, Any]:
        """The medians, and the reader's rate in relation to the others."""
        rates = {name: statistics.median(values) for name, values in self.rates.items()}
        costs = {name: 1000 * statistics.median(values) for name, values in self.costs.items()}
        ratios = {name: rates["reader"] / rate for name, rate in rates.items() if name != "reader"}
        return {
            "images": self.kind,
            "workers": self.workers,
            "samples per second": rates,
            "CPU milliseconds per sample": costs,
            "reader's rate by another's": ratios,
            "as promised": {name: ratio >= WANTED for name, ratio in ratios.items()},
        }


def _seconds(batches: Iterable[Batch], images: int) -> tuple[float, float]:
    """The wall-clock and CPU seconds to read all, including the start of workers.

    Raises RuntimeError if some are missing.
    """
    start, processor = time.perf_counter(), _processor()
    count = sum(len(batch) for batch in batches)
    seconds = time.perf_counter() - start
    if count != images:
        raise RuntimeError(f"{count} samples instead of {images}")
    multiprocessing.active_children()  # reaps children that have ended, so that their CPU time counts
    return seconds, _processor() - processor


def _processor() -> float:
    """The CPU seconds of this process and of its ended children."""
    spent = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def table(lines: Sequence[dict[str, Any]]) -> Table:
    """Format the rates, with the reader's ratio to each in brackets."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("images, workers", no_wrap=True)
    for name in lines[0]["samples per second"]:
        made.add_column(f"{name}/s", justify="right")
    for line in lines:
        ratios = line["reader's rate by another's"]
        cells = [
            f"{rate:,.0f}" + (f" ({ratios[name]:.2f})" if name in ratios else "")
            for name, rate in line["samples per second"].items()
        ]
        made.add_row(f"{line['images']}, {line['workers']}", *cells)
    return made


def main() -> None:
    """Measure, and print medians and ratios (--json: everything). The exit code is 1 if a ratio is not as wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--count", type=int, help="images of each kind")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    lines = []
    for kind in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            write, count = IMAGES[kind]
            # the same files for all numbers of workers
            ways = Ways(Path(folder), write(Path(folder) / "shards", arguments.count or count))
            for workers in arguments.workers:
                line = Line(kind, workers)
                line.measure(ways, arguments.rounds)
                lines.append(line.figures())
    if arguments.json:
        print(json.dumps(lines, indent=2))
    else:
        Console(width=160).print(table(lines))
    raise SystemExit(0 if all(met for figures in lines for met in figures["as promised"].values()) else 1)


if __name__ == "__main__":
    main()
