"""`strata submit --dry-run`: what a submission would take, as people and programs read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from strata.cli import exits, jobs
from strata.cli.main import main
from strata.cli.rendering import estimates as render
from strata.core import (
    BatchPreview,
    ChosenRows,
    Estimate,
    Figure,
    GroupEstimate,
    JobSample,
    ReasonEstimate,
    UnreadShard,
)
from strata.core.schemas import JobStatus, JobView
from tests.cli.test_cli import job

FOUND = Estimate(
    job="j1",
    status=JobStatus.COMPLETED,
    profile="api",
    seed=7,
    sampled=200,
    described=200,
    shards=332,
    unread=1,
    images=3_319_750,
    to_compute=3_300_000,
    groups={
        "vision": GroupEstimate(
            images=Figure(value=3_300_000),
            images_per_second=Figure(value=15.23, low=14.5, high=15.9),
            device="NVIDIA H200",
            workers=2,
            loading_seconds=41.0,
        ),
        "llm": GroupEstimate(images=Figure(value=3_300_000), workers=0),
    },
    seconds=Figure(value=219_600, low=200_000, high=230_000),
    gpu_hours=Figure(value=60.2, low=57.6, high=63.2),
    prompt_tokens=Figure(value=2.347e9, low=2.2e9, high=2.5e9),
    money=Figure(value=0.0123),
    failed=Figure(value=16_500, low=4521, high=47_000),
    reasons=[
        ReasonEstimate(status="failed", stage="captioner", error_type="empty\x1banswer", images=Figure(value=1.0))
    ],
    store_bytes=Figure(value=5.5 * 2**30, low=5 * 2**30, high=6 * 2**30),
    notes=["the budget is spent early"],
)


class Service:
    """Answers a dry run. views: of the sample's job; interrupted: Ctrl-C is pressed after them."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.status, self.interrupted, self.cancelled = JobStatus.COMPLETED, False, False

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def preview(self, shards: list[str], **options: Any) -> BatchPreview:
        self.asked.append((shards, options))
        unread = [UnreadShard(shard="b", reason="no\x1btar")]
        return BatchPreview(
            shards=40, looked_at=20, images=1000, reused=40, unread=unread, seconds=7200, money=3.21, like="j0"
        )

    def submit_sample(self, shards: list[str], images: int, seed: int, **options: Any) -> JobView:
        self.asked.append((shards, images, seed, options))
        return self._view(JobStatus.VALIDATING, drawn=False)

    def _view(self, status: JobStatus, drawn: bool = True) -> JobView:
        sample = JobSample(images=200, seed=7, drawn=drawn)
        sources = self.asked[-1][-1].get("from_")
        chosen = ChosenRows(sources=sources) if sources else None
        return job("j1", status).model_copy(update={"sample": sample, "chosen": chosen})

    def watch(self, job_id: str) -> Iterator[JobView]:
        yield self._view(JobStatus.VALIDATING, drawn=False)
        yield self._view(JobStatus.IN_PROGRESS)
        if self.interrupted:
            raise KeyboardInterrupt
        yield self._view(self.status)

    def estimate(self, job_id: str) -> Estimate:
        return FOUND.model_copy(update={"described": 57}) if self.interrupted else FOUND

    def cancel(self, job_id: str) -> JobView:
        self.cancelled = True
        return self._view(JobStatus.CANCELLING)

    def job(self, job_id: str) -> JobView:
        return self._view(JobStatus.CANCELLED)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(jobs, "open_client", lambda *_: made)
    return made


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["submit", *arguments])
    return int(caught.value.code or 0)


def test_without_a_sample_only_what_is_known_is_told(service: Service, capsys: Any) -> None:
    assert run("/a/*.tar", "--dry-run", "--profile", "demo", "--budget-tokens", "5") == 0
    ((shards, options),) = service.asked
    assert shards == ["/a/*.tar"] and options["profile"] == "demo" and options["budget"].tokens == 5
    out = capsys.readouterr().out
    for words in ("40 shards (20 looked at)", "about 1,000 images, about 40 with results", "time: about 2.00 h",
                  "money: about 3.21", "as job j0", "cannot be read: no tar", "-n 200"):  # fmt: skip
        assert words in out, words
    assert run("/a/*.tar", "--dry-run", "--json") == 0
    assert BatchPreview.model_validate_json(capsys.readouterr().out).like == "j0"


def preview(images: int | None, reused: int | None, **more: Any) -> BatchPreview:
    known = {"shards": 1, "looked_at": 1, "images": images, "reused": reused, "like": "j0", "seconds": 9}
    return BatchPreview.model_validate(known | more)


UNREAD = [UnreadShard(shard="a", reason="no 'nsfw' yet")]


@pytest.mark.parametrize(
    ("found", "where", "told", "untold"),
    [
        (preview(0, 0), "words < 1", "no row passes the filter", "time"),
        (preview(0, 0), None, "there is nothing to compute", "time"),
        (preview(0, 0, unread=UNREAD), "nsfw > 0.5", "no 'nsfw' yet\nno shard could be read", "time"),
        (preview(8, 8, failed=0), None, "8 with results\nnothing is left to compute", "failed"),
        (preview(8, 8, failed=3), None, "8 with results, 3 of which failed\nnothing is left", "-n"),
        (preview(61, 40), None, "`-n 21` tries all of these images", "nothing"),
        (preview(61, 40, like=None), None, "`-n 21` tries all images", "nothing"),
        (preview(300, 40), None, "`-n 200` tries 200 of these images", "all"),
        (preview(300, 40, like=None), None, "`-n 200` tries 200 images", "all"),
        (preview(61, None, seconds=None), None, "which are copied, is not known\ntime: not known", "all"),
        (preview(None, None, seconds=None), None, "images: not known\ntime: not known", "copied"),
    ],
)
def test_what_is_left_is_told(found: BatchPreview, where: str | None, told: str, untold: str) -> None:
    text = render.preview_lines(found, where).plain
    assert told in text and untold not in text, text


def test_a_submission_of_which_nothing_can_be_read_has_an_exit_code(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(service, "preview", lambda *_, **__: preview(0, 0, unread=UNREAD))
    nothing = FOUND.model_copy(update={"images": 0, "to_compute": 0, "unread": 332, "notes": ["no 'nsfw' yet"]})
    monkeypatch.setattr(service, "estimate", lambda _: nothing)
    for more in ([], ["-n", "4"]):
        assert run("/a.tar", "--dry-run", *more) == exits.JOB_FAILED
        out = capsys.readouterr().out
        assert "no 'nsfw' yet" in out and "time" not in out and "random" not in out


def test_a_sample_is_followed_and_its_figures_told(service: Service, capsys: Any) -> None:
    assert run("/a.tar", "--dry-run", "-n", "200", "--seed", "7") == 0
    assert service.asked[0][:3] == (["/a.tar"], 200, 7)
    out, err = capsys.readouterr()
    for words in ("3,319,750 images in 332 shards, 1 of which cannot be read", "to be described: 3,300,000", "61.0 h",
                  "55.6 h", "63.9 h", "GPU hours", "2,350,000,000", "0.0123", "5.50 GiB", "15.2", "NVIDIA H200",
                  "its models load in 41.0 s", "16,500", "4,520", "captioner: empty answer", "2 vision, 0 llm",
                  "note: the budget is spent early", "by 200 random images (seed 7) of job j1"):  # fmt: skip
        assert words in out, words
    assert "CPU" not in out and "tokens written" not in out  # what is not known is not there
    assert "job j1 describes a random sample" in err and "shards are indexed" in err and "images are described" in err
    assert run("/a.tar", "--dry-run", "-n", "200", "--json") == 0
    assert Estimate.model_validate_json(capsys.readouterr().out) == FOUND


def test_ctrl_c_cancels_the_sample_and_says_so(service: Service, capsys: Any) -> None:
    service.interrupted = True
    assert run("/a.tar", "--dry-run", "-n", "200") == 130
    assert service.cancelled
    assert "cancelled after 57 of" in capsys.readouterr().err


def test_a_sample_that_failed_has_an_exit_code(service: Service) -> None:
    service.status = JobStatus.FAILED
    assert run("/a.tar", "--dry-run", "-n", "9") == exits.JOB_FAILED


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-n", "5"], "belong to --dry-run"),
        (["--seed", "5"], "belong to --dry-run"),
        (["--dry-run", "--seed", "5"], "--seed is of the images that -n takes"),
        (["--dry-run", "-n", "0"], "1 to 10,000 images"),
        (["--dry-run", "-n", "10001"], "1 to 10,000 images"),
        (["--dry-run", "--upload"], "strata run --dry-run"),
        (["--dry-run", "--idempotency-key", "a"], "--idempotency-key has no use"),
    ],
)
def test_options_that_do_not_belong_together_are_told(
    service: Service, capsys: Any, options: list[str], told: str
) -> None:
    assert run("/a.tar", *options) == exits.USAGE
    assert told in capsys.readouterr().err and not service.asked


def test_chosen_rows_are_tried(service: Service, capsys: Any) -> None:
    chosen = ("--from", "job", "--from", "some", "--where", "match < 0.5", "--dry-run")
    assert run(*chosen) == 0 and run(*chosen, "-n", "20") == 0
    for shards, *_, options in service.asked:
        assert shards == [] and options["from_"] == ["job", "some"] and options["where"] == "match < 0.5"
    assert "job j1 describes a random sample of the chosen rows" in capsys.readouterr().err
    assert run("/a.tar", *chosen) == exits.USAGE and len(service.asked) == 2


@pytest.mark.parametrize(
    ("value", "number", "span", "size"),
    [
        (0, "0", "0 s", "0 bytes"),
        (0.01234, "0.0123", "0.0123 s", "0 bytes"),
        (99.96, "100", "100 s", "100 bytes"),
        (1234.5, "1,230", "20.6 min", "1.21 KiB"),
        (123_456_789, "123,000,000", "1,430 days", "118 MiB"),
    ],
)
def test_three_digits_are_told(value: float, number: str, span: str, size: str) -> None:
    assert (render.number(value), render.span(value), render.size(value)) == (number, span, size)
