"""`python -m bench.peers`: Strata, a multiprocessing script, Ray Data, Daft and Celery on the same images and stage.

The others need their packages, which conflict with Strata's: `python -m venv PEERS && PEERS/bin/pip install -r
bench/peers/requirements.txt`, then `--python PEERS/bin/python`. A peer whose packages are missing is left out, and
named. Rows:

- over ideal: images/s between first and last call of a stage that waits 5 ms, over what the workers allow
- empty stage: images/s from start to end for tiny images, the seconds to the first row, the memory of all processes
- a worker killed in the middle: rows lost and doubled, calls beyond one an image
- everything killed in the middle and started again: the same

Medians of `--rounds`; the rounds of all peers alternate, so that other load on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.inputs.tiny_shards import write_shard
from bench.peers.runs import PEERS, Peer, Run, kill, kill_a_worker
from strata.queue import EmbeddedServer

IMAGES_A_SHARD = 500
SECONDS = 0.005
KILLED_AT = 0.4  # of the images
Figures = dict[str, dict[str, list[float]]]


class Bench:
    """The runs of all peers in a folder."""

    def __init__(self, folder: Path, peers: Sequence[Peer], python: str) -> None:
        self.folder, self.peers, self.python = folder, peers, python
        self.figures: Figures = defaultdict(lambda: defaultdict(list))
        self._runs = 0

    def shards(self, images: int) -> Path:
        """A folder with so many images, made once."""
        folder = self.folder / f"shards-{images}"
        for first in range(0, images, IMAGES_A_SHARD):
            path = folder / f"{first // IMAGES_A_SHARD:05d}.tar"
            if not path.exists():
                write_shard(path, first, min(IMAGES_A_SHARD, images - first))
        return folder

    def over_ideal(self, workers: int, images: int) -> None:
        """A stage of fixed cost with so many workers, so many images each."""
        for peer in self.peers:
            with self._run(peer, images * workers, workers, SECONDS) as run:
                run.complete()
                self._note(peer, f"{workers} workers over ideal", run.rate() * SECONDS / workers)

    def empty_stage(self, images: int, workers: int) -> None:
        """A stage that costs nothing, from start to end."""
        for peer in self.peers:
            with self._run(peer, images, workers, 0.0) as run:
                run.complete(measured=True)
                self._check(run, images)
                self._note(peer, "empty stage, images/s", images / run.whole)
                self._note(peer, "empty stage, MiB", run.memory)

    def first_row(self, workers: int) -> None:
        """The seconds from the start to the first row of a few images."""
        for peer in self.peers:
            with self._run(peer, 64, workers, 0.0) as run:
                run.complete(measured=True)
                self._note(peer, "first row, seconds from start", run.first_row)

    def killed(self, images: int, workers: int, everything: bool) -> None:
        """A worker or everything is killed in the middle; then it ends, or is started again."""
        what = "all killed" if everything else "a worker killed"
        for peer in self.peers:
            with self._run(peer, images, workers, SECONDS) as run:
                process = run.until(KILLED_AT, images)
                if everything:
                    kill(process)
                    run.complete()
                else:
                    kill_a_worker(process, run.folder / "calls")
                    self._wait(process, run, images)
                keys, calls = run.keys(), len(run.calls())
                self._note(peer, f"{what}: rows lost", images - len(keys))
                self._note(peer, f"{what}: rows doubled", keys.total() - len(keys))
                self._note(peer, f"{what}: computed again, %", 100 * max(0, calls - images) / images)

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], run: Run, images: int) -> None:
        # a pool that has lost a worker waits for ever for its task
        longest = 60 + 4 * images * run.seconds / run.workers
        try:
            process.wait(longest)
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill(process)

    @staticmethod
    def _check(run: Run, images: int) -> None:
        if run.exits[-1] or len(run.keys()) != images:
            raise RuntimeError(f"{run.peer.name} has not described all images; see {run.folder / 'log.txt'}")

    def _run(self, peer: Peer, images: int, workers: int, seconds: float) -> _Folder:
        self._runs += 1
        run = Run(peer, self.folder / f"run-{self._runs}", self.shards(images), workers, seconds, self.python)
        return _Folder(run)

    def _note(self, peer: Peer, row: str, value: float) -> None:
        print(f"{peer.name}: {row}: {value:.3g}", file=sys.stderr, flush=True)
        self.figures[row][peer.name].append(value)


class _Folder:
    """A run with its Redis if it needs one; its files are removed at the end."""

    def __init__(self, run: Run) -> None:
        self.run, self.stack = run, ExitStack()

    def __enter__(self) -> Run:
        if self.run.peer.redis:
            server = EmbeddedServer(self.run.folder / "redis")
            server.start()
            self.stack.callback(server.stop)
            self.run.redis_url = server.url
        return self.run

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stack.close()
        if kind is None:  # logs of a run that failed stay
            shutil.rmtree(self.run.folder, ignore_errors=True)


def available(python: str) -> list[Peer]:
    """The peers whose packages are there; the others are named on stderr."""
    packages = {"ray_data": "ray", "daft_frames": "daft", "celery_tasks": "celery", "pool": "pyarrow"}
    found = []
    for peer in PEERS:
        needed = packages.get(peer.script.rpartition(".")[2])
        done = subprocess.run([python, "-c", f"import {needed}"], capture_output=True, check=False) if needed else None
        if done is not None and done.returncode:
            print(f"{peer.name} is left out: {python} has no package {needed}", file=sys.stderr)
        else:
            found.append(peer)
    return found


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
    parser.add_argument("--python", default=sys.executable, help="the Python that has the others' packages")
    parser.add_argument("--peers", default="", help="some of them, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2,4,8,16")
    parser.add_argument("--images", type=int, default=2000, help="of a worker that waits")
    parser.add_argument("--tiny", type=int, default=100_000, help="images of the empty stage")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [one for one in available(options.python) if not options.peers or one.name in options.peers.split(",")]
    with tempfile.TemporaryDirectory(prefix="strata-peers-") as work:
        bench = Bench(Path(work), chosen, options.python)
        for _ in range(options.rounds):
            for workers in map(int, options.workers.split(",")):
                bench.over_ideal(workers, options.images)
            bench.first_row(workers=2)
            bench.empty_stage(options.tiny, workers=2)
            for everything in (False, True):
                bench.killed(4 * options.images, 4, everything)
    if options.json:
        print(json.dumps(bench.figures, indent=1))
    else:
        Console().print(table(bench.figures))


if __name__ == "__main__":
    main()
