"""What people at a terminal see."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone

import pytest
from rich.console import Console, RenderableType

from strata.cli.rendering import records as render
from strata.core.records import Caption, Description, FailureNote, ImageReference, Record, Region, Sentence, TextLine
from strata.core.schemas import (
    Budget,
    FailureRow,
    GroupProgress,
    JobStatus,
    JobUsage,
    JobView,
    RequestCounts,
    ShardCounts,
    Waiting,
)
from strata.core.usage import Usage


def shown(thing: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def record() -> Record:
    return Record(
        key="000000001",
        image=ImageReference(uri="file:///a.tar", size=1),
        width=240,
        height=208,
        alt_text="clip art",
        caption=Caption(text="A dog.", score=0.9, match=0.8),
        regions=[
            Region(box=(1, 2, 3, 4), phrase="a ghost", match=0.02, kept=False, reason="low_match"),
            Region(box=(5, 6, 70.4, 80), phrase="a dog [bold]", score=0.75, match=0.98),
        ],
        objects=[],
        text=[TextLine(box=(0, 0, 9, 9), text="OPEN\x1b[31m", score=0.5)],
        description=Description(text="A dog.", sentences=[Sentence(text="A dog.", evidence=["caption", "regions/1"])]),
        seconds={"captioner": 0.25, "ocr": 0.5},
    )


def job(succeeded: int, status: JobStatus = JobStatus.IN_PROGRESS) -> JobView:
    return JobView(
        id="j1",
        kind="batch",
        status=status,
        profile="demo",
        priority="lo",
        request_counts=RequestCounts(total=4, succeeded=succeeded, failed=1),
        shards=ShardCounts(total=2, indexed=1, failed=1),
        groups={"index": GroupProgress(), "vision": GroupProgress(images=3, chunks=1, reused=3)},
        images_per_second=2.0,
        eta_seconds=61.2,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def test_the_tree_tells_every_layer() -> None:
    text = shown(render.layers_tree(record(), "one.jpg"))
    for words in (
        "one.jpg  240×208",
        "alt text  clip art",
        "caption  match 0.80 score 0.90",
        "regions  1 kept, 1 dropped",
        "1 a dog [bold]  [5, 6, 70, 80]  match 0.98 score 0.75",
        "0 a ghost  [1, 2, 3, 4]  match 0.02  dropped: low_match",
        "objects  none",
        "A dog.  ← caption, regions/1",
        "captioner 0.25 · ocr 0.50 · sum 0.75",
    ):
        assert words in text
    assert text.index("a dog [bold]") < text.index("a ghost")
    assert "\x1b" not in text


def test_a_failed_record_tells_why_and_nothing_else() -> None:
    bare = Record(key="k", image=ImageReference(uri="u", size=1)).failed("captioner", "OSError", "cut off")
    text = shown(render.layers_tree(bare))
    assert "failed in captioner: OSError: cut off" in text
    assert "regions" not in text


def test_warnings_stand_before_the_layers() -> None:
    lines = shown(render.layers_tree(record().warned("outside_domain", "know only\x1b drawn scenes"))).splitlines()
    assert "warning" in lines[1] and "know only  drawn scenes" in lines[1]


def test_jobs_in_a_table_and_in_lines() -> None:
    table = shown(render.job_table([job(1), job(3, JobStatus.COMPLETED)]))
    assert "in_progress" in table and "completed" in table
    assert "0:01:01" in table and "2026-01-02T03:04:05Z" in table
    line = "in_progress: 2/4 images, 2.0 images/s, ETA 0:01:01, 1 failed, 1 of 2 shards failed"
    assert render.job_line(job(1)) == line
    details = shown(render.job_details(job(1)))
    assert "succeeded 1, filtered 0, failed 1, cancelled 0" in details
    assert "vision: images 3, chunks 1, images reused 3" in details


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
def test_a_table_of_jobs_fits_and_its_ids_are_whole(width: int) -> None:
    ids = [letter * 32 for letter in "ab"]
    jobs = [job(1).model_copy(update={"id": ids[0], "profile": "everyday"}), job(3).model_copy(update={"id": ids[1]})]
    console = Console(file=io.StringIO(), width=max(width, 32), color_system=None)
    console.print(render.job_table(jobs, width))
    assert isinstance(console.file, io.StringIO)
    head, *rows = console.file.getvalue().splitlines()
    assert [row.split()[0] for row in rows] == ids and "…" not in console.file.getvalue()
    # more columns where there is room, and none is left out that would have fitted
    shown = {20: ["job"], 40: ["job"], 80: ["job", "status", "images", "failed", "profile", "ETA"]}
    assert head.split()[: len(shown.get(width, []))] == shown.get(width, [])
    assert ("created" in head) == (width >= 120) and ("vision/llm" in head) == (width == 200)


def test_times_are_in_utc_and_say_so() -> None:
    there = datetime(2026, 1, 2, 3, 4, 5, 999, tzinfo=timezone(timedelta(hours=-3)))
    assert render.moment(there) == "2026-01-02T06:04:05Z"


def test_only_what_was_done_is_counted_as_done() -> None:
    cancelled = job(0, JobStatus.CANCELLED)
    cancelled.request_counts = RequestCounts(total=300, succeeded=32, cancelled=268)
    assert render.job_line(cancelled).startswith("cancelled: 32/300 images, ")
    assert "succeeded 32, filtered 0, failed 0, cancelled 268" in shown(render.job_details(cancelled))
    # the job failed, and not its images: that is said
    failed = job(0, JobStatus.FAILED)
    failed.request_counts, failed.shards, failed.error = (
        RequestCounts(total=1, cancelled=1),
        ShardCounts(total=1),
        "why",
    )
    failed.images_per_second = failed.eta_seconds = None
    assert render.job_line(failed) == "failed: 0/1 images, the job failed as a whole, why"
    assert "succeeded 0, filtered 0, failed 0, without result 1" in shown(render.job_details(failed))


def test_what_a_job_has_spent() -> None:
    usage = JobUsage(prompt_tokens=1200, completion_tokens=34, requests=5, money=0.0025, reserved_tokens=77)
    spent = job(1).model_copy(update={"usage": usage, "budget": Budget(tokens=5000, money=0.5)})
    assert (
        "usage: 1,200 tokens read, 34 written, 5 requests, 77 reserved, budget 5,000 tokens, money 0.0025 of 0.5"
        in (shown(render.job_details(spent)))
    )
    free = job(1).model_copy(update={"usage": JobUsage()})
    assert "usage: 0 tokens read, 0 written, 0 requests, 0 reserved\n" in shown(render.job_details(free))
    assert "usage" not in shown(render.job_details(job(1)))
    told = record().model_copy(update={"usage": {"composer": Usage(prompt_tokens=9, completion_tokens=4)}})
    assert "tokens  composer 9+4" in shown(render.layers_tree(told))


def test_failures_in_lines() -> None:
    note = FailureNote(stage="index", error_type="ReadError", detail="cut\x07off")
    assert render.failure_line(FailureRow(shard="a.tar", key=None, failure=note)) == "a.tar: index: ReadError: cut off"
    assert render.failure_line(FailureRow(shard="a.tar", key="k", failure=note)).startswith("a.tar k: ")


def test_progress_is_quiet_where_nobody_watches() -> None:
    console = Console(file=io.StringIO(), width=160)
    seconds = iter(range(100))
    views = [job(1), *[job(2)] * 11, job(3, JobStatus.COMPLETED)]
    last = render.follow(views, console, clock=lambda: float(next(seconds)))
    assert last == views[-1]
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "in_progress: 2/4 images",
        "in_progress: 3/4 images",
        "completed: 4/4 images",
    ]


def test_progress_bars_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    assert render.follow([job(1), job(3, JobStatus.COMPLETED)], console) == job(3, JobStatus.COMPLETED)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "vision" in text and "4/4" in text and "3 reused" in text
    assert render.follow([], console) is None


def test_what_a_job_waits_for_is_in_every_view_of_it() -> None:
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    reason = "server http://x/v1 cannot be used: status 401: wrong\x1b[31m key"
    waiting = Waiting(stage="composer", reason=reason, since=since, attempts=3)
    view = job(2).model_copy(update={"waiting": waiting})
    words = "waits for composer (since 2026-01-02T03:04:05Z, 3 attempts): server http://x/v1 cannot be used: status 401"
    assert words in render.job_line(view) and "\x1b" not in render.job_line(view)
    assert words in " ".join(shown(render.job_details(view)).split())
    assert "in_progress, waits for composer" in shown(render.job_table([view]))
    console = Console(file=io.StringIO(), width=300, color_system=None)
    render.follow([view, job(3, JobStatus.COMPLETED)], console)
    assert isinstance(console.file, io.StringIO) and words in console.file.getvalue()
    assert "waits" not in render.job_line(job(2))
