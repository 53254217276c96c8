"""One run of a peer: a process group that is timed, measured and, if asked, killed; and what it left behind."""

from __future__ import annotations

import os
import random
import signal
import site
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq

from bench.peers.scripts.demo import PACKAGES
from bench.processes import CHECKOUT, PYTHONPATH

LOOK_SECONDS = 0.02
MEMORY_SECONDS = 0.5
LONGEST = 3600.0
LOG_LINES = 8  # that are told if a run fails
MIB = 2**20
# one thread a worker; where a peer's scripts find the packages of the demo's stages
DEMO = {"OMP_NUM_THREADS": "1", "STRATA_THREADS": "1", PACKAGES: os.pathsep.join(site.getsitepackages())}


class RunFailed(Exception):
    """A run has ended otherwise than it should."""


@dataclass(frozen=True)
class Peer:
    """What is compared. module: of Strata's own; script: of others, run by the Python that has their packages.

    package: whose version is told; share: of a run's images that it gets, if all would take too long.
    """

    name: str
    package: str
    script: str = ""
    module: str = ""
    redis: bool = False
    share: float = 1.0

    def command(self, python: str) -> list[str]:
        """What starts it."""
        return [python if self.script else sys.executable, "-m", f"bench.peers.{self.script or self.module}"]


PEERS = (
    Peer("Strata", "strata", module="strata_service"),
    Peer("script", "pyarrow", script="scripts.pool"),
    Peer("Ray Data", "ray", script="scripts.ray_data"),
    Peer("Daft", "daft", script="scripts.daft_frames"),
    Peer("Celery", "celery", script="scripts.celery_tasks", redis=True),
    Peer("CaptionFlow", "caption-flow", script="scripts.captionflow", share=0.1),
)


@dataclass
class Run:
    """A run's folder, its command, and what was measured. Times are seconds since the start of the first process."""

    peer: Peer
    folder: Path
    shards: Path
    workers: int
    seconds: float
    python: str
    demo: bool = False
    redis_url: str = ""
    first_row: float = 0.0
    whole: float = 0.0
    memory: float = 0.0  # MiB, the highest sum of proportional set sizes
    exits: list[int] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        """Start its processes as a group of their own."""
        folders = {"shards": self.shards, "out": self.folder / "out", "calls": self.folder / "calls"}
        words = [f"--{name}={value}" for name, value in folders.items()]
        words += [f"--workers={self.workers}", f"--seconds={self.seconds}", *(["--demo"] if self.demo else [])]
        environment: Mapping[str, str] = {
            **os.environ,
            "PYTHONPATH": PYTHONPATH,
            "PEER_REDIS": self.redis_url,
            **(DEMO if self.demo else {}),
            "DAFT_ANALYTICS_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [*self.peer.command(self.python), *words],
                env=environment,
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def complete(self, measured: bool = False) -> None:
        """Run it to its end. measured: with the first row's time and the memory, whose measurement costs CPU."""
        began = time.monotonic()
        process = self.start()
        watching = threading.Event()
        watch = threading.Thread(target=self._watch_memory, args=(process.pid, watching))
        if measured:
            watch.start()
        try:
            while process.poll() is None and time.monotonic() < began + LONGEST:
                if measured and not self.first_row and self.keys():
                    self.first_row = time.monotonic() - began
                time.sleep(LOOK_SECONDS)
        finally:
            self.whole = time.monotonic() - began
            watching.set()
            if measured:
                watch.join()
            kill(process)
        self.exits.append(process.returncode)
        if measured and not self.first_row:
            self.first_row = self.whole

    def until(self, share: float, images: int) -> subprocess.Popen[bytes]:
        """Start it, and return when so many of the images' calls are noted."""
        process, began = self.start(), time.monotonic()
        while len(self.calls()) < share * images:
            if process.poll() is not None or time.monotonic() > began + LONGEST:
                kill(process)
                raise RunFailed(f"{self.peer.name} ended before it was killed")
            time.sleep(LOOK_SECONDS)
        return process

    def _watch_memory(self, pid: int, end: threading.Event) -> None:
        while not end.wait(MEMORY_SECONDS):
            # decoding processes have sessions of their own
            family = {*processes(pid), *_descendants(pid)}
            self.memory = max(self.memory, sum(map(_proportional, family)) / MIB)

    def keys(self) -> Counter[str]:
        """The keys of the rows that can be read now."""
        found: Counter[str] = Counter()
        for path in self._parts():
            with suppress(OSError, pa.ArrowInvalid):  # one that is not whole, or has just been renamed
                found.update(pq.read_table(path, columns=["key"]).column("key").to_pylist())
        return found

    def _parts(self) -> list[Path]:
        return list((self.folder / "out" / ("store/parts/llm" if self.peer.module else "")).rglob("*.parquet"))

    def calls(self) -> list[tuple[float, str]]:
        """The times and keys of all calls of the stage, in order."""
        lines = [
            line
            for path in (self.folder / "calls").glob("*.txt")
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        return sorted((float(at), key) for at, _, key in (line.partition(" ") for line in lines))

    def log_end(self) -> str:
        """The last lines of its output."""
        lines = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])

    def rate(self) -> float:
        """The images/s between the first and the last call, without start and end of the processes."""
        times = [at for at, _ in self.calls()]
        return (len(times) - 1) / (times[-1] - times[0])

    def rate_of_rows(self) -> float:
        """The images/s from the first call to the last row, where a call has a batch of images."""
        last = max(path.stat().st_mtime for path in self._parts())
        return self.keys().total() / (last - self.calls()[0][0])


def has_the_demo(python: str) -> bool:
    """Whether a Python can import the demo's stages, with the packages of this one behind its own."""
    command = [python, "-m", "bench.peers.scripts.demo"]
    environment = {**os.environ, **DEMO, "PYTHONPATH": PYTHONPATH}
    return not subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def processes(pid: int) -> list[psutil.Process]:
    """The processes of a session, those included that have left their parent."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == pid:
                found.append(process)
    return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill all processes of a run."""
    # Ray's and Celery's daemons have sessions of their own, but they end with their children's parent
    victims = {*processes(process.pid), *_descendants(process.pid)}
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    process.wait()
    psutil.wait_procs(list(victims), timeout=60)


def kill_a_worker(process: subprocess.Popen[bytes], calls: Path) -> int:
    """Kill one process that has noted a call of the stage; returns its id."""
    ids = {int(path.name.partition("-")[0]) for path in calls.glob("*.txt")} - {process.pid}
    alive = sorted(pid for pid in ids if psutil.pid_exists(pid))
    chosen = random.Random(len(alive)).choice(alive)
    os.kill(chosen, signal.SIGKILL)
    return chosen


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _proportional(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, OSError):
        return 0
