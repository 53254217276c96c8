"""Own scores (`strata snapshot create --scores FILE`) of as many rows as a large store has: time and memory.

A file with a number, a text and a flag for each key is written, and columns of rows; both are not counted. Measured are
reading and checking the file, joining it with the rows, telling its gaps, and what a filter, a quality and an axis by
its columns take. One row in a hundred has no scores.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from bench.selection.balanced import Figures
from strata.snapshots import axes_of
from strata.snapshots.filters import Expression, Filter
from strata.snapshots.own_files import OwnFiles, read_own_files

WITHOUT = 100  # of so many rows one has no scores


def _write(path: Path, rows: int) -> pa.Table:
    """Write the file; returns the rows, with keys as img2dataset makes them: the shard, then the place in it."""
    random = np.random.default_rng(0)
    keys = pa.array([f"{number:09d}" for number in range(rows)])
    scored = np.flatnonzero(np.arange(rows) % WITHOUT)
    random.shuffle(scored)
    domains = pa.array([f"domain {number}" for number in range(40)])
    columns = {
        "key": keys.take(pa.array(scored)),
        "rating": random.normal(5, 1, len(scored)),
        "domain": domains.take(pa.array(random.integers(0, len(domains), len(scored)))),
        "indoor": random.random(len(scored)) < 0.3,
    }
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return pa.table({"key": keys, "part": pa.array(np.arange(rows) // 256, pa.int32()), "match": random.random(rows)})


def measure(folder: Path, rows: int, form: str) -> Figures:
    """Write the file, which is not counted, and measure all figures. form: csv or parquet."""
    path = folder / f"scores.{form}"
    table = _write(path, rows)
    figures: Figures = {"rows": rows, "size of the file, MiB": path.stat().st_size / 2**20}
    figures["memory before, MiB"] = _peak()

    def timed(name: str, act: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        found = act()
        figures[f"{name}, seconds"] = time.perf_counter() - wall
        figures[f"{name}, CPU seconds"] = time.process_time() - processor
        figures[f"{name}, peak memory so far, MiB"] = _peak()
        return found

    own: OwnFiles = timed("read", lambda: read_own_files(path, None))
    joined: pa.Table = timed("joined", lambda: own.join(table))
    gaps = timed("gaps told", lambda: own.gaps(joined))
    if not gaps or not gaps[0].startswith(f"{len(range(0, rows, WITHOUT)):,} of {rows:,} rows have no scores"):
        raise RuntimeError(f"the gaps are not those that were made: {gaps}")
    where = Filter("rating >= 5 and not indoor", own.kinds)
    figures["rows that pass"] = len(timed("filtered", lambda: where.rows(joined)))
    timed("worth", lambda: Expression("rating * match", own.kinds).values(joined))
    (axis,) = axes_of(["domain:10"], [], own=own.kinds)
    timed("by a column", lambda: axis.resolved(joined.column("domain")).codes(joined.column("domain")))
    return figures


def _peak() -> float:
    """The highest memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
