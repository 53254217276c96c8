"""`strata top`: queues, workers and jobs as one view of at most 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from strata.cli.rendering.records import STATUS_STYLES, clean, done_images, duration, moment
from strata.core import Backlog, JobStatus, JobView, WorkerView
from strata.counts import counted

WIDTH = 80  # columns where the output is no terminal
UNFINISHED = (JobStatus.IN_PROGRESS, JobStatus.VALIDATING, JobStatus.FINALIZING, JobStatus.CANCELLING)
MOST_ROWS = 12  # workers and jobs that are listed; of the others the number is told
NAME_WIDTH = 32  # of a worker's name: its host, its process and six digits
_GIB = 2**30


def view(backlog: Backlog, workers: Sequence[WorkerView], jobs: Sequence[JobView], now: datetime) -> RenderableType:
    """The view. jobs: the unfinished ones; now: the time that is shown, in UTC."""
    images = sum(job.images_per_second or 0.0 for job in jobs)
    head = f"Strata  {moment(now)}  {counted(backlog.jobs, 'unfinished job')}  {images:.1f} images/s"
    return Group(
        Text(head, "bold"),
        Text(),
        _queues(backlog),
        Text(),
        _workers(workers[:MOST_ROWS]),
        _more(len(workers) - MOST_ROWS, "worker"),
        _jobs(jobs[:MOST_ROWS]),
        _more(max(len(jobs), backlog.jobs) - min(len(jobs), MOST_ROWS), "job"),
    )


def _table(*columns: tuple[str, bool, bool]) -> Table:
    """A table. columns: name, whether they are numbers, and whether they may be shortened."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, numbers, shorten in columns:
        table.add_column(
            name, justify="right" if numbers else "left", no_wrap=True, overflow="ellipsis" if shorten else "fold"
        )
    return table


def _queues(backlog: Backlog) -> Table:
    table = _table(
        ("group", False, False),
        ("images", True, False),
        ("ready", True, False),
        ("shards", True, False),
        ("oldest", True, False),
        ("workers", True, False),
    )
    for name, group in backlog.groups.items():
        ready = backlog.workers.get(name, 0)
        style = "red" if not ready and (group.images or group.shards) else ""
        numbers = (group.images, group.ready, group.shards)
        table.add_row(
            name, *(f"{n:,}" for n in numbers), duration(group.oldest_seconds) or "-", Text(str(ready), style)
        )
    return table


def _workers(workers: Sequence[WorkerView]) -> Table:
    table = _table(
        ("worker", False, True),
        ("groups", False, True),
        ("state", False, True),
        ("images", True, False),
        ("GiB", True, False),
        ("GPU", True, False),
    )
    for one in workers:
        gpu = f"{one.gpu_reserved_bytes / _GIB:.1f}" if one.gpu_reserved_bytes else "-"
        memory = f"{one.resident_bytes / _GIB:.1f}"
        table.add_row(_short(clean(one.name)), ",".join(one.groups), _state(one), str(one.images), memory, gpu)
    return table


def _short(name: str) -> str:
    """A worker's name in NAME_WIDTH columns; its end, which tells it from others of its host, stays."""
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 15]}…{name[-14:]}"


def _state(worker: WorkerView) -> Text:
    if worker.held_up:
        return Text(f"waits for {clean(worker.held_up[0])}", "yellow")
    return Text("ready", "green") if worker.ready else Text("loading")


def _jobs(jobs: Sequence[JobView]) -> Table:
    table = _table(
        ("job", False, False),
        ("status", False, True),
        ("done", True, False),
        ("failed", True, False),
        ("img/s", True, False),
        ("ETA", True, False),
    )
    for job in jobs:
        status = Text(job.status.value, STATUS_STYLES.get(job.status, ""))
        if job.waiting:
            status = Text(f"waits for {clean(job.waiting.stage)}", "yellow")
        rate = "" if job.images_per_second is None else f"{job.images_per_second:.1f}"
        done = f"{done_images(job):,}/{job.request_counts.total:,}"
        table.add_row(job.id, status, done, f"{job.request_counts.failed:,}", rate, duration(job.eta_seconds))
    return table


def _more(number: int, what: str) -> Text:
    return Text(f"and {counted(number, f'more {what}')}\n" if number > 0 else "", "dim")
