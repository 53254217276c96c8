"""A real `strata serve` that is attacked: with its supervisor, its embedded server, and workers or none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from bench.hostile.memory import Memory
from bench.hostile.tally import Caller, Tally
from bench.processes import BENCH_PROFILES, PYTHONPATH
from strata.store import Store

START_SECONDS = 180.0  # until the workers are ready
KEY = "bench-hostile-key"
PLANTED = "PLANTED-SECRET-1f6a7a6"  # in a file below the roots, which no response may have
MODEL_PROFILES = Path(__file__).resolve().parents[2] / "models" / "profiles"
_ENDED = re.compile(
    r"worker \S+ \(pid \d+\) ended .*|the embedded Redis had ended.*|Traceback \(most recent call last\).*"
)


class AttackedService:
    """A service in a folder of its own; a context manager. Its shards lie in `shards`.

    workers: run them; key: requests need `KEY`; profiles: the first is that of requests that name none. `fake` has
    stages that say how large an image is, `demo` the demo's models.
    """

    def __init__(
        self,
        folder: Path,
        tally: Tally,
        *,
        workers: bool = True,
        key: bool = True,
        profiles: Sequence[str] = ("fake", "demo"),
    ) -> None:
        self.folder, self.tally, self.workers, self.key = folder, tally, workers, KEY if key else None
        self.profiles = profiles
        self.shards = folder / "shards"
        self.log = folder / "service.log"

    def __enter__(self) -> AttackedService:
        for made in (self.shards, self.folder / "profiles"):
            made.mkdir(parents=True)
        for name in self.profiles:
            place = (BENCH_PROFILES if name == "fake" else MODEL_PROFILES) / f"{name}.toml"
            (self.folder / "profiles" / place.name).write_bytes(place.read_bytes())
        (self.shards / "secrets.txt").write_text(f"DB_PASSWORD={PLANTED}\n", encoding="utf-8")
        command = [sys.executable, "-m", "strata", "serve", "--port", "0", *([] if self.workers else ["--no-workers"])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self._environment(), cwd=self.shards, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.url = self._address()
        self.caller = Caller(self.url, self.tally, self.key)
        self.memory = Memory(self.process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()
        self.caller.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.tally.add(self.tally.hangs, "the service does not end within 30 s after SIGTERM")
            self.process.kill()
            self.process.wait()

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STRATA_", "REDIS_"))}
        ours = {
            "STRATA_DATA_DIR": str(self.folder / "data"),
            "STRATA_PROFILES_DIR": str(self.folder / "profiles"),
            "STRATA_PROFILE": self.profiles[0],
            "STRATA_SHARD_ROOTS": str(self.shards),
            "PYTHONPATH": PYTHONPATH,
            "OMP_NUM_THREADS": "1",
        }
        return {**kept, **ours, **({"STRATA_API_KEY": self.key} if self.key else {})}

    def _address(self) -> str:
        """Wait until the service has told its address. Raises TimeoutError."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            found = re.search(r"Strata listens on (http://\S+)", self.log_text())
            if found:
                return found[1]
            time.sleep(0.05)
        raise TimeoutError(f"the service did not start:\n{self.log_text()[-3000:]}")

    def wait_ready(self) -> None:
        """Wait until every group has a worker that has loaded its models. Raises TimeoutError."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz", trust_env=False).is_success:
                    return
            time.sleep(0.1)
        raise TimeoutError(f"the workers are not ready:\n{self.log_text()[-3000:]}")

    @property
    def store(self) -> Store:
        """The service's store."""
        return Store(str(self.folder / "data" / "store"))

    def log_text(self) -> str:
        """What the service and its workers have logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def note_crashes(self) -> None:
        """Note every end of a process that the log tells of, and every traceback, and that of the service itself."""
        for line in _ENDED.findall(self.log_text()):
            self.tally.add(self.tally.crashes, line)
        if self.process.poll() is not None:
            self.tally.add(self.tally.crashes, f"the service ended with {self.process.returncode}")
