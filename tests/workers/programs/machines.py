"""Real worker processes with fake stages, which are restarted when they end, as by `strata serve`.

As by `strata serve`, they are forks of a process that has imported what they need: their imports would be most of what
a test of them costs.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from bench.processes import BENCH_PROFILES, PYTHONPATH, Process
from strata.core.profiles import Profile, load_profile
from strata.forks import ONE_THREAD, Template
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler

# micro-batches of eight images, each in one call of a fake stage
BATCH_PROFILE = """
chunk_size = 64
micro_batch = 8
[stages.captioner]
backend = "fake"
model = "builtin:fake"
revision = "1"
batch_size = 8
[stages.composer]
backend = "fake"
model = "builtin:fake"
revision = "1"
"""


def fake_profile() -> Profile:
    """The profile of `bench.fakes.worker`."""
    return load_profile("fake", BENCH_PROFILES)


@contextmanager
def scheduling(jobs: Jobs) -> Iterator[None]:
    """A scheduler in a thread while the block runs."""
    stop = threading.Event()
    scheduler = Scheduler(jobs.queue, jobs.store, high_water=100)
    thread = threading.Thread(target=scheduler.run, args=(stop, 0.05), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class ForkedProcess(Process):
    """A module's `main` that is kept running, each time in a fork of a process that has imported the module."""

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path = Path(os.devnull)
    ) -> None:
        self.module = module
        super().__init__(arguments, environment, log)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            told = {"arguments": self.command[1:], "environment": self.environment}
            fork = template_of(self.module).fork(told, [log.fileno()])
        return cast("subprocess.Popen[bytes]", fork)  # it has the methods that are needed

    def send(self, number: int) -> None:
        """Send a signal; no effect if the process has ended."""
        if self.process.poll() is None:
            os.kill(self.pid, number)


@functools.cache
def template_of(module: str) -> Template:
    """The process that has imported a module, for as long as the tests run. It ends with the process of the tests."""
    command = [sys.executable, "-m", "tests.workers.programs.template", module]
    return Template(module, command, {**os.environ, **ONE_THREAD, "PYTHONPATH": PYTHONPATH})


@contextmanager
def machine(
    jobs: Jobs, url: str, workers: int = 1, seconds: float = 0.0, lease: float = 1.0
) -> Iterator[list[Process]]:
    """A scheduler in a thread, and worker processes. seconds: per image in each group."""
    settings = {
        "REDIS_URL": url,
        "STRATA_STORE": jobs.store.uri,
        "STRATA_PROFILES_DIR": str(BENCH_PROFILES),
        "STRATA_PROFILE": "fake",
        "STRATA_LEASE_SECONDS": str(lease),
    }
    arguments = ["--seconds", str(seconds)]
    with scheduling(jobs):
        running: list[Process] = [ForkedProcess("bench.fakes.worker", arguments, settings) for _ in range(workers)]
        try:
            yield running
        finally:
            for worker in running:
                worker.end()


def run_to_end(jobs: Jobs, job_id: str, workers: list[Process], seconds: float = 120.0) -> None:
    """Restart workers that end until the job is final. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while not jobs.view(job_id).status.final:
        if time.monotonic() > until:
            raise TimeoutError(jobs.view(job_id).model_dump_json())
        for worker in workers:
            worker.look_after()
        time.sleep(0.05)
