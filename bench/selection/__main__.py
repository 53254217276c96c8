"""`python -m bench.selection [balanced|embedded|own]`: select 213,000 of 427,000 rows; then with a tenth more rows.

`balanced` selects over features of the texts. `embedded` gives each row an embedding too, and selects by clusters, by
concepts, and by quality and diversity together, beside what a user would write with faiss and numpy, and, with
`--greedy`, beside a greedy facility location in each cluster. `own` joins a file of own scores, of `--form`, with rows.

First, parts of made-up rows (`bench.inputs`) are written; this is not counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench.selection import balanced, embedded, own
from strata.store import Store

ROWS, TAKEN = 427_000, 213_000  # of the paper's descriptions


def main() -> None:
    """Measure, and print the table."""
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("balanced", "embedded", "own"), default="balanced")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--taken", type=int, help="rows that are selected (of the default, 213,000 of 427,000)")
    parser.add_argument("--width", type=int, default=512, help="of the embeddings (%(default)s)")
    parser.add_argument("--greedy", action="store_true", help="also a greedy facility location; slow for many rows")
    parser.add_argument("--form", choices=("csv", "parquet"), default="parquet", help="of own scores (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work instead of the system's temporary folder")
    parser.add_argument("--json", type=Path, help="a file that gets the figures as JSON")
    options = parser.parse_args()
    taken = options.taken or round(options.rows * TAKEN / ROWS)
    with tempfile.TemporaryDirectory(prefix="selection-", dir=options.folder) as folder:
        store = Store(str(Path(folder) / "store"))
        if options.what == "balanced":
            figures = balanced.measure(store, options.rows, taken)
        elif options.what == "own":
            figures = own.measure(Path(folder), options.rows, options.form)
        else:
            figures = embedded.measure(store, options.rows, taken, options.width, options.greedy)
    for name, value in figures.items():
        print(f"| {name} | {value:,.{0 if value >= 100 or value == int(value) else 3}f} |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
