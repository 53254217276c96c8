"""`strata top`: queues, workers and jobs in 80 columns."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console

from strata.cli.rendering.overview import MOST_ROWS, WIDTH, view
from strata.core import GROUPS, Backlog, GroupBacklog, WorkerView
from strata.jobs.envelope import envelope
from tests.queue.requests import job_request

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def shown(workers: int, jobs: int) -> str:
    groups = {group: GroupBacklog(images=3_000_000, ready=2_000_000, oldest_seconds=1e6) for group in GROUPS}
    listed = [
        WorkerView(name=f"a-very-long-name-of-a-pod-{'x' * 60}-{n}", groups=list(GROUPS), ready=bool(n % 2), images=512)
        for n in range(workers)
    ]
    fields = {"status": "in_progress", "index:images": "3000000", "llm:images": "12", "rate": "1234.5"}
    views = [envelope(job_request(f"{n:012x}"), fields, 0, None) for n in range(jobs)]
    output = io.StringIO()
    backlog = Backlog(jobs=jobs, groups=groups, workers=dict.fromkeys(GROUPS, 0))
    Console(width=WIDTH, file=output).print(view(backlog, listed, views, NOW))
    return output.getvalue()


def test_it_fits_into_80_columns_and_tells_what_it_leaves_out() -> None:
    text = shown(MOST_ROWS + 3, MOST_ROWS + 5)
    assert all(cell_len(line) <= WIDTH for line in text.splitlines())
    assert "2026-01-02T03:04:05Z" in text and "and 3 more workers" in text and "and 5 more jobs" in text
    assert text.count("loading") + text.count("ready") == MOST_ROWS + 1 and "-11 " in text
    assert text.count("in_progress") == MOST_ROWS and "3,000,000" in text


def test_an_idle_service_has_a_view_too() -> None:
    text = shown(0, 0)
    assert "0 unfinished jobs" in text and "more" not in text


def test_one_is_one() -> None:
    text = shown(MOST_ROWS + 1, MOST_ROWS + 1)
    assert "and 1 more worker\n" in text and "and 1 more job\n" in text
    assert " 1 unfinished job  " in shown(0, 1)
