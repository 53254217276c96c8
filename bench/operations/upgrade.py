"""`python -m bench.operations.upgrade --old COMMIT`: replace a running service by another version, piece by piece.

An API and three workers run the code of an earlier commit, in a work tree of its own, and describe a job with fake
stages. Workers of the present code join them on the same queue and store; then the API is replaced; then the old
workers are stopped by SIGTERM, and the new ones end the job. At each step single images are described too. `--back`
goes the other way, as when an upgrade is taken back. Each row is compared with that of a run of the present code alone.

The last lines are how many chunks were seen in the hands of workers of each version, with which codes the first ones
ended, and `lost L doubled D wrong W of N`. The exit code is 0 only if these are 0 and both versions had chunks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.chaos import compare, read_rows
from bench.inputs.tiny_shards import tiny_jpeg
from bench.operations.jobs import WORKERS, adds_up, followed, prepared, slow_workers
from bench.processes import CHECKOUT, Fleet, Process
from strata.client import Client
from strata.core import JobView, Record
from strata.queue import Queue
from strata.store import Store

SINGLE = 4  # images that are described one by one at each step
# the steps, by the share of the job's images whose layers are there
JOIN, SERVE, LEAVE = 0.2, 0.4, 0.6


@contextmanager
def work_tree(commit: str, folder: Path) -> Iterator[Path]:
    """A work tree of the commit in a new folder; it is removed at the end."""
    place = folder / "old"
    git = ["git", "-C", str(CHECKOUT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True)


class Upgrade:
    """Replaces the first version by the second while a job runs. `look` does the next step when its time has come."""

    def __init__(self, fleet: Fleet, second: Path, seconds: float) -> None:
        self.fleet, self.second, self.seconds = fleet, second, seconds
        self.first_workers: list[Process] = list(fleet.workers)
        self.steps = [(JOIN, self._join), (SERVE, self._serve), (LEAVE, self._leave)]
        self.held: dict[bool, set[str]] = {True: set(), False: set()}  # ids of chunks, by whether of the first version
        self.codes: list[int] = []
        self.singles = self.at_once = self.later = 0  # asked for, answered with the record, described after the answer
        self._queue = Queue(fleet.server.url)

    def look(self, views: list[JobView]) -> None:
        """Note who holds which chunks, and do the next step."""
        first = {worker.pid for worker in self.first_workers}
        for heartbeat in self._queue.heartbeats.live():
            self.held[heartbeat.pid in first] |= {chunk.id for chunk in heartbeat.chunks}
        counts = views[0].request_counts
        done = views[0].groups["vision"].images / counts.total if counts.total else 0.0
        if self.steps and done >= self.steps[0][0]:
            _, step = self.steps.pop(0)
            step()
            self._describe()
            print(f"  {step.__name__.strip('_')} at {done:.0%} of the layers", flush=True)

    def _join(self) -> None:
        for arguments in slow_workers(self.seconds):
            self.fleet.start_worker(arguments, self.second)
        self.fleet.wait_ready()

    def _serve(self) -> None:
        self.fleet.api.stop(30)
        self.fleet.start_api(self.second)
        self.fleet.wait_ready()

    def _leave(self) -> None:
        for worker in self.first_workers:
            self.codes.append(worker.stop())
            self.fleet.workers.remove(worker)

    def _describe(self) -> None:
        """Describe single images: each request waits for its record."""
        with Client(self.fleet.url, timeout=60) as client:
            for _ in range(SINGLE):
                self.singles += 1
                answer = client.caption(tiny_jpeg(1_000_000 + self.singles), wait=60)
                self.at_once += isinstance(answer, Record) and answer.description is not None
                if isinstance(answer, JobView):
                    (view,) = followed(self.fleet, [answer.id])
                    self.later += view.request_counts.succeeded


def run(folder: Path, old: Path, images: int, seconds: float, back: bool) -> int:
    """Run the job once with the present code and once through the upgrade; prints the result, returns the exit code."""
    shards, settings = prepared(folder, images)
    root = str(folder / "shards")
    with Fleet(folder / "calm", root, WORKERS, settings) as fleet:
        fleet.wait_ready()
        expected = read_rows(Store(fleet.store), submitted(fleet, shards, None))
    first, second = (CHECKOUT, old) if back else (old, CHECKOUT)
    with Fleet(folder / "mixed", root, slow_workers(seconds), settings, checkout=first) as fleet:
        fleet.wait_ready()
        upgrade = Upgrade(fleet, second, seconds)
        view = submitted(fleet, shards, upgrade)
        found = read_rows(Store(fleet.store), view)
    lost, doubled, wrong = compare(expected, found)
    held = [len(upgrade.held[of_first]) for of_first in (True, False)]
    print(
        f"{view.status}: {view.request_counts.model_dump()}, single images {upgrade.at_once} of {upgrade.singles}, "
        f"and {upgrade.later} after their answers"
    )
    print(f"chunks seen with workers of the first version {held[0]}, of the second {held[1]}; codes {upgrade.codes}")
    print(f"lost {lost} doubled {doubled} wrong {wrong} of {len(expected)}")
    good = adds_up([view], len(found)) and all(held) and not upgrade.steps and not any(upgrade.codes)
    good = good and upgrade.at_once + upgrade.later == upgrade.singles
    return 0 if good and not (lost or doubled or wrong) else 1


def submitted(fleet: Fleet, shards: list[str], upgrade: Upgrade | None) -> JobView:
    """Submit the job and wait for its end."""
    with Client(fleet.url, timeout=60) as client:
        job = client.submit(shards)
    (view,) = followed(fleet, [job.id], upgrade.look if upgrade else None)
    return view


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, metavar="COMMIT", help="the other version, a commit of this repository")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=0.1, help="what an image costs in each group")
    parser.add_argument("--back", action="store_true", help="from the present code to the commit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="upgrade-") as folder, work_tree(options.old, Path(folder)) as old:
        sys.exit(run(Path(folder), old, options.images, options.seconds, options.back))


if __name__ == "__main__":
    main()
