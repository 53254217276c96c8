"""`python -m bench.store`: what a job's status, its plan and the lists of parts take with 1, 10 and 100 million images.

For each size a store is planted in a temporary folder (`planted.py`: the metadata of the parts alone, 4.3 GB for
100 million images in chunks of 500), measured, and removed, also if the command is interrupted. Each figure is taken
in a process of its own, whose peak of memory is told beside the seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from bench.store.growth import FIGURES, Measured, alone
from bench.store.planted import plant


def measure(folder: Path, images: int, chunk: int, bundled: bool, names: list[str]) -> dict[str, dict[str, float]]:
    """Plant a store, and take the figures of these names."""
    began = time.perf_counter()
    _, request = plant(folder / "store", images, chunk, bundled)
    print(f"{images:,} images, planted in {time.perf_counter() - began:.0f} s", flush=True)
    found = {}
    for name in names:
        found[name] = alone(Measured(folder, request), name)
        line = ", ".join(f"{each} {value:,.{0 if value >= 100 else 3}f}" for each, value in found[name].items())
        print(f"| {images:,} | {name} | {line} |", flush=True)
    return found


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--chunk", type=int, default=500, help="images of a part")
    parser.add_argument("--bundled", action="store_true", help="the parts are in bundles, as after `strata compact`")
    names = [each.__name__ for each in FIGURES]
    parser.add_argument("--figures", nargs="+", choices=names, default=names)
    parser.add_argument("--folder", type=Path, help="where to work instead of the system's temporary folder")
    parser.add_argument("--json", type=Path, help="a file that gets the figures as JSON")
    options = parser.parse_args()
    figures = {}
    for images in options.images:
        with tempfile.TemporaryDirectory(prefix="store-", dir=options.folder) as folder:
            figures[images] = measure(Path(folder), images, options.chunk, options.bundled, options.figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
