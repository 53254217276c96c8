"""The service with the same options as the scripts: it describes a folder's shards, and goes on if killed.

It is `strata serve` as a user starts it, with its own Redis, its template of workers and its supervisor; only the
workers' stage is another one (`strata_serve.py`). The job is submitted as `curl` would do it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

from bench.peers.scripts.options import options

BENCH_PROFILES = Path(__file__).resolve().parents[1] / "profiles"
PROFILE, CHEAP = "peers", "peers-cheap"  # of a stage that takes some time, and of one that takes none
WAIT = 600.0  # seconds for the workers to be ready
FINAL = ("completed", "failed", "cancelled")


def main() -> None:
    """Run the service until the job has ended."""
    given = options(__doc__)
    profile = "demo" if given.demo else PROFILE if given.seconds else CHEAP
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "STRATA_DATA_DIR": str(given.out / "data"),
        "STRATA_STORE": str(given.out / "store"),
        "STRATA_PROFILE": profile,
        "STRATA_SHARD_ROOTS": json.dumps([str(given.shards)]),
        "STRATA_PORT": str(port),
        **({} if given.demo else {"STRATA_PROFILES_DIR": str(BENCH_PROFILES)}),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STRATA_", "REDIS_URL"))}
    words = ["--seconds", str(given.seconds), "--calls", str(given.calls), *(["--demo"] if given.demo else [])]
    command = [sys.executable, "-m", "bench.peers.strata_serve", "--workers", str(given.workers), *words]
    service = subprocess.Popen(command, env={**inherited, **settings}, stdin=subprocess.DEVNULL)
    try:
        url, noted = f"http://127.0.0.1:{port}/v1", given.out / "job.txt"
        _wait(lambda: sum(one["ready"] for one in _answer(f"{url}/workers")["workers"]) == given.workers, service, WAIT)
        if not noted.exists():
            asked = {"input": {"shards": [f"{given.shards}/*.tar"]}, "profile": profile}
            noted.write_text(_answer(f"{url}/batches", asked)["id"], encoding="utf-8")
        job = f"{url}/jobs/{noted.read_text(encoding='utf-8')}"
        _wait(lambda: _answer(job)["status"] in FINAL, service, float("inf"), 0.25)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)


def _wait(condition: Callable[[], bool], service: subprocess.Popen[bytes], seconds: float, pause: float = 0.05) -> None:
    """Wait until the condition holds; while the service does not answer, it does not hold. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(URLError, OSError):
            if condition():
                return
        if service.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError("the service has ended, or its workers are not ready")
        time.sleep(pause)


def _answer(url: str, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    body = None if asked is None else json.dumps(asked).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    # this machine needs no proxy
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
        return dict(json.load(response))


if __name__ == "__main__":
    main()
