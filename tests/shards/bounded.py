"""Run a function in a process of its own with limits of memory and time."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MIB = 2**20


def bounded(mebibytes: int, seconds: float, act: Callable[..., Any], *arguments: Any) -> Any:
    """The result of act(*arguments), which may use so much memory above what its process has before, and so many
    seconds of CPU.

    A process that asks for more memory gets MemoryError, one that computes for longer is ended: AssertionError then,
    as for any other exception. act: a function of a module.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, mebibytes, seconds, act, arguments))
    process.start()
    theirs.close()
    try:
        fault, result = ours.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"the process ended with {process.exitcode}") from None
    process.join()
    assert not fault, fault
    return result


def _child(
    pipe: Connection, mebibytes: int, seconds: float, act: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    # the modules are imported by now; memory is limited as address space, which the kernel counts at once
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + mebibytes * MIB,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(_cpu_seconds() + seconds) + 1,) * 2)
    try:
        pipe.send(("", act(*arguments)))
    except BaseException as error:
        pipe.send((f"{type(error).__name__}: {str(error)[:1000]}", None))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
