"""`python -m bench.curation.chosen`: what a job of chosen rows costs before its first image is described.

Made-up parts (`inputs.synthetic_parts`) and the index parts of their shards are written; this is not counted. Then are
measured: the seconds until the parts are pinned, which a submission waits for; those of an indexer that finds the rows
of all shards, one after the other; and those of a comparison of the texts with themselves.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bench.inputs.synthetic_parts import FINGERPRINT, SyntheticParts
from strata.core import ChosenRows, Chunk, Profile, load_profile, load_settings
from strata.jobs import Chosen
from strata.jobs.new_jobs import new_request, of_chosen
from strata.queue import Claim
from strata.snapshots import Descriptions, compared
from strata.snapshots.chosen import Pinning
from strata.store import IndexRow, Part, Store, index_table
from workers.indexer import ShardIndexer


def _write_indexes(store: Store, profile: Profile, parts: Iterable[Part]) -> None:
    """The index parts of the shards, as if the tars had been indexed."""
    rows: dict[str, int] = {}
    for part in parts:
        chunk = Chunk(part.group, "", part.fingerprint, "", part.identity, part.number)
        rows[part.identity] = rows.get(part.identity, 0) + sum(store.read_footer(chunk).counts.values())
    for identity, count in rows.items():
        found = (IndexRow(f"{n:09d}", "", 512 + 42_000 * n, 40_000, None, None, f"{n:08x}") for n in range(count))
        index = Chunk("index", profile.name, profile.fingerprint("index"), f"{identity}.tar", identity)
        store.write_index(index, index_table(found))


def _clocks() -> np.typing.NDArray[np.float64]:
    return np.array([time.perf_counter(), time.process_time()])


def measure(folder: Path, rows: int, where: str) -> dict[str, float]:
    """Measure all figures. where: the filter."""
    store, profile = Store(str(folder / "store")), load_profile("demo", load_settings().profiles_dir)
    parts = SyntheticParts(store, 1).write("old", rows)
    _write_indexes(store, profile, parts)
    began = _clocks()
    pin = Pinning(store).pin([FINGERPRINT], where)
    pinned = _clocks()
    request = new_request("batch", [], profile, "lo", {}, [], None, "")
    request = of_chosen(request, Chosen(ChosenRows(sources=[FINGERPRINT], where=where), pin))
    store.write_job_file(request.id, "chosen", pin)
    indexer, started = ShardIndexer(store), _clocks()
    claims = [Claim(request.index_chunk(shard), "lo", "1") for shard in request.shards]
    summaries = [indexer.summary(claim, lambda act: act()) for claim in claims]
    ended = _clocks()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    failed = [one.failure for one in summaries if one.failure is not None]
    if failed:
        raise RuntimeError(str(failed[0]))
    side = Descriptions(store, [part.path for part in parts])
    compared(side, side)
    figures = {
        "rows": rows,
        "shards": len(pin.shards),
        "rows chosen": sum(one.images for one in summaries),
        "bytes of the pin": len(pin.model_dump_json()),
        "peak memory until then, MiB": peak,
    }
    spans = {"pinned": pinned - began, "rows of all shards found": ended - started, "compared": _clocks() - ended}
    for name, (wall, processor) in spans.items():
        figures |= {f"{name}, seconds": wall, f"{name}, CPU seconds": processor}
    return figures


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--where", default="match < 0.4")
    parser.add_argument("--folder", type=Path, help="where to work instead of the system's temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chosen-", dir=options.folder) as folder:
        figures = measure(Path(folder), options.rows, options.where)
    for name, value in figures.items():
        print(f"| {name} | {value:,.{0 if value >= 100 or value == int(value) else 2}f} |")


if __name__ == "__main__":
    main()
