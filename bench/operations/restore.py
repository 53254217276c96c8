"""`python -m bench.operations.restore`: copy the store while jobs run, and go on from the copy with an empty Redis.

A service describes jobs with fake stages: one has ended before the copy begins, one is described meanwhile, and further
ones are submitted while files are copied. The copy is made by the two commands of docs/operations.md. The first service
goes on to the end, and has the rows that are expected. Then a second service, whose Redis is empty, starts on the copy.

The last line is `lost L doubled D wrong W of N` of the jobs in the copy; the exit code is 0 only if these are 0, the
copy had some of the parts and not all, and nothing that it had was computed again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.chaos import compare, read_rows
from bench.operations.jobs import SHARD, WORKERS, adds_up, followed, prepared, slow_workers
from bench.processes import CHECKOUT, Fleet
from strata.client import Client
from strata.store import Store

BEGIN = 0.3  # the share of the second job whose layers are there when the copy begins
MEANWHILE = 3  # jobs of one shard that are submitted while files are copied
PAUSE = 0.02  # seconds between them: the first command takes a moment only
PAGE = CHECKOUT / "docs" / "operations.md"


def commands() -> list[str]:
    """The commands of the page that make a backup; $STORE and $BACKUP are the folders."""
    section = PAGE.read_text(encoding="utf-8").partition("### Back up")[2].partition("\n### ")[0]
    return re.findall(r"^\$ (rsync .*)$", section, re.MULTILINE)


def parts(store: Path) -> list[Path]:
    """The files of parts in a store."""
    return sorted(store.glob("parts/*/*/*/*.parquet"))


class Service:
    """A fleet with the jobs that were submitted to it. asked: the shards of each."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.asked: dict[str, list[str]] = {}

    def submit(self, shards: list[str]) -> str:
        """Submit a job; its id."""
        with Client(self.fleet.url, timeout=60) as client:
            job = client.submit(shards)
        self.asked[job.id] = shards
        return job.id

    def wait_for_layers(self, job_id: str, images: float) -> None:
        """Wait until so many images of a job have their layers."""
        with Client(self.fleet.url, timeout=60) as client:
            while client.job(job_id).groups["vision"].images < images:
                time.sleep(0.1)

    def copy(self, backup: Path, meanwhile: list[str]) -> None:
        """Make the backup, and submit jobs of these shards at the same time."""
        first, second = commands()
        backup.mkdir()
        environment = {"STORE": self.fleet.store, "BACKUP": str(backup), "PATH": "/usr/local/bin:/usr/bin:/bin"}

        def submit_all() -> None:
            for shard in meanwhile:
                self.submit([shard])
                time.sleep(PAUSE)

        submitting = threading.Thread(target=submit_all)
        submitting.start()
        time.sleep(PAUSE)
        for command in (first, second):
            subprocess.run(command, shell=True, check=True, env=environment)
        submitting.join()


def run(folder: Path, images: int, seconds: float) -> int:
    """Make the jobs, the copy and the second service; prints the result, returns the exit code."""
    shards, settings = prepared(folder, images)
    root, backup, middle = str(folder / "shards"), folder / "copy", shards[1:-MEANWHILE]
    with Fleet(folder / "first", root, slow_workers(seconds), settings) as fleet:
        fleet.wait_ready()
        service = Service(fleet)
        followed(fleet, [service.submit(shards[:1])])
        service.wait_for_layers(service.submit(middle), BEGIN * len(middle) * SHARD)
        service.copy(backup, shards[-MEANWHILE:])
        views = followed(fleet, list(service.asked))
        expected = [row for view in views for row in read_rows(Store(fleet.store), view)]
        whole = len(parts(Path(fleet.store)))
    # who has a request in the copy goes on, from the parts in the copy
    had = {path: path.stat().st_mtime_ns for path in parts(backup)}
    known = [job for job in service.asked if (backup / "jobs" / job / "request.json").exists()]
    with Fleet(folder / "second", root, WORKERS, {**settings, "STRATA_STORE": str(backup)}) as fleet:
        views = followed(fleet, known)
        found = [row for view in views for row in read_rows(Store(fleet.store), view)]
    copied = {shard for job in known for shard in service.asked[job]}
    lost, doubled, wrong = compare([row for row in expected if row.image.uri in copied], found)
    again = sum(path.stat().st_mtime_ns != time_before for path, time_before in had.items())
    print(f"jobs in the copy {len(known)} of {len(service.asked)}, parts {len(had)} of {whole}, written again {again}")
    print(f"lost {lost} doubled {doubled} wrong {wrong} of {len(found)}")
    good = adds_up(views, len(found)) and 0 < len(had) < whole and not again and len(known) >= 2
    return 0 if good and not (lost or doubled or wrong) else 1


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=0.02, help="what an image costs in each group")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="restore-") as folder:
        sys.exit(run(Path(folder), options.images, options.seconds))


if __name__ == "__main__":
    main()
