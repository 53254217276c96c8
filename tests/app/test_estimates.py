"""`POST /v1/batches/estimate`: a job that describes a sample, and what all images would take by it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from strata.core import Estimate, JobStatus, JobView, Record
from strata.jobs.sampling import draw, draws
from strata.jobs.sampling.population import Drawn
from strata.queue.queue import Queue
from strata.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.service import Service, problem, running_service

NOTHING = "nothing is left to compute: all images have results"


def _shards(service: Service, *sizes: int, broken: int = 0) -> str:
    """Shards with so many images, of which the first `broken` of the first shard are none; the range that they are."""
    folder = Path(service.settings.shard_roots[0])
    for number, size in enumerate(sizes):
        images = [jpeg(20 + number, 20 + index) for index in range(size)]
        if not number:
            images[:broken] = [b"none"] * broken
        write_shard(folder / f"{number}.tar", images, first=100 * number)
    return f"{folder}/{{0..{len(sizes) - 1}}}.tar"


def _submit(service: Service, shards: str, **more: object) -> JobView:
    answer = service.client.post("/v1/batches/estimate", json={"input": {"shards": [shards]}, **more})
    assert answer.status_code == 202, answer.text
    view = JobView.model_validate_json(answer.content)
    assert answer.headers["location"] == f"/v1/jobs/{view.id}" and view.links["estimate"].endswith("/estimate")
    return view


def _estimate(service: Service, job: str) -> Estimate:
    answer = service.client.get(f"/v1/jobs/{job}/estimate")
    assert answer.status_code == 200, answer.text
    return Estimate.model_validate_json(answer.content)


def _ended(service: Service, shards: str, **more: object) -> Estimate:
    view = _submit(service, shards, **more)
    wait_for_end(service.jobs, view.id)
    return _estimate(service, view.id)


def test_a_sample_tells_what_all_would_take(service: Service) -> None:
    assert service.machine
    service.machine.leases.announce_ready()
    shards = _shards(service, 40, 25, 3, broken=4)
    found = _ended(service, shards, images=30, seed=4, priority="hi")
    view = service.jobs.view(found.job)
    assert view.status is JobStatus.COMPLETED and view.priority == "lo" and view.error is None
    assert view.sample is not None and (view.sample.images, view.sample.drawn) == (30, True)
    assert view.request_counts.total == 30 and view.shards.total == 15
    assert (found.status, found.sampled, found.described, found.seed) == ("completed", 30, 30, 4)
    assert (found.shards, found.unread, found.images, found.to_compute) == (3, 0, 68, 68)
    # the time of each group by its micro-batches, without the first one, and all together with one worker of each
    for group in found.groups.values():
        assert group.images.value == 68 and group.workers == 1 and group.measured == 28 and group.device
        assert group.images_per_second and group.images_per_second.low and group.images_per_second.high
        assert group.loading_seconds is not None and group.money is None
    assert (found.seconds and found.seconds.low and found.seconds.high and found.cpu_hours) or found.gpu_hours
    # four images fail: in the sample as many as were drawn, and the truth is inside
    failed = view.request_counts.failed
    assert found.failed and found.failed.value == pytest.approx(68 * failed / 30)
    assert found.failed.low is not None and found.failed.high is not None and found.failed.low <= 4 <= found.failed.high
    assert sum(one.images.value for one in found.reasons) == pytest.approx(found.failed.value)
    assert found.store_bytes and found.store_bytes.value > 0
    assert found.money is None and found.prompt_tokens is None


def test_the_rows_of_a_sample_are_looked_at_like_others(service: Service) -> None:
    job = _ended(service, _shards(service, 12, 9), images=8).job
    rows = [
        Record.model_validate_json(line) for line in service.client.get(f"/v1/jobs/{job}/results").text.splitlines()
    ]
    assert len(rows) == 8 and all(row.caption for row in rows)
    # each is described from its own bytes in its own tar, which its picture is read from too
    for row in rows:
        assert row.caption and row.caption.text == f"{row.width} by {row.height}"
        picture = service.client.get(f"/v1/records/{job}/{row.key}/preview.jpg")
        assert picture.status_code == 200, picture.text
    # in a tar that has changed, another image lies there
    for tar in Path(service.settings.shard_roots[0]).iterdir():
        tar.write_bytes(tar.read_bytes() + b"\0" * 512)
    problem(service.client.get(f"/v1/records/{job}/{rows[0].key}/preview.jpg"), 404, "image-unavailable")


def test_the_same_seed_costs_nothing_twice_and_the_whole_is_computed_anew(service: Service) -> None:
    shards = _shards(service, 20, 20)
    first, again = (_ended(service, shards, images=10, seed=1) for _ in range(2))
    view = service.jobs.view(again.job)
    assert view.groups["llm"].reused == view.groups["vision"].reused == 10
    assert again.groups["llm"].measured == first.groups["llm"].measured > 0
    # the whole job needs the index alone of it, and after it nothing is left
    job = service.submit(shards).json()["id"]
    wait_for_end(service.jobs, job)
    assert service.jobs.view(job).groups["vision"].reused == 0
    found = _ended(service, shards, images=10)
    assert (found.images, found.to_compute, found.sampled, found.notes) == (40, 0, 0, [NOTHING])
    assert found.seconds is None and service.jobs.view(found.job).status is JobStatus.COMPLETED
    # neither its rows nor its rate are taken for those of a whole job
    preview = service.client.post("/v1/batches/preview", json={"input": {"shards": [shards]}}).json()
    assert preview["like"] == job and preview["reused"] == 40


def test_of_a_folder_rows_that_are_copied_are_not_counted_as_work(service: Service) -> None:
    folder = Path(service.settings.shard_roots[0]) / "photos"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.jpg").write_bytes(jpeg(20 + number, 30) + bytes(number))
    wait_for_end(service.jobs, service.submit(str(folder)).json()["id"])
    for number in range(20, 40):
        (folder / f"{number}.jpg").write_bytes(jpeg(20 + number, 30) + bytes(number))
    found = _ended(service, str(folder), images=40)
    vision = found.groups["vision"].images
    assert found.to_compute == 40 and (vision.value, vision.low, vision.high) == (20, 20, 20)


def test_figures_come_while_the_sample_is_described(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        view = _submit(service, _shards(service, 30, 30), images=12)
        found = _estimate(service, view.id)
        assert (found.status, found.sampled, found.described, found.images) == ("validating", 12, 0, None)
        with FakeMachine(service.jobs, vision=False):
            wait_for(lambda: _estimate(service, view.id).images)
            found = _estimate(service, view.id)
            assert (found.images, found.sampled, found.described, found.seconds) == (60, 12, 0, None)
            # nothing is told of what is not known
            assert found.failed is None and found.groups["vision"].images_per_second is None
            backlog = service.client.get("/v1/backlog").json()["groups"]["vision"]
            assert backlog["images"] == 12
        with FakeMachine(service.jobs, name="second"):
            wait_for_end(service.jobs, view.id)
        assert _estimate(service, view.id).described == 12


def test_a_sample_is_cancelled_before_and_after_it_is_drawn(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        shards = _shards(service, 20)
        with FakeMachine(service.jobs):
            whole = service.submit(shards).json()["id"]
            wait_for_end(service.jobs, whole)
        view = _submit(service, shards, images=5)
        assert service.client.post(f"/v1/jobs/{view.id}/cancel").status_code == 200
        with FakeMachine(service.jobs, name="second"):
            wait_for_end(service.jobs, view.id)
        ended = service.jobs.view(view.id)
        # the results of other jobs are not those of a sample that was never drawn
        assert ended.status is JobStatus.CANCELLED and ended.request_counts.total == 0
        assert service.client.get(f"/v1/jobs/{view.id}/results").text == ""
        assert _estimate(service, view.id).images is None
        write_shard(Path(service.settings.shard_roots[0]) / "new.tar", [jpeg(30, 40 + i) for i in range(9)])
        with FakeMachine(service.jobs, name="third", vision=False):
            view = _submit(service, f"{service.settings.shard_roots[0]}/new.tar", images=5)
            wait_for(lambda: service.jobs.view(view.id).status is JobStatus.IN_PROGRESS)
            service.client.post(f"/v1/jobs/{view.id}/cancel")
            wait_for_end(service.jobs, view.id)
        counts = service.jobs.view(view.id).request_counts
        assert (counts.total, counts.cancelled) == (5, 5)


def test_a_sample_that_is_deleted_while_it_is_drawn_does_not_come_back(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow(*given: Any) -> Drawn:
        begun.set()
        go_on.wait(60)
        try:
            return draw(*given)
        finally:
            done.set()

    monkeypatch.setattr(draws, "draw", slow)
    with running_service(queue, tmp_path, workers=False) as service, FakeMachine(service.jobs):
        # a job of the same shards, whose index stays when the sample is deleted
        shards = _shards(service, 20)
        whole = service.submit(shards).json()["id"]
        wait_for_end(service.jobs, whole)
        view = _submit(service, shards, images=5)
        assert begun.wait(60)
        service.client.post(f"/v1/jobs/{view.id}/cancel")
        wait_for_end(service.jobs, view.id)
        assert service.client.delete(f"/v1/jobs/{view.id}").status_code == 204
        go_on.set()
        assert done.wait(60)
        problem(service.client.get(f"/v1/jobs/{view.id}"), 404, "unknown-job")
        assert list(service.jobs.store.job_ids()) == [whole]


@pytest.mark.parametrize("drawn", [False, True])
def test_a_sample_goes_on_when_redis_is_emptied(queue: Queue, tmp_path: Path, drawn: bool) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        view = _submit(service, _shards(service, 20, 7), images=9, seed=2)
        if drawn:
            with FakeMachine(service.jobs, vision=False):
                wait_for(lambda: service.jobs.view(view.id).status is JobStatus.IN_PROGRESS)
        raw_redis(queue).flushall()
        with FakeMachine(service.jobs, name="second"):
            assert service.jobs.view(view.id).sample is not None  # restores it
            wait_for_end(service.jobs, view.id)
        found = _estimate(service, view.id)
        assert (found.images, found.sampled, found.described) == (27, 9, 9)


def test_samples_are_no_rows_of_a_data_set(service: Service) -> None:
    from strata.store.parts import PartsOf

    shards = _shards(service, 10)
    _ended(service, shards, images=4)
    wait_for_end(service.jobs, service.submit(shards).json()["id"])
    parts = PartsOf(Store(service.settings.store_uri)).sources([FAKE_PROFILE.fingerprint("llm")])
    assert len({part.identity for part in parts}) == 1


def test_bad_requests_are_told(service: Service) -> None:
    shards = _shards(service, 3)
    job = service.submit(shards).json()["id"]
    problem(service.client.get(f"/v1/jobs/{job}/estimate"), 404, "no-estimate")
    problem(service.client.get("/v1/jobs/0123/estimate"), 404, "unknown-job")
    for wrong in ({"images": 0}, {"images": 10_001}, {"seed": -1}, {"images": "many"}):
        answer = service.client.post("/v1/batches/estimate", json={"input": {"shards": [shards]}, **wrong})
        problem(answer, 422, "invalid-request")
    given = {"input": {"uploads": ["0" * 64]}}
    problem(service.client.post("/v1/batches/estimate", json=given), 422, "invalid-request")
    missing = service.client.post("/v1/batches/estimate", json={"input": {"shards": ["/nowhere/a.tar"]}})
    assert missing.status_code == 422
    # the same key gives the same job
    headers = {"Idempotency-Key": "once"}
    small = {"input": {"shards": [shards]}, "images": 2}
    answers = [service.client.post("/v1/batches/estimate", json=small, headers=headers) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]


def test_a_shard_that_cannot_be_read_is_counted(service: Service) -> None:
    shards = _shards(service, 6)
    bad = Path(service.settings.shard_roots[0]) / "1.tar"
    bad.write_bytes(b"no tar" * 200)
    found = _ended(service, f"{Path(shards).parent}/*.tar", images=6)
    assert (found.shards, found.unread, found.images) == (2, 1, 6)
    assert any(note.startswith(f"1 of 2 shards cannot be read: {bad}: not a tar") for note in found.notes)
