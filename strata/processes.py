"""Processes of this machine: whether one that somebody else has named still runs, and what ends one."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_IDENTITY = re.compile(r"(?P<place>[^/]+/\d+)/(?P<pid>[1-9]\d{0,18})/(?P<start>\d+)", re.ASCII)

# a program that becomes another one: Python code between fork and exec can hang in a process with threads
_SHIM = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(sys.argv[2]))  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""


def process_identity(pid: int | None = None) -> str:
    """What names a process for ever: boot of the machine, namespace of the number, number, time of the start in ticks.

    None: this process. Linux tells it; "" elsewhere, or if there is no such process.
    """
    number = os.getpid() if pid is None else pid
    place, start = _namespace(), _start(number)
    return f"{place}/{number}/{start}" if place and start else ""


def has_ended(identity: str) -> bool:
    """Whether a process has ended. False if that is not known: it may be of another machine or another container."""
    found = _IDENTITY.fullmatch(identity)
    if found is None or found["place"] != _namespace():
        return False
    start = _start(int(found["pid"]))
    return start is not None and start != found["start"]


def ending_with_parent(command: Sequence[str], number: signal.Signals) -> list[str]:
    """A command line that runs a command, to which Linux sends a signal when the thread that has started it ends.

    command: begins with the path of a program. It does not run if this process has ended before.
    """
    return [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), str(number.value), *command]


@contextmanager
def leaving_on(*numbers: signal.Signals, code: int | None = None) -> Iterator[None]:
    """Make signals raise SystemExit within the block, so that every context manager in it runs its exit.

    code: the exit code; None: 128 and the signal's number, as shells tell it. After the first signal the others have no
    effect any more. Without effect outside of the main thread, in which alone Python allows handlers of signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)  # a second signal must not interrupt the end
        raise SystemExit(128 + number if code is None else code)

    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is leave:  # else the process is leaving, up to its end
                signal.signal(number, handler)


@functools.cache
def _namespace() -> str:
    """The boot of the machine, and the namespace in which this process's number is unique; "" if they are not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except (OSError, ValueError):
        return ""


def _start(pid: int) -> str | None:
    """When a process started, in ticks since the boot; "" if it has ended, also if nobody has asked for its exit code.

    None if that is not known: /proc may hide the processes of other users.
    """
    try:
        # the name of the program, in brackets, may hold blanks and brackets; the state and other numbers follow it
        state, *numbers = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        return "" if state in (b"Z", b"X") else numbers[18].decode()
    except (FileNotFoundError, ProcessLookupError):
        return "" if not _exists(pid) else None
    except (OSError, ValueError, IndexError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
