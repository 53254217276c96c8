"""`python -m bench.worker_memory.one_call pages=4 photographs=2 [--without STAGE …]`: memory without a service.

The demo's stages of images get the images of each kind at once, decoded as a worker does it. Printed is a line of JSON:
for each kind the largest proportional set size of this process with its decoders, in MiB above that with loaded models,
and the number of rows that succeeded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import psutil  # type: ignore[import-untyped]

from bench.processes import CHECKOUT
from bench.worker_memory.large_images import pages, panoramas, photographs
from bench.worker_memory.resident import peak_memory
from models.items import MOST_PIXELS
from models.pipeline import VisionPipeline
from strata.core import ImageReference, Record, Status, load_profile
from strata.images import DecodingPool
from workers.items import WorkItem, decoded

MIB = 2**20
KINDS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "pages": pages,
    "photographs": photographs,
    "panoramas": panoramas,
}


def measure(counts: Mapping[str, int], without: Sequence[str]) -> dict[str, tuple[int, int]]:
    """By kind the peak in MiB above loaded models, and the number of rows that succeeded. counts: of images."""
    pipeline = VisionPipeline(load_profile("demo", CHECKOUT / "models" / "profiles"))
    for stage in without:
        del pipeline.stages[stage]
    pipeline.load()
    peaks: dict[str, tuple[int, int]] = {}
    with DecodingPool(100_000_000) as decoder:
        for kind, count in counts.items():
            images = list(KINDS[kind](count))
            decoder.check(images[0])  # its processes start
            with peak_memory(psutil.Process()) as found:
                items = decoded([_item(number, data) for number, data in enumerate(images)], decoder, most=MOST_PIXELS)
                records = pipeline.run([(item.record, item.image) for item in items if item.image is not None])
            succeeded = [record for record in records if record.status is Status.SUCCEEDED]
            peaks[kind] = (found[1] - found[0]) // MIB, len(succeeded)
    return peaks


def _item(number: int, data: bytes) -> WorkItem:
    return WorkItem(Record(key=str(number), image=ImageReference(uri=str(number), offset=0, size=len(data))), data=data)


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="+", metavar="KIND=COUNT", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--without", action="append", default=[], help="a stage that is left out; may be repeated")
    options = parser.parse_args()
    counts = {kind: int(count) for kind, _, count in (one.partition("=") for one in options.counts)}
    print(json.dumps(measure(counts, options.without)))


if __name__ == "__main__":
    main()
