"""`python -m bench.search`: search 3.3 million made-up rows, with the index and with plain DuckDB over the parts.

First, parts of made-up rows (`inputs.synthetic_parts`) are written, unless `--store` names a store that has them. Then
are measured: the index is made (seconds, CPU seconds, bytes, peak memory); each search, its first page with the number
of all rows, and its facets; and the same conditions in SQL over the parts' Parquet files, for some of the searches.
Each search runs several times on 2 threads. Of each are told the shortest wall-clock time and the least CPU time of
both threads together: other programs on the machine make the first much longer, and the second a little.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from bench.inputs.synthetic_parts import SyntheticParts
from strata.core import Status
from strata.search import Order, Query, Scope, Search, SearchIndex, facets
from strata.search.database import MEMORY, THREADS
from strata.store import Store

ROWS, REPEATS, PLAIN_REPEATS = 3_300_000, 7, 1
# the searches that are tried with plain DuckDB too: the others take as long
PLAIN = ("everything", "a word of one row in 2,600", "a rare thing", "failed")
LIMIT = 50  # rows of a page
Figures = dict[str, float]

# what is searched for, in which order, and the same as a condition on the columns of the parts
_TEXTS = "lower(concat_ws(' ', alt_text, caption.text, description.text))"
_THINGS = "list_filter(list_concat(regions, objects), lambda x: x.kept)"
SEARCHES: dict[str, tuple[Query, Order, str]] = {
    "everything": (Query(), "store", "true"),
    "everything, the best first": (Query(), "best", "true"),
    "a word of one row in 2,600": (Query(text="xyc"), "store", f"{_TEXTS} like '%xyc%'"),
    "a word of two rows in five": (Query(text="yba"), "store", f"{_TEXTS} like '%yba%'"),
    "three words": (Query(text="aaa yba caa"), "store", f"{_TEXTS} like '%yba%' and {_TEXTS} like '%caa%'"),
    "a rare thing": (
        Query(thing=("zac",)),
        "store",
        f"len(list_filter({_THINGS}, lambda x: x.phrase like '% zac %')) > 0",
    ),
    "the commonest thing, the worst first": (
        Query(thing=("aaa",)),
        "worst",
        f"len(list_filter({_THINGS}, lambda x: x.phrase like '% aaa %')) > 0",
    ),
    "failed": (Query(status=(Status.FAILED,)), "store", "status = 'failed'"),
    "a part of a key": (Query(key="00001234"), "store", "contains(key, '00001234')"),
    "text, 60 words or more, score 0.6 or more": (
        Query(has_text=True, least_words=60, least_score=0.6),
        "longest",
        "len(list_filter(\"text\", lambda x: x.kept)) > 0 and len(string_split(description.text, ' ')) >= 60",
    ),
}


def timed(act: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The shortest wall-clock time of several runs and the least CPU time, in milliseconds."""
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        act()
        walls.append(1000 * (time.perf_counter() - wall))
        processors.append(1000 * (time.process_time() - processor))
    return min(walls), min(processors)


def tell(figures: Figures, name: str, times: tuple[float, float]) -> None:
    """Add the times to the figures, and print them."""
    figures[f"{name}, ms"], figures[f"{name}, CPU ms"] = times
    print(f"  {name}: {times[0]:.0f} ms, CPU {times[1]:.0f} ms", flush=True)


def built(index: SearchIndex, folder: Path) -> Figures:
    """Make the index, and compare it once more with the store, in which nothing is new then."""
    wall, processor = time.perf_counter(), time.process_time()
    index.refresh()
    # almost nothing of an index that was there before
    figures = {"index made, seconds": time.perf_counter() - wall}
    figures["index made, CPU seconds"] = time.process_time() - processor
    wall = time.perf_counter()
    index.refresh()
    figures["compared with the store again, seconds"] = time.perf_counter() - wall
    index.database().fetch("checkpoint")
    (rows,) = index.database().fetch("select count(*) from images")[0]
    figures |= {"rows": rows, "bytes of the index": sum(path.stat().st_size for path in folder.glob("*"))}
    return figures | {"bytes of the index a row": figures["bytes of the index"] / rows}


def searched(index: SearchIndex) -> Figures:
    """The milliseconds of each search: its first page, its second, and its facets."""
    figures: Figures = {}
    for name, (query, order, _) in SEARCHES.items():

        def page(cursor: str | None = None, query: Query = query, order: Order = order) -> str | None:
            with index.cursor() as connection:
                return Search(connection, Scope.everything(), query).page(order, LIMIT, cursor).next

        def counted(query: Query = query) -> None:
            with index.cursor() as connection:
                facets(Search(connection, Scope.everything(), query))

        following = page()
        tries: list[tuple[str, Callable[[], object]]] = [("first page", page), ("facets", counted)]
        if following is not None:
            tries.append(("second page", lambda page=page, following=following: page(following)))  # type: ignore[misc]
        for what, act in tries:
            tell(figures, f"{name}: {what}", timed(act, REPEATS))
    return figures


def plain(store: Store) -> Figures:
    """The milliseconds of the same searches with DuckDB over the parts: the first rows, and the number of all rows."""
    connection = duckdb.connect(config={"memory_limit": MEMORY, "threads": str(THREADS)})
    parts = f"read_parquet('{store.path('parts', 'llm')}/**/*.parquet')"
    figures: Figures = {}
    for name in PLAIN:
        condition = SEARCHES[name][2]

        def run(condition: str = condition) -> None:
            connection.execute(f"select key, description.text from {parts} where {condition} limit {LIMIT}").fetchall()
            connection.execute(f"select count(*) from {parts} where {condition}").fetchall()

        tell(figures, f"{name}: plain DuckDB", timed(run, PLAIN_REPEATS))
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the rows, measure, and print the figures; with --json also to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--store", type=Path, help="a store that has the rows already, or will have them")
    parser.add_argument("--index", type=Path, help="the folder of an index that was made before, or will be made")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="strata-bench-") as folder:
        store = Store(str(options.store or Path(folder, "store")))
        if store.is_empty():
            print(f"writing {options.rows:,} rows", flush=True)
            SyntheticParts(store, seed=0).write("made", options.rows)
        place = options.index or Path(folder, "index")
        index = SearchIndex(store, place)
        figures = built(index, place)
        figures |= searched(index)
        figures["peak memory of making and searching, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        index.close()
        figures |= plain(store)
    print("\n".join(f"| {name} | {value:,.{0 if value >= 100 else 2}f} |" for name, value in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
