"""The memory of a service and its workers while it is attacked: resident bytes, sampled from /proc."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

INTERVAL = 0.05  # seconds between two samples
LOOK_SECONDS = 0.5  # between two looks which processes there are
PAGE = 4096
MIB = 2**20


class Memory:
    """Watches a process of `strata serve` in a thread until it is closed.

    The API is that process with all its children but the workers and the embedded server; a worker has its children
    too. Pages that processes share are counted in each: the figures are upper bounds. `begin` sets what is idle.
    """

    def __init__(self, pid: int) -> None:
        self._serve = psutil.Process(pid)
        self._stop = threading.Event()
        self._groups: dict[str, list[int]] = {}
        self.now: dict[str, int] = {}
        self.idle: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def begin(self) -> None:
        """What is used now is idle; forget the peaks."""
        self.idle, self.peak = dict(self.now), {}

    def above_idle(self) -> tuple[float, float]:
        """The MiB above idle of the API and of the worker that used most, at their peaks.

        A worker that was restarted is compared with the least that a worker of its groups used idle.
        """
        above = {name: (peak - self.idle.get(name, 0)) / MIB for name, peak in self.peak.items() if name in self.idle}
        return max(above.get("api", 0.0), 0.0), max(
            (each for name, each in above.items() if name != "api"), default=0.0
        )

    def _run(self) -> None:
        looked = 0.0
        while not self._stop.wait(INTERVAL):
            with suppress(psutil.Error, OSError):
                if time.monotonic() - looked > LOOK_SECONDS:
                    self._groups, looked = self._find(), time.monotonic()
                self.now = {name: sum(map(_resident, pids)) for name, pids in self._groups.items()}
                for name, used in self.now.items():
                    self.peak[name] = max(used, self.peak.get(name, 0))

    def _find(self) -> dict[str, list[int]]:
        """The processes by what they belong to: `api`, or a worker by its arguments."""
        groups = {"api": [self._serve.pid]}
        for child in self._serve.children():
            with suppress(psutil.Error):
                command, more = child.cmdline(), [one.pid for one in child.children(recursive=True)]
                if "--forks" in command:  # of the workers, which have their groups as names
                    groups["api"].append(child.pid)
                    for worker in child.children():
                        own = [one.pid for one in (worker, *worker.children(recursive=True))]
                        groups.setdefault(worker.name(), []).extend(own)
                elif "--groups" in command:
                    groups.setdefault(command[command.index("--groups") + 1], []).extend([child.pid, *more])
                elif not any("valkey" in part or "redis" in part for part in command[:1]):
                    groups["api"] += [child.pid, *more]
        return groups


def _resident(pid: int) -> int:
    """The resident bytes of a process; 0 if it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
