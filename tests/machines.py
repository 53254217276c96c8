"""Real worker processes with fake stages, started again when they die, as `strata serve` does it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strata.jobs import Jobs
from strata.profiles import Profile, load_profile
from strata.scheduler import Scheduler

BENCH_PROFILES = Path(__file__).parent.parent / "bench" / "profiles"


def fake_profile() -> Profile:
    """The profile of `bench.fake_worker`."""
    return load_profile("fake", BENCH_PROFILES)


class WorkerProcess:
    """One worker, started again whenever it ends. deaths: the signals or exit codes that it ended with."""

    def __init__(self, jobs: Jobs, url: str, seconds: float = 0.0, lease: float = 1.0) -> None:
        self.command = [sys.executable, "-m", "bench.fake_worker", "--seconds", str(seconds)]
        own = {
            "REDIS_URL": url,
            "STRATA_STORE": jobs.store.uri,
            "STRATA_PROFILES_DIR": str(BENCH_PROFILES),
            "STRATA_LEASE_SECONDS": str(lease),
        }
        self.environment = {**os.environ, **own}
        self.deaths: list[int] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, env=self.environment, stderr=subprocess.DEVNULL)

    def look_after(self) -> None:
        """Start it again if it ended."""
        code = self.process.poll()
        if code is not None:
            self.deaths.append(code)
            self.process = self._start()

    def send(self, number: int) -> None:
        """A signal to the process."""
        os.kill(self.process.pid, number)


@contextmanager
def machine(jobs: Jobs, url: str, workers: int = 1, **options: float) -> Iterator[list[WorkerProcess]]:
    """A scheduler in a thread and worker processes."""
    stop = threading.Event()
    scheduler = Scheduler(jobs.broker, jobs.store, high_water=100)
    thread = threading.Thread(target=scheduler.run, args=(stop, 0.05), daemon=True)
    thread.start()
    running = [WorkerProcess(jobs, url, **options) for _ in range(workers)]
    try:
        yield running
    finally:
        stop.set()
        thread.join()
        for worker in running:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.kill()
            worker.process.wait()


def run_to_end(jobs: Jobs, job_id: str, workers: list[WorkerProcess], seconds: float = 60.0) -> None:
    """Look after the workers until the job is final. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while not jobs.view(job_id).status.final:
        if time.monotonic() > until:
            raise TimeoutError(jobs.view(job_id).model_dump_json())
        for worker in workers:
            worker.look_after()
        time.sleep(0.05)
