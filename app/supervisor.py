"""The workers that `strata serve` starts: children that are started again when they die, and that die with us."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from strata.core import exits
from strata.core.backoff import backoff
from strata.core.settings import CHECKOUT, Settings

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a dead worker is started again
STEADY = 60.0  # seconds after which a worker that dies is taken for a healthy one, and its pause begins anew
STOP_SECONDS = 10.0
BEAT = 0.2
# exits that another start would only repeat
HOPELESS = (exits.WEIGHTS_MISSING, exits.USAGE)
GROUPS = ("index,vision", "llm")

# Runs between fork and worker, because Python code in a forked child of a threaded process can hang: ask Linux for
# SIGKILL when the parent dies (a killed worker loses nothing), check that it lives, become the worker.
_SHIM = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Child:
    """A command that is kept running. due: when it is started, if it does not run. failures: its ends in a row."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    failures: int = 0


class Supervisor:
    """Keeps children running from a thread of its own; a context manager.

    on_beat is called several times a second. on_end is called once, from that thread, when a child ended in a way
    that makes no sense to repeat; `code` then holds its exit code.
    """

    def __init__(
        self,
        children: Sequence[Child],
        environment: Mapping[str, str],
        on_beat: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.children, self.environment = children, dict(environment)
        self.on_beat, self.on_end = on_beat, on_end
        self.code: int | None = None
        self._stop = threading.Event()
        # Linux sends the parent-death signal when the thread that forked ends, so one thread starts all children
        # and lives as long as they do
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self.on_beat()
            except exits.StrataExit as error:
                log.error("%s", error)
                self._give_up(error.code)
            except Exception:
                log.exception("the supervisor's beat failed")
            for child in self.children:
                self._look_after(child)
        self._end_all()

    def _look_after(self, child: Child) -> None:
        if self.code is not None:
            return
        now = time.monotonic()
        if child.process is None:
            if now >= child.due:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        pid, child.process = child.process.pid, None
        if code in HOPELESS:  # the worker has said why in one line
            self._give_up(code)
            return
        if now - child.started > STEADY:
            child.failures = 0
        pause = backoff(child.failures, FIRST_PAUSE, LONGEST_PAUSE)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        log.warning("worker %s (pid %s) ended %s; it starts again in %g s", child.name, pid, how, pause)
        child.due = now + pause
        child.failures += 1

    def _start(self, child: Child) -> None:
        command = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), *child.command]
        child.process = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us, and we tell the children
        )
        child.started = time.monotonic()
        log.info("worker %s starts (pid %d)", child.name, child.process.pid)

    def _give_up(self, code: int) -> None:
        if self.code is None:
            self.code = code
            self.on_end()

    def _end_all(self) -> None:
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def workers(groups: Sequence[str] = GROUPS) -> list[Child]:
    """A worker process for each entry of groups."""
    return [Child(names, [sys.executable, "-m", "workers", "--groups", names]) for names in groups]


def worker_environment(settings: Settings, redis_url: str) -> dict[str, str]:
    """Our environment with everything a worker must be told, so that both have the same settings."""
    told = settings.model_dump(mode="json", exclude={"redis_url", "host", "port", "api_key", "data_dir", "store"})
    ours = {
        f"STRATA_{name.upper()}": value if isinstance(value, str) else json.dumps(value) for name, value in told.items()
    }
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(CHECKOUT)]
    return {
        **os.environ,
        **ours,
        "REDIS_URL": redis_url,
        "STRATA_DATA_DIR": str(settings.data_dir.resolve()),
        "STRATA_STORE": settings.store_uri,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
