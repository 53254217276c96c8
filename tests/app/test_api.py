"""The API's calls, one after the other, over fake pipelines and everything else real."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import httpx
import httpx_sse
import pytest

from app.images import originals
from app.images.originals import Originals
from app.jobs.prefer import wait_of
from strata.core.records import Record
from strata.core.schemas import JobPage, JobStatus, JobView
from strata.jobs import results
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.service import Answer, Service, problem


def lines(answer: Answer) -> list[dict[str, object]]:
    """The rows of a JSON Lines answer."""
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_one_image_with_and_without_waiting(service: Service) -> None:
    data = jpeg()
    answer = service.caption(data, alt_text="red")
    assert answer.status_code == 200, answer.text
    record = Record.model_validate_json(answer.content)
    assert record.key == hashlib.sha256(data).hexdigest()[:16]
    assert record.alt_text == "red" and record.caption is not None and record.description is not None
    assert answer.headers["Preference-Applied"] == "wait=120"
    job = answer.headers["Location"]
    assert answer.headers["Content-Location"] == f"/v1/records/{job.rpartition('/')[2]}/{record.key}"
    place = answer.headers["Content-Location"]
    assert Record.model_validate_json(service.client.get(place).content) == record
    image = service.client.get(f"{place}/image")
    assert image.content == data and image.headers["content-type"] == "image/jpeg"
    overlay = service.client.get(f"{place}/overlay.png")
    assert overlay.headers["content-type"] == "image/png" and overlay.content.startswith(b"\x89PNG")
    later = service.caption(jpeg(40), wait=None)
    assert later.status_code == 202
    assert JobView.model_validate_json(later.content).links["self"] == later.headers["Location"]
    wait_for_end(service.jobs, later.json()["id"])


def test_an_equal_image_is_not_computed_again(service: Service) -> None:
    assert service.machine is not None
    first = service.caption(jpeg()).json()
    again = service.caption(jpeg(), wait=0)
    assert again.status_code == 200 and again.json() == first
    assert service.machine.vision.images == service.machine.llm.images == 1
    other = service.caption(jpeg(), alt_text="other").json()
    assert other["alt_text"] == "other"
    job = again.headers["Location"].rpartition("/")[2]
    wait_for_end(service.jobs, job)
    view = service.jobs.view(job)
    assert view.status is JobStatus.COMPLETED and view.groups["llm"].reused == view.request_counts.succeeded == 1


def test_a_job_of_one_image_survives_an_emptied_redis(service: Service) -> None:
    done = service.caption(jpeg()).headers["Location"]
    wait_for_end(service.jobs, done.rpartition("/")[2])
    raw_redis(service.jobs.queue).flushall()
    assert len(lines(service.client.get(f"{done}/results"))) == 1
    waiting = service.caption(jpeg(40), wait=None).json()["id"]
    raw_redis(service.jobs.queue).flushall()
    service.jobs.activate(service.jobs.request(waiting))
    wait_for_end(service.jobs, waiting)
    assert service.jobs.view(waiting).request_counts.succeeded == 1


def test_a_batch_its_results_and_its_pages(service: Service) -> None:
    shards = Path(service.settings.shard_roots[0])
    for name in ("00000", "00001"):
        write_shard(shards / f"{name}.tar", [jpeg(width) for width in range(20, 30)], first=int(name) * 100)
    answer = service.submit(f"{shards}/{{00000..00001}}.tar", metadata={"who": "me"})
    assert answer.status_code == 202
    job = JobView.model_validate_json(answer.content)
    path = f"/v1/jobs/{job.id}"
    assert answer.headers["Location"] == path and job.metadata == {"who": "me"}
    wait_for_end(service.jobs, job.id)
    view = JobView.model_validate_json(service.client.get(path).content)
    assert view.status is JobStatus.COMPLETED and view.request_counts.succeeded == 20
    everything = [row["key"] for row in lines(service.client.get(f"{path}/results"))]
    assert everything == [f"{i:09d}" for i in (*range(10), *range(100, 110))]
    keys, page = [], f"{path}/results?limit=3"
    while page:
        answer = service.client.get(page)
        keys += [row["key"] for row in lines(answer)]
        page = answer.links.get("next", {}).get("url", "")
    assert keys == everything
    assert lines(service.client.get(f"{path}/failures")) == []
    assert service.client.get(f"/v1/records/{job.id}/000000105").json()["alt_text"] == "alt 105"
    assert service.client.get(f"/v1/records/{job.id}/000000105/image").content == jpeg(25)


def test_results_can_be_followed_while_a_job_runs(service: Service) -> None:
    assert service.machine is not None
    service.machine.vision.seconds = 0.02
    shards = Path(service.settings.shard_roots[0])
    write_shard(shards / "a.tar", [jpeg(width) for width in range(20, 50)])
    job = service.submit(f"{shards}/a.tar").json()["id"]
    keys: list[object] = []
    page, pages = f"/v1/jobs/{job}/results?limit=7", 0
    while page and pages < 100_000:
        answer = service.client.get(page)
        keys += [row["key"] for row in lines(answer)]
        page, pages = answer.links.get("next", {}).get("url", ""), pages + 1
    assert keys == [f"{i:09d}" for i in range(30)]


def test_jobs_are_listed_newest_first(service: Service) -> None:
    ids = [service.caption(jpeg(20 + i), wait=None).json()["id"] for i in range(5)]
    first = service.client.get("/v1/jobs?limit=3")
    page = JobPage.model_validate_json(first.content)
    assert [job.id for job in page.jobs] == ids[:1:-1]
    second = JobPage.model_validate_json(service.client.get(first.links["next"]["url"]).content)
    assert [job.id for job in second.jobs] == ids[1::-1] and second.next is None


def events_of(answer: Answer) -> list[httpx_sse.ServerSentEvent]:
    """The events of a response. httpx-sse takes a response of httpx; the test client's may be of another package."""
    response = httpx.Response(200, headers={"content-type": answer.headers["content-type"]}, content=answer.content)
    return list(httpx_sse.EventSource(response).iter_sse())


def test_events_tell_of_a_job_to_its_end_and_resume(service: Service) -> None:
    shards = Path(service.settings.shard_roots[0])
    write_shard(shards / "a.tar", [jpeg(width) for width in range(20, 30)])
    job = service.submit(f"{shards}/a.tar").json()["id"]
    answer = service.client.get(f"/v1/jobs/{job}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer)
    assert events[0].event == "job" and JobView.model_validate_json(events[0].data).id == job
    assert all(event.id for event in events)
    last = JobView.model_validate_json(events[-1].data)
    assert last.status is JobStatus.COMPLETED and last.request_counts.succeeded == 10
    for given in (events[0].id, "nonsense", "99999999999999999999999-0"):
        resumed = service.client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(given)})
        (event,) = events_of(resumed)
        assert event.event == "job" and JobView.model_validate_json(event.data).status.final


def test_a_cancelled_job_ends(service: Service) -> None:
    assert service.machine is not None
    service.machine.vision.seconds = 0.2
    shards = Path(service.settings.shard_roots[0])
    write_shard(shards / "a.tar", [jpeg(width) for width in range(20, 50)])
    job = service.submit(f"{shards}/a.tar").json()["id"]
    assert service.client.post(f"/v1/jobs/{job}/cancel").json()["status"] in ("cancelling", "finalizing", "cancelled")
    wait_for_end(service.jobs, job)
    assert service.client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
    assert service.client.get(f"/v1/jobs/{job}/results").links == {}
    service.machine.vision.seconds = 0.0


def test_a_job_is_tried_again_once_it_has_ended(service: Service) -> None:
    assert service.machine is not None
    shards = Path(service.settings.shard_roots[0])
    write_shard(shards / "a.tar", [jpeg(), b"no image"])
    service.machine.vision.seconds = 0.3
    job = service.submit(f"{shards}/a.tar").json()["id"]
    problem(service.client.post(f"/v1/jobs/{job}/retry"), 409, "job-not-finished")
    wait_for_end(service.jobs, job)
    answer = service.client.post(f"/v1/jobs/{job}/retry").json()
    assert answer["status"] == "validating" and answer["links"]["retry"] == f"/v1/jobs/{job}/retry"
    wait_for_end(service.jobs, job)
    assert service.client.get(f"/v1/jobs/{job}").json()["request_counts"]["failed"] == 1
    problem(service.client.post("/v1/jobs/nojob/retry"), 404, "unknown-job")
    write_shard(shards / "b.tar", [jpeg()])
    whole = service.submit(f"{shards}/b.tar").json()["id"]
    wait_for_end(service.jobs, whole)
    assert service.client.post(f"/v1/jobs/{whole}/retry").json()["status"] == "completed"  # nothing failed
    service.machine.vision.seconds = 0.0


def test_wait_is_read_as_the_rfc_says() -> None:
    assert wait_of(["wait=5"]) == 5
    assert wait_of(['respond-async, WAIT="10"; x=y']) == 10
    assert wait_of(["respond-async", "wait=9999"]) == 120
    assert wait_of(["wait=-1"]) == 0
    for ignored in ([], ["wait"], ["wait=soon"], ["wait=nan"], ["return=minimal"]):
        assert wait_of(ignored) is None


def test_a_truncated_shard_and_members_that_are_no_images(service: Service) -> None:
    shards = Path(service.settings.shard_roots[0])
    write_shard(shards / "a.tar", [jpeg(), b"no image", jpeg()[:300], b"", jpeg()])
    whole = Path(write_shard(shards / "b.tar", [jpeg(width) for width in range(20, 30)])).read_bytes()
    (shards / "b.tar").write_bytes(whole[: len(whole) // 2])
    (shards / "c.tar").write_bytes(b"no tar at all" * 99)
    answer = service.submit(f"{shards}/{{a,b,c}}.tar")
    assert answer.status_code == 202
    job = answer.json()["id"]
    wait_for_end(service.jobs, job)
    view = service.client.get(f"/v1/jobs/{job}").json()
    counts = view["request_counts"]
    assert view["status"] == JobStatus.COMPLETED
    assert counts["total"] == counts["succeeded"] + counts["failed"] and counts["failed"] >= 3
    rows = [json.loads(line) for line in service.client.get(f"/v1/jobs/{job}/failures").text.splitlines()]
    assert [row["key"] for row in rows[:3]] == [f"{i:09d}" for i in (1, 2, 3)]
    assert [row["shard"] for row in rows if row["key"] is None] == [f"{shards}/b.tar", f"{shards}/c.tar"]
    assert all(row["failure"]["stage"] and row["failure"]["detail"] for row in rows)
    ends = [service.client.get(f"/v1/records/{job}/000000001{end}") for end in ("", "/image", "/overlay.png")]
    assert ends[0].json()["status"] == "failed"
    problem(ends[1], 404, "image-unavailable")
    problem(ends[2], 422, "invalid-image")


def test_a_page_of_results_ends_by_its_size(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Path(service.settings.shard_roots[0]) / "a.tar"
    write_shard(shard, [jpeg(width) for width in range(20, 40)])
    job = service.submit(str(shard)).json()["id"]
    wait_for_end(service.jobs, job)
    whole = service.client.get(f"/v1/jobs/{job}/results").text
    monkeypatch.setattr(results, "PAGE_SIZE", len(whole) // 4)
    pages, address = [], f"/v1/jobs/{job}/results"
    while address:
        page = service.client.get(address)
        pages.append(page.text)
        address = page.links.get("next", {}).get("url", "")
    assert "".join(pages) == whole and len(pages) >= 4


def test_an_image_with_very_many_bytes_is_not_shown(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = Path(service.settings.shard_roots[0])
    write_shard(shards / "a.tar", [jpeg()])
    job = service.submit(f"{shards}/a.tar").json()["id"]
    wait_for_end(service.jobs, job)
    key = lines(service.client.get(f"/v1/jobs/{job}/results"))[0]["key"]
    monkeypatch.setattr(originals, "SHOWN_IMAGE_BYTES", 100)
    state = service.client.app.state  # type: ignore[attr-defined]
    small = Originals(state.services.store, state.services.images, body_bytes=100)
    monkeypatch.setattr(state, "services", replace(state.services, originals=small))
    for path in ("image", "overlay.png"):
        told = problem(service.client.get(f"/v1/records/{job}/{key}/{path}"), 404, "image-unavailable")
        assert "at most 100" in told["detail"]
