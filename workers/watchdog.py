"""The watchdog: a small process that ends its worker when something in it takes longer than its deadline.

The worker writes what it does now into memory that both share (`models.deadlines`); the watchdog reads it, and sends
SIGKILL: model code cannot block that, whatever it holds. Before, it notes which images were in flight, and why, as a
process does that ends in order (`workers.handover`), so that poison isolation finds the image. It ends with its worker.

Only time that the worker could use is counted: not while it is stopped (SIGSTOP), while it is ready to run and gets no
processor because the machine is busy, or while the watchdog itself does not run. A worker that sleeps could run.

The file is run by its path, and imports nothing but the standard library until it has to end a worker: it takes 15 MiB.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from models.deadlines import Activity, Flight

TICK_SECONDS = 0.5  # between two looks
LOOKS = 8  # over which waits for a processor are averaged: the system counts a wait only when it is over
MOST_STARVED = 0.95  # of the time, at most, is not counted: so everything ends, at 20 times its deadline by the clock
NOTE_SECONDS = 5.0  # for the notes in Redis before the worker is ended, and for the release of its chunks after it
SIZE = 2**20  # bytes of one of two buffers
TIME_LIMIT = "time_limit"  # the kind of failure of an image at which workers hung
_HEAD = struct.Struct("=QQQ")  # the number of changes; the length of the content of each buffer


class Told(NamedTuple):
    """An Activity as plain values, in the order of its fields: it is read without an import of the packages."""

    group: str
    part: str
    seconds: float
    about: str
    kind: str
    claims: bytes
    between: bool
    progress: int
    longest: float


Flights = dict[str, tuple[tuple[str, ...], bytes]]  # by group: the keys of the images in flight, and their rows


class Board:
    """Memory that two processes share: one writes contents, the other reads the last one that is complete.

    There are two buffers. A writer that is stopped in the middle of one leaves the other as it is.
    """

    def __init__(self, descriptor: int, create: bool = False) -> None:
        """Map a file. create: whether it is new and empty."""
        size = _HEAD.size + 2 * SIZE
        if create:
            os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)

    def write(self, content: bytes) -> None:
        """Replace the content. Raises ValueError if it is too long."""
        if len(content) > SIZE:
            raise ValueError("too long")
        changes, *lengths = _HEAD.unpack_from(self._memory)
        place = 1 - self._place
        self._memory[self._start(place) : self._start(place) + len(content)] = content
        lengths[place] = len(content)
        _HEAD.pack_into(self._memory, 0, changes, *lengths)
        # last, as it makes the new content valid
        self._memory[:8] = struct.pack("=Q", changes + 1)

    def read(self) -> bytes:
        """The content; empty if there is none, or if it changes too fast to be read."""
        for _ in range(100):
            changes, *lengths = _HEAD.unpack_from(self._memory)
            start = self._start(changes % 2)
            content = self._memory[start : start + lengths[changes % 2]]
            if _HEAD.unpack_from(self._memory)[0] == changes:
                return content
        return b""

    @property
    def _place(self) -> int:
        """The number of the buffer whose content is valid: 0 or 1."""
        return int(_HEAD.unpack_from(self._memory)[0]) % 2

    @staticmethod
    def _start(place: int) -> int:
        return _HEAD.size + place * SIZE


class Watchdog:
    """The worker's side: starts the process, and tells it what the worker does. A context manager.

    name: the worker's consumer name, by which its claims are known; url: of Redis; None: the worker has none, and its
    own marks of what was in flight are all that the next process gets.
    """

    def __init__(self, name: str, url: str | None) -> None:
        self._name, self._url = name, url or ""
        if hasattr(os, "memfd_create"):  # Linux
            self._file = os.memfd_create("watchdog")
        else:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
        self._board = Board(self._file, create=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Watchdog:
        self.look_after()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        os.close(self._file)

    def look_after(self) -> None:
        """Start the process, also if somebody has ended it."""
        if self._process is not None and self._process.poll() is None:
            return
        command = [sys.executable, "-I", "-S", __file__, str(self._file), str(os.getpid()), self._name]
        # it needs the paths of the packages only at the end; the address of Redis may hold a password
        environment = {**os.environ, "REDIS_URL": self._url, "WATCHDOG_PATHS": json.dumps(sys.path)}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[self._file]
        )

    def publish(self, activities: Mapping[int, Activity], flights: Mapping[str, Flight]) -> None:
        """Tell the process what the worker does now."""
        told = {number: tuple(vars(activity).values()) for number, activity in activities.items()}
        flying: Flights = {group: (flight.keys, flight.rows) for group, flight in flights.items()}
        content = pickle.dumps((told, flying))
        # of very many rows in flight none can be told: then all of their chunks are suspects
        self._board.write(content if len(content) <= SIZE else pickle.dumps((told, {})))


class Starvation:
    """The share of the time in which a process was ready to run, and had no processor.

    waits: tells for each thread the nanoseconds that it has waited for a processor in its life. The thread that waited
    longest counts: a call that needs several threads is as slow as the slowest of them.
    """

    def __init__(self, waits: Callable[[], Mapping[int, int]]) -> None:
        self._waits = waits
        self._looks: deque[tuple[float, Mapping[int, int]]] = deque(maxlen=LOOKS + 1)

    def share(self, now: float) -> float:
        """The share, at most MOST_STARVED, over the last LOOKS calls. now: seconds of the monotonic clock."""
        waits = self._waits()
        self._looks.append((now, waits))
        began, before = self._looks[0]
        if now <= began:
            return 0.0
        # a thread that is not known from before has waited since its start
        longest = max((waited - before.get(thread, 0) for thread, waited in waits.items()), default=0)
        return min(MOST_STARVED, max(0.0, longest / 1e9 / (now - began)))


class _Spent(NamedTuple):
    """The seconds that an activity has taken: since its last progress that counts, and in all."""

    progress: int
    since: float = 0.0
    all: float = 0.0


class Watch:
    """The process's side: the seconds that each activity of the worker has taken so far."""

    def __init__(self, board: Board, pid: int, starvation: Starvation | None = None) -> None:
        self._board, self._pid = board, pid
        self._starvation = starvation or Starvation(lambda: dict(waits_of(pid)))
        self._spent: dict[int, _Spent] = {}  # by the activity's number
        self._looked = time.monotonic()

    def overdue(self) -> tuple[Told, Flights] | None:
        """The first activity whose time is over, and the rows in flight; None if there is none. Call it every tick."""
        # a pause of this process itself counts as two ticks
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * TICK_SECONDS), now
        content = self._board.read()
        if not content or is_stopped(self._pid):
            return None
        told, flights = pickle.loads(content)
        activities = {number: Told(*values) for number, values in told.items()}
        if activities:
            passed *= 1 - self._starvation.share(now)
        busy = {activity.group for activity in activities.values() if not activity.between}
        # the time of an activity that has ended is forgotten
        before, self._spent = self._spent, {}
        for number, activity in activities.items():
            spent = before.get(number, _Spent(activity.progress))
            if activity.progress != spent.progress and spent.all < activity.longest:
                spent = spent._replace(progress=activity.progress, since=0.0)
            if not (activity.between and activity.group in busy):
                spent = spent._replace(since=spent.since + passed, all=spent.all + passed)
            if spent.since > activity.seconds:
                return activity, flights
            self._spent[number] = spent
        return None


def waits_of(pid: int) -> Iterator[tuple[int, int]]:
    """The threads of a process and of all below it, each with the nanoseconds that it has waited for a processor.

    This process is left out. Known on Linux only (`/proc/PID/task/TID/schedstat`), which counts time that a container's
    quota takes too.
    """
    for thread in _threads(pid):
        yield from _wait_of(pid, thread)
        # those that decode images, forks of a child: a call waits for them
        for child in _numbers(f"/proc/{pid}/task/{thread}/children"):
            if child != os.getpid():
                yield from waits_of(child)


def _threads(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    return []


def _wait_of(pid: int, thread: int) -> Iterator[tuple[int, int]]:
    # the time on a processor, the time in its queue, and how often
    if numbers := _numbers(f"/proc/{pid}/task/{thread}/schedstat"):
        yield thread, numbers[1]


def _numbers(path: str) -> list[int]:
    """The numbers in a file; none if the thread has just ended, or if the kernel has no such file."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a look has some hundred files
        return [int(word) for word in file.read().split()]
    return []


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal or a debugger. Known on Linux only."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:
        return False


def end(pid: int, name: str, activity: Told, flights: Flights) -> None:
    """Log one line, note what was in flight, and end the worker; then others may have its chunks at once."""
    # what the activity names, else what is in flight in its group
    by_group = activity.kind == "rows" and not activity.claims
    keys, rows = flights.get(activity.group, ((), b"")) if by_group else ((), activity.claims)
    # keys of images may be names of files: they are told only to who asks for everything
    names = ", ".join(keys) if os.environ.get("STRATA_LOG_LEVEL", "").strip() == "debug" else f"{len(keys)} images"
    what = names if keys else activity.about
    late = f"longer than {activity.seconds:.0f} s"
    on = f" on {what}" if what else ""
    _log("error", f"worker {pid} is ended: {activity.part} takes {late}{on}")
    others = [flying for group, (_, flying) in flights.items() if not (by_group and group == activity.group)]
    notes: list[Callable[[], None]] = []

    def note() -> None:
        notes.append(_note(name, activity, f"{activity.part} took {late}", rows, others))

    # Redis may be away: then the mark of what was in flight is all that the next holder knows
    if os.environ["REDIS_URL"]:
        _within(NOTE_SECONDS, note)
    if os.getppid() == pid:
        os.kill(pid, signal.SIGKILL)
    for release in notes:
        _within(NOTE_SECONDS, release)


def _note(name: str, activity: Told, detail: str, rows: bytes, others: Sequence[bytes]) -> Callable[[], None]:
    """Write the isolation notes; returns what releases the chunks when the worker has ended."""
    sys.path[:] = json.loads(os.environ["WATCHDOG_PATHS"])
    from strata.queue import Queue
    from strata.telemetry import field_of
    from workers.isolation import Blame, Hang

    accused = pickle.loads(rows) if rows else []
    innocent = [flying for pickled in others for flying in pickle.loads(pickled)]
    queue = Queue(os.environ["REDIS_URL"])
    hang = Hang(queue, name, accused, innocent)
    hang.note(Blame(activity.part, TIME_LIMIT, detail), storage=activity.kind == "storage")
    queue.sums.add({field_of("strata_deadlines_exceeded", activity.part): 1})
    return hang.release


def _within(seconds: float, act: Callable[[], None]) -> None:
    """Call act, and wait for its end so many seconds. Its errors are printed as one line."""

    def call() -> None:
        try:
            act()
        except Exception as error:
            _log("warning", f"the watchdog noted nothing: {type(error).__name__}: {error}")

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)


def _log(level: str, text: str) -> None:
    """Print a line as `strata.logs` does, which is not imported before the worker has ended."""
    chosen, now = os.environ.get("STRATA_LOG_FORMAT", "").strip(), time.time()
    moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03d}Z"
    if chosen == "json" or (chosen != "text" and not sys.stderr.isatty()):
        line = json.dumps({"time": moment, "level": level, "logger": "workers", "message": text})
    else:
        line = f"{moment} {level.upper()} workers: {text}"
    print(line, file=sys.stderr, flush=True)


def main(descriptor: int, pid: int, name: str) -> None:
    """Watch a worker until it ends, or until it has to be ended."""
    for number in (signal.SIGTERM, signal.SIGINT):  # of a whole group of processes: the worker tidies up meanwhile
        signal.signal(number, signal.SIG_IGN)
    watch = Watch(Board(descriptor), pid)
    while os.getppid() == pid:
        if (found := watch.overdue()) is not None:
            end(pid, name, *found)
            return
        time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
