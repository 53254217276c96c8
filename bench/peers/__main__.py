"""`python -m bench.peers`: Strata beside what others would take, on the same images and stages.

The others are a multiprocessing script, Ray Data, Daft, Celery and CaptionFlow. Their packages conflict with Strata's
and with each other's, so they have environments of their own:

    python -m venv PEERS && PEERS/bin/pip install -r bench/peers/requirements.txt
    python3.12 -m venv FLOW && FLOW/bin/pip install -r bench/peers/captionflow.txt
    python -m bench.peers --python PEERS/bin/python --python FLOW/bin/python

A peer whose packages are missing is left out, and named. Rows:

- over ideal: images/s between first and last call of a stage that waits 5 ms, over what the workers allow
- first row: seconds from the start until a row can be read
- empty stage: images/s from start to end for tiny images, the memory of all processes
- a worker killed in the middle: rows lost and doubled, calls beyond one an image
- everything killed in the middle and started again: the same
- the demo's stages: images/s from the first call to the last row, of drawn scenes, with two workers of one thread. A
  peer's scripts take the models' packages from this Python; one of another version of Python is left out of this row

CaptionFlow gets a tenth of the images. Medians of `--rounds`; the rounds of all peers alternate, so that other load on
the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.peers.rows import ROWS, Bench, Figures
from bench.peers.runs import PEERS, Peer
from strata.processes import leaving_on


def available(pythons: Sequence[str], names: Sequence[str]) -> dict[Peer, str]:
    """The wanted peers, with the first Python that has their packages; those without one are named on stderr."""
    found = {}
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        able = [python for python in pythons if not peer.script or _version(python, peer.package)]
        if able:
            found[peer] = able[0]
        else:
            print(f"{peer.name} is left out: no --python has {peer.package}", file=sys.stderr)
    return found


def _version(python: str, package: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, check=False, encoding="utf-8")
    return done.stdout.strip()


def told(peers: Mapping[Peer, str]) -> Iterator[str]:
    """What was compared, and on which machine."""
    for peer, python in peers.items():
        if peer.script:
            yield f"{peer.name}: {peer.package} {_version(python, peer.package)}, {python}"
    yield f"{os.cpu_count()} cores, load {', '.join(f'{one:.1f}' for one in os.getloadavg())}"


def table(figures: Figures) -> Table:
    """The medians, a row a figure and a column a peer."""
    shown = Table()
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    for name in ("", *names):
        shown.add_column(name, justify="left" if not name else "right")
    for row, found in figures.items():
        shown.add_row(row, *(f"{statistics.median(found[name]):.4g}" if name in found else "–" for name in names))
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--python", action="append", help="a Python that has others' packages; may be given several times"
    )
    parser.add_argument("--peers", default="", help="some of them, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2,4,8,16")
    parser.add_argument("--images", type=int, default=2000, help="of a worker that waits")
    parser.add_argument("--tiny", type=int, default=100_000, help="images of the empty stage")
    parser.add_argument("--scenes", type=int, default=256, help="images of the demo's stages")
    parser.add_argument("--rows", default=",".join(ROWS), help="some of them, separated by commas")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.peers.split(",") if options.peers else []
    chosen = available(options.python or [sys.executable], names)
    rows = options.rows.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"unknown rows {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    with leaving_on(signal.SIGTERM), tempfile.TemporaryDirectory(prefix="strata-peers-") as work:
        bench = Bench(Path(work), chosen)
        for _ in range(options.rounds):
            bench.measure(rows, options)
    print(*told(chosen), sep="\n", file=sys.stderr)
    if options.json:
        print(json.dumps(bench.figures, indent=1))
    else:
        Console().print(table(bench.figures))


if __name__ == "__main__":
    main()
