"""The worker processes of `strata serve`: they are restarted when they end, and end with the service."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from strata.cli.exits import PROFILE_INVALID, USAGE, WEIGHTS_MISSING
from strata.components import strata_command
from strata.core import STAGES_OF, Profile, Settings, growing_pause
from strata.core.parameters import WEIGHTS
from strata.environment import own_variables
from strata.errors import StrataError
from strata.forks import Fork, Template, TemplateEnded
from strata.processes import ending_with_parent

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a worker that has ended again is restarted
STEADY = 60.0  # seconds of running after which the pause is reset to FIRST_PAUSE
STOP_SECONDS = 10.0  # between SIGTERM and SIGKILL at shutdown
CHECK_INTERVAL = 0.2  # seconds between two checks
# exit codes of errors that a restart cannot fix
FATAL_CODES = (WEIGHTS_MISSING, USAGE, PROFILE_INVALID)
GROUPS = ("index,vision", "llm")

# a worker serves no HTTP and fetches no image
_AUDIT = {"audit_log", "audit_reads"}
HTTP_SETTINGS = {
    "host",
    "port",
    "api_key",
    *_AUDIT,
    "allowed_hosts",
    "cors_origins",
    "url_hosts",
    "url_ports",
    "webhook_hosts",
    "metrics",
    "root_path",
}


@dataclass
class Child:
    """A command that is kept running. due: the time of its next start. failures: its early ends in a row.

    groups: of a worker, which may be a fork of the template instead.
    """

    name: str
    command: Sequence[str]
    groups: str = ""
    process: subprocess.Popen[bytes] | Fork | None = None
    started: float = 0.0
    due: float = 0.0
    failures: int = 0


class Supervisor:
    """Keeps children running from a thread of its own; a context manager.

    on_check is called several times a second. on_end is called once, from that thread, if a child ended with one of
    FATAL_CODES (`code` then has it), or if on_check raised a StrataError (`error`). template: what workers are forked
    from, as long as it runs.
    """

    def __init__(
        self,
        children: Sequence[Child],
        environment: Mapping[str, str],
        on_check: Callable[[], None],
        on_end: Callable[[], None],
        template: Template | None = None,
    ) -> None:
        self.children, self.environment = children, dict(environment)
        self.on_check, self.on_end, self.template = on_check, on_end, template
        self.code: int | None = None
        self.error: StrataError | None = None
        self._stop = threading.Event()
        # Linux sends the parent-death signal when the thread that forked ends: one thread that lives as long as the
        # children starts them all
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # a start must not wait until the template has imported all
        if self.template is not None and not self.template.was_ready:
            self.template.end()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.on_check()
            except StrataError as error:
                self._end_service(error=error)
            # a programming error in a check must not leave the workers without a supervisor
            except Exception:
                log.exception("a check of the supervisor failed")
            for child in self.children:
                self._check(child)
            self._stop.wait(CHECK_INTERVAL)
        self._end_all()

    def _check(self, child: Child) -> None:
        """Start a child that is due; if it has ended, plan its next start or end the service."""
        if self.code is not None or self.error is not None or self._stop.is_set():
            return  # the service is ending: start nothing
        now = time.monotonic()
        if child.process is None:
            if now >= child.due:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        # it has ended: end the service if a restart cannot help, else restart the child after a pause
        pid, child.process = child.process.pid, None
        if code in FATAL_CODES:  # the worker has printed the reason
            self._end_service(code=code)
            return
        if now - child.started > STEADY:
            child.failures = 0
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        log.warning("worker %s (pid %s) ended %s; it restarts in %g s", child.name, pid, how, _postpone(child))

    def _start(self, child: Child) -> None:
        try:
            child.process = self._forked(child)
            if child.process is None and not self._stop.is_set():
                child.process = self._started(child)
        # the machine has no process or no memory left
        except OSError as error:
            log.warning("worker %s does not start: %s; it is tried again in %g s", child.name, error, _postpone(child))
        if child.process is not None:
            child.started = time.monotonic()
            log.info("worker %s starts (pid %d)", child.name, child.process.pid)

    def _forked(self, child: Child) -> Fork | None:
        """A child as a fork; None if it is no worker, or if there is no template, or none any more."""
        if child.groups and self.template is not None and self.template.alive:
            with suppress(TemplateEnded):
                return self.template.fork({"groups": child.groups, "environment": self.environment})
        return None

    def _started(self, child: Child) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ending_with_parent(child.command, signal.SIGKILL),  # a worker that is killed loses no work
            env=self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends its children
        )

    def _end_service(self, code: int | None = None, error: StrataError | None = None) -> None:
        # only the first reason counts
        if self.code is None and self.error is None:
            self.code, self.error = code, error
            self.on_end()

    def _end_all(self) -> None:
        # send SIGTERM to all children, wait for all of them together, and kill those that still run at the deadline
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


def _postpone(child: Child) -> float:
    """Plan the next start of a child that has ended or does not start; returns the seconds until then."""
    # the first time nothing has to be waited for: it worked before, or will fail again and then be paused
    pause = growing_pause(child.failures - 1, FIRST_PAUSE, LONGEST_PAUSE) if child.failures else 0.0
    child.due = time.monotonic() + pause
    child.failures += 1
    return pause


def process_groups(profile: Profile) -> Sequence[str]:
    """The groups of each worker process: all in one if two of them name the same weights, which it loads once."""
    vision, llm = (
        {(stage.model, stage.revision) for name, stage in profile.stages.items() if name in STAGES_OF[group]}
        for group in ("vision", "llm")
    )
    shared = [model for model, _ in vision & llm if model.partition(":")[0] in WEIGHTS]
    return ("index,vision,llm",) if shared else GROUPS


def workers(groups: Sequence[str] = GROUPS) -> list[Child]:
    """One worker process for each entry of groups, which is a comma-separated list."""
    return [Child(names, strata_command("worker", "--groups", names), names) for names in groups]


def worker_environment(settings: Settings, redis_url: str) -> dict[str, str]:
    """This process's environment with all settings as variables, so that a worker has the service's settings."""
    # Redis, the data directory and the store get absolute values below
    exclude = {"redis_url", "data_dir", "store"} | HTTP_SETTINGS
    own = settings.model_dump(mode="json", exclude=exclude, exclude_none=True)
    inherited = own_variables(os.environ)  # without misspelt variables, of which this process has told
    for name in HTTP_SETTINGS:
        inherited.pop(f"STRATA_{name.upper()}", None)
    variables = {
        f"STRATA_{name.upper()}": value if isinstance(value, str) else json.dumps(value) for name, value in own.items()
    }
    return {
        **inherited,
        **variables,
        "REDIS_URL": redis_url,
        "STRATA_DATA_DIR": str(settings.data_dir.resolve()),
        "STRATA_STORE": settings.store_uri,
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
