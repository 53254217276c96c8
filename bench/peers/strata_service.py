"""The service with the same options as the scripts: it describes a folder's shards, and goes on if killed."""

from __future__ import annotations

import time

import httpx

from bench.peers.scripts.stage import options
from bench.processes import Fleet
from strata.client import Client
from strata.core import Settings
from strata.errors import StrataError

PROFILE, CHEAP = "peers", "peers-cheap"  # of a stage that takes some time, and of one that takes none
OWN_PROFILES = str(Settings().profiles_dir)
WAIT = 600.0  # seconds for the fleet to be ready


def main() -> None:
    """Run the fleet until the job has ended; its workers are looked after as `strata serve` does."""
    given = options(__doc__)
    words = ["--seconds", str(given.seconds), "--calls", str(given.calls), *(["--demo"] if given.demo else [])]
    profile = "demo" if given.demo else PROFILE if given.seconds else CHEAP
    settings = {"STRATA_PROFILE": profile, **({"STRATA_PROFILES_DIR": OWN_PROFILES} if given.demo else {})}
    noted = given.out / "job.txt"
    fleet = Fleet(given.out, str(given.shards), [words] * given.workers, settings, worker="bench.peers.strata_worker")
    with fleet:
        fleet.wait_ready(WAIT)
        with Client(fleet.url) as client:
            if not noted.exists():
                noted.write_text(client.submit([f"{given.shards}/*.tar"], profile=profile).id, encoding="utf-8")
            job = noted.read_text(encoding="utf-8")
            while True:
                try:
                    if client.job(job).status.final:
                        return
                except (StrataError, httpx.TransportError):
                    time.sleep(0.1)
                fleet.look_after()
                time.sleep(0.25)


if __name__ == "__main__":
    main()
