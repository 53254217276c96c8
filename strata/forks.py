"""Processes that are forks of a template, which has imported what they need.

To import the packages of a worker takes a second and 90 MiB, and those of a decoding process half of it; a fork takes
some milliseconds, and shares this memory. `Template` is the side of the process that asks, and `fork_when_asked` that
of the template, which does nothing but import and fork. It has one thread, since a fork has only the thread that forked
(jemalloc in pyarrow has another one, and sees to forks itself). It ends with the process that has started it, and on
Linux its forks end with it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self

from strata.errors import StrataError

log = logging.getLogger(__name__)

START_SECONDS = 120.0  # for a template to import all, on a machine that is busy
ANSWER_SECONDS = 120.0  # a machine that is starved must not lose all workers
WAIT_SECONDS = 0.01  # between two looks at a fork that is to end
# numpy starts threads when it is imported; a fork while they run may crash or hang (OpenBLAS, issues 240 and 2270)
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
_PIECE = 65_536  # bytes that are read at a time
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)
# systemd sends such a signal to all processes of a service. It is for the forks: a template that ends takes them along
_TO_ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class TemplateEnded(StrataError):
    """A template cannot be started, or has ended and all of its forks with it."""


class Template:
    """A template process, which begins to import in the background. Safe to use from several threads.

    A context manager. name: of its forks, in the log; command: gets the number of its socket as its last argument, and
    calls `fork_when_asked` with it. alive: whether it can be asked; was_ready: whether it ever could. Raises OSError.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name, self.alive, self.was_ready = name, True, False
        self._guard = threading.RLock()
        self._socket, theirs = socket.socketpair()
        # what is blocked here is blocked in the new process from its beginning, and in all of its threads
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_ALL)
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends its children
            )
        except OSError:
            self._socket.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process runs, which it is not asked for."""
        return self._process.poll() is None

    def fork(self, task: Any, descriptors: Sequence[int] = ()) -> Fork:
        """Start a fork. task: what it is told, as JSON; descriptors: of open files that it gets. Raises TemplateEnded.

        The first call waits until all is imported.
        """
        answer = self._ask({"fork": task}, descriptors)
        if "pid" not in answer:
            raise TemplateEnded(f"a process cannot be started: {answer.get('fault')}")
        return Fork(self, int(answer["pid"]))

    def code(self, pid: int) -> int | None:
        """The exit code of a fork that has ended, as `subprocess` tells it; None if it runs. Raises TemplateEnded."""
        code = self._ask({"code": pid})["code"]
        return None if code is None else int(code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the process and all of its forks. Whoever asks it in another thread gets TemplateEnded."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        # after the end of a question, which reads from this number
        with self._guard:
            self._socket.close()

    def _ask(self, question: Mapping[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        with self._guard:
            try:
                if not self.was_ready:
                    self.was_ready = "ready" in self._answer(START_SECONDS)
                line = json.dumps(question).encode() + b"\n"
                self._socket.settimeout(ANSWER_SECONDS)
                # a long line is sent in pieces: the files go along with its first byte
                socket.send_fds(self._socket, [line[:1]], list(descriptors))
                self._socket.sendall(line[1:])
                return self._answer(ANSWER_SECONDS)
            except (OSError, ValueError) as error:
                told, hangs = not self.alive, isinstance(error, TimeoutError)
                self.end()
                code = self._process.returncode
                how = "no answer" if hangs else f"exit code {code}" if code >= 0 else signal.Signals(-code).name
                named = f"the process from which the {self.name} are forked (pid {self.pid})"
                if not told:
                    log.warning("%s has ended: %s; they have ended with it", named, how)
                raise TemplateEnded(f"{named} has ended: {how}") from error

    def _answer(self, seconds: float) -> dict[str, Any]:
        """The next line. Raises OSError, and ValueError if there is none."""
        self._socket.settimeout(seconds)
        line = b""
        while not line.endswith(b"\n"):
            piece = self._socket.recv(_PIECE)
            if not piece:
                break
            line += piece
        return dict(json.loads(line))


class Fork:
    """A fork, with those methods of `subprocess.Popen` that are needed of it. returncode: None as long as it runs.

    Safe to use from several threads.
    """

    def __init__(self, template: Template, pid: int) -> None:
        self.pid, self._template = pid, template
        self.returncode: int | None = None
        self._guard = threading.Lock()

    def poll(self) -> int | None:
        """The exit code, or the signal as a negative number; None if it runs."""
        with self._guard:  # a template tells the end once
            if self.returncode is None:
                try:
                    self.returncode = self._template.code(self.pid)
                except TemplateEnded:
                    self.returncode = -signal.SIGKILL
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM; no effect on a fork that has ended."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; no effect on a fork that has ended."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        # its number is given to another process only when `poll` has told its end, or when the template has ended
        if self.returncode is None and self._template.runs:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0.0)
            time.sleep(WAIT_SECONDS)
        return code


class Task(NamedTuple):
    """What a fork is to do, as it was asked for, and the descriptors of the open files that it got."""

    task: Any
    descriptors: list[int]


def fork_when_asked(descriptor: int) -> Task | None:
    """Fork for the process at the other end of a socket. Returns in each fork with its task, in the template with None
    when the socket is closed.
    """
    control = socket.socket(fileno=descriptor)
    # what is loaded stays shared: the collector would write to it
    gc.collect()
    gc.freeze()
    with suppress(ConnectionError):  # the other process may end at any moment
        control.sendall(b'{"ready": true}\n')
        while (asked := _next(control)) is not None:
            question, descriptors = asked
            answer: dict[str, Any] | None = _ended(question) if "code" in question else _forked()
            if answer is None:
                control.close()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_ALL)
                return Task(question["fork"], descriptors)
            for number in descriptors:
                os.close(number)
            control.sendall(json.dumps(answer).encode() + b"\n")
    return None


def _forked() -> dict[str, Any] | None:
    """Fork. Returns None in the fork, and in the template the answer: the number of the fork, or why there is none."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return {"fault": str(error)}
    if pid:
        return {"pid": pid}
    _end_with(parent)
    return None


def _next(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next question with its descriptors; None if there is none any more."""
    line, descriptors, _, _ = socket.recv_fds(control, _PIECE, 8)
    while line and not line.endswith(b"\n"):
        piece = control.recv(_PIECE)
        if not piece:
            return None
        line += piece
    return (json.loads(line), list(descriptors)) if line else None


def _ended(question: Mapping[str, Any]) -> dict[str, Any]:
    """The exit code of a fork, if it has ended. Afterwards its number may be that of another process."""
    pid, status = os.waitpid(int(question["code"]), os.WNOHANG)
    return {"code": os.waitstatus_to_exitcode(status) if pid else None}


def _end_with(parent: int) -> None:
    """Have Linux end this process when its parent ends, which may have happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
