"""`POST /v1/batches` with sources: rows of other jobs once more; what is refused, and what a preview tells of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app import batch_preview, chosen_rows
from strata.core import BatchInput, BatchPreview, Estimate, JobStatus, Record
from strata.queue import Queue
from strata.snapshots import Selection, Snapshots
from strata.store import PartsOf
from tests.fakes import FAKE_PROFILE, jpeg, wait_for_end, write_shard
from tests.service import Answer, Service, problem, running_service

WHERE = "matches(description, 'by 1[0-2]$')"


def submit(service: Service, path: str = "/v1/batches", **asked: Any) -> Answer:
    return service.client.post(path, json={"input": asked})


def describe(service: Service) -> str:
    """The id of a job of two shards of six images."""
    folder = Path(service.settings.shard_roots[0])
    for name in "ab":
        write_shard(folder / f"{name}.tar", [jpeg(20 + ord(name), 10 + number) for number in range(6)])
    job: str = service.submit(f"{folder}/*.tar").json()["id"]
    wait_for_end(service.jobs, job)
    return job


@pytest.fixture
def described(service: Service) -> str:
    """The id of a job of the service."""
    return describe(service)


@pytest.fixture
def later(queue: Queue, tmp_path: Path) -> Iterator[tuple[Service, str]]:
    """A service whose profile has changed since a job was described, and the id of that job."""
    stages = {name: stage.model_copy(update={"revision": "2"}) for name, stage in FAKE_PROFILE.stages.items()}
    with running_service(queue, tmp_path) as service:
        job = describe(service)
    changed = FAKE_PROFILE.model_copy(update={"stages": stages})
    with running_service(queue, tmp_path, profile=changed) as service:
        yield service, job


def test_rows_of_a_job_and_of_a_snapshot(service: Service, described: str) -> None:
    preview = submit(service, "/v1/batches/preview", sources=[described], where=WHERE).json()
    assert (preview["shards"], preview["looked_at"], preview["images"], preview["failed"]) == (2, 2, 6, 0)
    assert preview["reused"] == 6  # the whole shards have results of this profile, which are copied
    assert (
        all("#" not in shard for shard in preview["first"]) and len(service.client.get("/v1/jobs").json()["jobs"]) == 1
    )
    answer = submit(service, sources=[described], where=WHERE)
    assert answer.status_code == 202 and answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
    job = answer.json()
    assert job["chosen"] == {"sources": [described], "where": WHERE}
    wait_for_end(service.jobs, job["id"])
    lines = service.client.get(f"/v1/jobs/{job['id']}/results").text.splitlines()
    assert len(lines) == 6
    record = service.client.get(f"/v1/records/{job['id']}/000000001").json()
    assert record["key"] == "000000001"
    assert service.client.get(f"/v1/records/{job['id']}/000000001/image").status_code == 200
    assert submit(service, "/v1/batches/preview", sources=[described], where=WHERE).json()["reused"] == 6
    snapshots = Snapshots(service.jobs.store)
    snapshots.create("some", PartsOf(service.jobs.store).sources([described]), Selection(count=5), [described])
    assert submit(service, "/v1/batches/preview", sources=["some"]).json()["images"] == 5


def sampled(service: Service, images: int, variants: list[str] | None = None, **asked: Any) -> Estimate:
    """The estimate by a sample of chosen rows, when it has ended."""
    body = {"input": asked, "images": images, "seed": 3, "variants": variants}
    answer = service.client.post("/v1/batches/estimate", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["chosen"]["sources"] == asked["sources"] and job["sample"]["images"] == images
    wait_for_end(service.jobs, job["id"])
    assert service.jobs.view(job["id"]).status is JobStatus.COMPLETED
    return Estimate.model_validate_json(service.client.get(f"/v1/jobs/{job['id']}/estimate").content)


def test_a_sample_is_one_of_the_chosen_rows(later: tuple[Service, str]) -> None:
    service, job = later
    found = sampled(service, 4, sources=[job], where=WHERE)
    assert (found.shards, found.images, found.to_compute, found.sampled, found.described) == (2, 6, 6, 4, 4)
    for group in found.groups.values():
        assert group.images.value == 6 and group.measured >= 2 and group.device
    lines = service.client.get(f"/v1/jobs/{found.job}/results").text.splitlines()
    rows = [Record.model_validate_json(line) for line in lines]
    assert len({(row.image.uri, row.image.offset) for row in rows}) == 4
    for row in rows:
        # each is read from its own tar, which is looked at whether it is the one that was described
        assert row.caption and row.caption.text == f"{row.width} by {row.height}" and row.height in range(10, 13)
        assert service.client.get(f"/v1/records/{found.job}/{row.key}/preview.jpg").status_code == 200
    # the same seed takes the same rows, and computes nothing
    again = sampled(service, 4, sources=[job], where=WHERE)
    assert service.jobs.view(again.job).groups["vision"].reused == 4
    # of all that were chosen nothing is uncertain but the times
    whole = sampled(service, 200, sources=[job], where=WHERE)
    assert whole.sampled == 6 and whole.succeeded and (whole.succeeded.low, whole.succeeded.high) == (6, 6)
    # its lists have images of both tars, of which a further job and a further sample choose
    second = submit(service, sources=[whole.job], where="key < '000000002'").json()["id"]
    wait_for_end(service.jobs, second)
    assert service.jobs.view(second).request_counts.succeeded == 4
    third = sampled(service, 3, ["tags"], sources=[whole.job])
    assert (third.images, third.described, third.reasons) == (6, 3, [])
    # the whole job describes them, and then nothing is left
    wait_for_end(service.jobs, submit(service, sources=[job], where=WHERE).json()["id"])
    done = sampled(service, 4, sources=[job], where=WHERE)
    assert (done.images, done.to_compute, done.sampled) == (6, 0, 0)


def test_a_sample_of_rows_that_need_no_work(service: Service, described: str) -> None:
    none = sampled(service, 4, sources=[described], where="words > 999")
    assert (none.images, none.sampled, none.notes) == (0, 0, ["no row passes the filter"])
    # the whole shards have results of this profile, which are copied
    found = sampled(service, 4, sources=[described], where=WHERE)
    assert (found.images, found.to_compute, found.sampled) == (6, 0, 0)
    assert found.notes == ["nothing is left to compute: all images have results"]


def test_a_sample_of_a_tar_that_has_changed(later: tuple[Service, str]) -> None:
    service, job = later
    for tar in Path(service.settings.shard_roots[0]).iterdir():
        tar.write_bytes(tar.read_bytes() + b"\0" * 512)
    found = sampled(service, 20, sources=[job])
    assert found.failed and found.failed.value == 12 and {one.error_type for one in found.reasons} == {"ShardChanged"}
    # a whole job fails them too; their rows are not computed again for the same choice, and not copied for another one
    wait_for_end(service.jobs, submit(service, sources=[job]).json()["id"])
    assert previewed(service, sources=[job]) == (12, 12, 12)
    assert previewed(service, sources=[job], where=WHERE) == (6, 0, 0)


def previewed(service: Service, **asked: Any) -> tuple[int | None, int | None, int | None]:
    """The images of a preview, those that have results, and those of them that failed."""
    found = BatchPreview.model_validate_json(submit(service, "/v1/batches/preview", **asked).content)
    return found.images, found.reused, found.failed


def test_rows_of_other_choices_are_not_to_be_computed(
    later: tuple[Service, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, job = later
    more = WHERE.replace("2", "4")
    assert previewed(service, sources=[job], where=WHERE) == (6, 0, 0)
    wait_for_end(service.jobs, submit(service, sources=[job], where=WHERE).json()["id"])
    assert previewed(service, sources=[job], where=more) == (10, 6, 0)
    # only the others are drawn
    found = sampled(service, 20, sources=[job], where=more)
    assert (found.images, found.to_compute, found.sampled, found.described) == (10, 4, 4, 4)
    assert [(group.images.value, group.measured) for group in found.groups.values()] == [(4, 4), (4, 4)]
    # that is what the job does
    whole = submit(service, sources=[job], where=more).json()["id"]
    wait_for_end(service.jobs, whole)
    view = service.jobs.view(whole)
    assert (view.computed, view.request_counts.succeeded) == (4, 10)
    # of a longer shard no row is copied, but chunks of the same choice have their parts
    monkeypatch.setattr(chosen_rows, "MOST_COMPARED", 5)
    assert previewed(service, sources=[job], where=more) == (10, 10, 0)
    assert previewed(service, sources=[job]) == (12, 0, 0)
    monkeypatch.setattr(chosen_rows, "copied_rows", over)
    monkeypatch.setattr(chosen_rows, "MOST_COMPARED", 6)
    assert previewed(service, sources=[job]) == (12, None, 0)


def over(*_: object) -> NoReturn:
    raise batch_preview.TimeOver("the time of the preview is over")


def test_what_is_refused(service: Service, described: str) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"sources": ["0" * 22]}, "no such job, snapshot"),
        ({"sources": [described], "where": "wrods < 1"}, "there is no feature 'wrods'"),
        ({"sources": [described], "where": "status = 'failed'"}, "=="),
        ({"sources": []}, "sources"),
        ({"sources": [""]}, "sources"),
        ({"sources": [described], "shards": ["/a.tar"]}, "exactly one"),
        ({"shards": ["/a.tar"], "where": "words < 1"}, "where chooses rows of sources"),
        ({"where": "words < 1"}, "exactly one"),
    ]
    for path in ("/v1/batches", "/v1/batches/preview", "/v1/batches/estimate"):
        for asked, told in refused:
            body = problem(submit(service, path, **asked), 422, "invalid-request")
            assert told in str(body), body
            assert body["errors"][0]["location"][:2] == ["body", "input"]
    assert len(service.client.get("/v1/jobs").json()["jobs"]) == 1


def test_a_preview_ends_in_time_and_names_what_cannot_be_counted(
    service: Service, described: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preview = submit(service, "/v1/batches/preview", sources=[described], where="sharpness < 3").json()
    assert preview["images"] == 0 and len(preview["unread"]) == 2 and "sharpness" in preview["unread"][0]["reason"]
    monkeypatch.setattr(batch_preview, "SECONDS", 0.0)
    preview = submit(service, "/v1/batches/preview", sources=[described]).json()
    assert (preview["shards"], preview["looked_at"], preview["images"]) == (2, 0, None)


def test_a_filter_that_cannot_be_computed_fails_the_job_with_its_reason(service: Service, described: str) -> None:
    job = submit(service, sources=[described], where="sharpness < 3").json()["id"]
    wait_for_end(service.jobs, job)
    view = service.client.get(f"/v1/jobs/{job}").json()
    assert view["status"] == "failed" and "no shard could be read" in view["error"] and "sharpness" in view["error"]
    assert "#chosen" not in view["error"]
    # a sample tells the same
    found = sampled(service, 4, sources=[described], where="sharpness < 3")
    assert (found.images, found.unread) == (0, 2) and found.notes[1] == "no shard could be read"
    assert "sharpness" in found.notes[0] and "#chosen" not in found.notes[0]


NAMES = st.none() | st.lists(st.text(max_size=3), max_size=2)


@given(NAMES, NAMES, NAMES, st.none() | st.text(max_size=5))
@settings(max_examples=100)
def test_an_input_is_one_of_three(
    shards: list[str] | None, uploads: list[str] | None, sources: list[str] | None, where: str | None
) -> None:
    uploads = uploads and [f"{'0' * 64} {name}" for name in uploads]
    try:
        made = BatchInput.model_validate({"shards": shards, "uploads": uploads, "sources": sources, "where": where})
    except ValidationError:
        kinds = [kind for kind in (shards, uploads, sources) if kind is not None]
        bad = len(kinds) != 1 or not kinds[0] or (where is not None and (sources is None or not where))
        surrogates = any("\ud800" <= one <= "\udfff" for kind in kinds for text in kind for one in text)
        assert bad or surrogates or "" in (sources or ())
    else:
        assert sum(kind is not None for kind in (made.shards, made.uploads, made.sources)) == 1
        assert made.where is None or made.sources
