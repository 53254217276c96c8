"""How much memory a process takes, with its decoding processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

INTERVAL = 0.2  # seconds between two samples, which take some milliseconds for each GiB


@contextmanager
def peak_memory(process: psutil.Process) -> Iterator[list[int]]:
    """The largest proportional set size of a process and its decoders in the block, and that at rest before it."""
    stop, found = threading.Event(), [memory(process), 0]

    def watch() -> None:
        while not stop.wait(INTERVAL):
            found[1] = max(found[1], memory(process))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def memory(process: psutil.Process) -> int:
    """Bytes of a process and of its decoders; shared pages count once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            if one == process or "strata.images.child" in one.cmdline():
                rolled = Path(f"/proc/{one.pid}/smaps_rollup").read_text(encoding="utf-8")
                total += next(int(line.split()[1]) * 1024 for line in rolled.splitlines() if line.startswith("Pss:"))
        except (psutil.NoSuchProcess, OSError, StopIteration):  # it has just ended
            continue
    return total
