"""A worker whose Redis is away when it starts: it waits as it does later, and a signal ends it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import PYTHONPATH
from strata.queue.embedded import EmbeddedServer
from strata.queue.queue import Queue
from tests.secrets import SECRET
from tests.service import write_profile


@contextmanager
def worker(folder: Path, url: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[str], str]]]:
    """A worker of the group index, and a function that waits until its log contains a text."""
    write_profile(folder)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STRATA_")}
    ours = {
        "REDIS_URL": url,
        "STRATA_DATA_DIR": str(folder / "data"),
        "STRATA_PROFILES_DIR": str(folder),
        "STRATA_PROFILE": "fake",
        "PYTHONPATH": PYTHONPATH,
    }
    path = folder / "worker.log"
    with path.open("wb") as log:
        command = [sys.executable, "-m", "strata", "worker", "--groups", "index"]
        process = subprocess.Popen(command, env={**inherited, **ours}, cwd=folder, stdout=log, stderr=log)

    def wait_for(text: str) -> str:
        deadline = time.monotonic() + 120
        while text not in (found := path.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline and process.poll() is None, found
            time.sleep(0.05)
        return found

    try:
        yield process, wait_for
    finally:
        process.kill()
        process.wait()


def test_a_signal_ends_a_worker_that_waits_for_redis(tmp_path: Path) -> None:
    with worker(tmp_path, f"redis://:{SECRET}@127.0.0.1:1/0") as (process, wait_for):
        # the pauses grow
        log = wait_for("waiting 2.0 s: QueueUnavailable")
        assert "Traceback" not in log and SECRET not in log
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_a_worker_starts_when_redis_comes(tmp_path: Path) -> None:
    # where the server's socket will be
    with EmbeddedServer(tmp_path / "valkey") as server:
        url = server.url
    with worker(tmp_path, url) as (process, wait_for):
        wait_for("waiting 0.5 s")
        with EmbeddedServer(tmp_path / "valkey") as server:
            assert server.url == url
            wait_for("is ready for index")
            assert [one.ready for one in Queue(url).heartbeats.live()] == [True]
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
