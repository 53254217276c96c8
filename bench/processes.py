"""The processes of a temporary service. Each can be killed by itself, and `look_after` starts it again.

`strata serve` restarts its children and ends them when it ends; here server, API and workers are separate
processes, so that each can be killed while the others run.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx

from strata.processes import leaving_on
from strata.queue import EmbeddedServer, Queue

BENCH_PROFILES = Path(__file__).resolve().parent / "profiles"
CHECKOUT = Path(__file__).resolve().parent.parent
PLUG_INS = Path(__file__).resolve().parent / "plugins"  # registers the back ends of BENCH_PROFILES


def python_path(checkout: Path) -> str:
    """The PYTHONPATH of processes that run the code of a checkout."""
    return os.pathsep.join((str(checkout), str(checkout / "bench" / "plugins")))


PYTHONPATH = python_path(CHECKOUT)


class Process:
    """A command that is kept running. deaths: the signals (negative) and exit codes with which it ended.

    checkout: the folder whose code it runs.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, checkout: Path = CHECKOUT
    ) -> None:
        self.command, self.log, self.checkout = [sys.executable, *command], log, checkout
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STRATA_", "REDIS_URL"))}
        self.environment = {**inherited, "PYTHONPATH": python_path(checkout), **environment}
        self.deaths: list[int] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command,
                env=self.environment,
                # `python -m` looks for modules in the working folder first
                cwd=self.checkout if self.checkout != CHECKOUT else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def look_after(self) -> None:
        """Start it again if it ended."""
        code = self.process.poll()
        if code is not None:
            self.deaths.append(code)
            self.process = self._start()

    def send(self, number: int) -> None:
        """Send a signal; no effect if the process has just ended."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def stop(self, seconds: float = 15.0) -> int:
        """End it by SIGTERM; its exit code. Raises subprocess.TimeoutExpired."""
        self.send(signal.SIGTERM)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill it, also if it is stopped."""
        self.send(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


class Fleet:
    """An embedded server, the API without workers, and workers with fake stages. Use as a context manager.

    All of it ends with the block, also if this process is ended by SIGTERM.

    folder: data, store (unless another is given) and logs; shards: the allowed root; settings: more of Strata's, such
    as STRATA_LEASE_SECONDS; workers: the arguments of each; worker: the module that they run; checkout: the folder with
    the code of API and workers.
    """

    def __init__(
        self,
        folder: Path,
        shards: str,
        workers: Sequence[Sequence[str]],
        settings: Mapping[str, str] | None = None,
        worker: str = "bench.fakes.worker",
        checkout: Path = CHECKOUT,
    ) -> None:
        self.folder, self.worker_arguments, self.worker, self.checkout = folder, workers, worker, checkout
        self.port = free_port()
        # the fleet's own settings; the caller's come last
        self.settings = {
            "STRATA_DATA_DIR": str(folder / "data"),
            "STRATA_STORE": str(folder / "store"),
            "STRATA_PROFILES_DIR": str(checkout / "bench" / "profiles"),
            "STRATA_PROFILE": "fake",
            "STRATA_SHARD_ROOTS": f'["{shards}"]',
            "STRATA_PORT": str(self.port),
            **(settings or {}),
        }
        self.server = EmbeddedServer(folder / "redis")
        self.workers: list[Process] = []
        self._ends = ExitStack()

    def __enter__(self) -> Fleet:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as ends:
            ends.enter_context(leaving_on(signal.SIGTERM))
            ends.callback(self.server.stop)
            self.server.start()
            self.start_api(self.checkout)
            ends.callback(self._end_processes)
            for arguments in self.worker_arguments:
                self.start_worker(arguments, self.checkout)
            self._ends = ends.pop_all()
        return self

    @property
    def environment(self) -> dict[str, str]:
        """The variables of all processes. The server has its URL only after its start."""
        return {**self.settings, "REDIS_URL": self.server.url}

    def start_api(self, checkout: Path) -> None:
        """Start the API with the code of a checkout."""
        command = ["-m", "strata", "serve", "--no-workers"]
        self.api = Process(command, self.environment, self.folder / "api.log", checkout)

    def start_worker(self, arguments: Sequence[str], checkout: Path) -> Process:
        """Start one more worker with the code of a checkout."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        process = Process(["-m", self.worker, *arguments], self.environment, log, checkout)
        self.workers.append(process)
        return process

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def _end_processes(self) -> None:
        for process in (self.api, *self.workers):
            process.end()

    @property
    def url(self) -> str:
        """The API's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def store(self) -> str:
        """The store's URI."""
        return self.settings["STRATA_STORE"]

    def wait_ready(self, seconds: float = 120.0) -> None:
        """Wait until the API responds and every worker has announced that it is ready. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self._ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds:.0f} s not all of the fleet is ready; its logs: {self.folder}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        queue = Queue(self.server.url)
        try:
            ready = sum(heartbeat.ready for heartbeat in queue.heartbeats.live())
            return ready == len(self.workers) and httpx.get(f"{self.url}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False
        finally:
            queue.close()

    def look_after(self) -> None:
        """Restart the processes that have ended."""
        self.server.ensure_running()
        for process in (self.api, *self.workers):
            process.look_after()


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
