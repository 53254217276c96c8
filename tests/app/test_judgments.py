"""`/v1/judgments` and `/v1/review`: what people say of records, through the API."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from strata.snapshots import Selection, Snapshots
from strata.store import PartsOf
from tests.app.jobs.test_job_list import wait_for_list
from tests.cli.test_cli import code_of
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.service import Answer, Service, problem


@pytest.fixture
def job(service: Service, tmp_path: Path) -> str:
    """A job of six images."""
    images = [jpeg(32 + index, 24) for index in range(6)]
    found = str(service.submit(write_shard(tmp_path / "shards" / "a.tar", images)).json()["id"])
    wait_for_end(service.jobs, found)
    return found


def opinion(name: str, job: str, verdict: str = "accepted", key: int = 0, **more: Any) -> dict[str, Any]:
    given = {"id": f"judgment-{name}", "job": job, "key": f"{key:09d}", "reviewer": "Ada", "verdict": verdict}
    return {**given, **more}


def send(service: Service, *judgments: dict[str, Any]) -> Answer:
    return service.client.post("/v1/judgments", json={"judgments": list(judgments)})


def queue(service: Service, reviewer: str = "Ada", **more: Any) -> dict[str, Any]:
    response = service.client.get("/v1/review", params={"reviewer": reviewer, **more})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def listed(service: Service, **more: Any) -> list[str]:
    response = service.client.get("/v1/judgments", params=more)
    assert response.status_code == 200, response.text
    return [one["id"] for one in response.json()["judgments"]]


def test_a_judgment_is_stored_once_and_says_of_what(service: Service, job: str) -> None:
    edit = {"index": 0, "verdict": "edited", "edited": "A <b>red</b>\n square.", "reason": "wrong_attribute"}
    first = send(service, opinion("1", job, "edited", sentences=[edit], comment="ok"))
    assert first.status_code == 200, first.text
    (stored,) = first.json()["judgments"]
    request = service.jobs.request(job)
    (summary,) = service.jobs.summaries(job).values()
    assert (stored["fingerprint"], stored["identity"]) == (request.fingerprints["llm"], summary.identity)
    # the sentence that was judged, and the text that is left
    assert stored["sentences"][0]["text"] == "32 by 24"
    assert stored["text"] == "A <b>red</b> square."
    again = send(service, opinion("1", job, "edited", sentences=[edit], comment="ok"), opinion("2", job, key=1))
    assert again.json()["repeated"] == ["judgment-1"]
    assert again.json()["judgments"][0] == stored
    assert listed(service, job=job) == ["judgment-1", "judgment-2"]
    problem(send(service, opinion("1", job)), 422, "judgment-id-reused")


def test_undoing_and_filters(service: Service, job: str) -> None:
    send(service, opinion("1", job), opinion("2", job, "rejected", supersedes="judgment-1", reason="incomplete"))
    send(service, opinion("3", job, "undone", supersedes="judgment-2"), opinion("4", job, key=1, reviewer="Bob"))
    assert listed(service) == [f"judgment-{n}" for n in (1, 2, 3, 4)]
    assert listed(service, counting=True) == ["judgment-1", "judgment-4"]
    assert listed(service, reviewer="Bob") == listed(service, key="000000001") == ["judgment-4"]
    assert listed(service, verdict="rejected", job=job) == ["judgment-2"]
    assert listed(service, fingerprint="0" * 16) == []
    # pages
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = service.client.get("/v1/judgments", params={"limit": 3, **cursor}).json()
        ids += [one["id"] for one in page["judgments"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert ids == [f"judgment-{n}" for n in (1, 2, 3, 4)]
    problem(service.client.get("/v1/judgments", params={"cursor": "x"}), 422, "invalid-request")


@pytest.mark.parametrize(
    ("change", "status", "name"),
    [
        ({"job": "0" * 22}, 404, "unknown-job"),
        ({"job": "../../x"}, 404, "unknown-job"),
        ({"key": "none"}, 404, "unknown-record"),
        ({"identity": "0" * 16}, 404, "unknown-record"),
        ({"supersedes": "judgment-9"}, 422, "invalid-request"),
        ({"verdict": "maybe"}, 422, "invalid-request"),
        ({"reviewer": "a\u0000b"}, 422, "invalid-request"),
        ({"reviewer": "x" * 101}, 422, "invalid-request"),
        ({"comment": "\ud800"}, 422, "invalid-request"),
        ({"comment": "x" * 10_001, "verdict": "rejected"}, 422, "invalid-request"),
        ({"id": "short"}, 422, "invalid-request"),
        ({"at": "2026-01-01T00:00:00Z"}, 422, "invalid-request"),
        ({"verdict": "rejected", "sentences": [{"index": 1, "verdict": "rejected"}]}, 422, "invalid-request"),
        ({"verdict": "edited", "sentences": [{"index": 0, "verdict": "rejected"}]}, 422, "invalid-request"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_stored(
    service: Service, job: str, change: dict[str, Any], status: int, name: str
) -> None:
    bad = opinion("2", job) | change
    body = json.dumps({"judgments": [opinion("1", job), bad]})
    problem(
        service.client.post("/v1/judgments", content=body, headers={"Content-Type": "application/json"}), status, name
    )
    assert listed(service) == []


def test_one_id_at_once_is_stored_once(service: Service, job: str) -> None:
    threads = [threading.Thread(target=send, args=(service, opinion("1", job))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(service.jobs.store.find("judgments")) == 1


def test_a_queue_is_the_same_for_its_seed_and_two_reviewers_are_blind(service: Service, job: str) -> None:
    whole = queue(service, job=job)
    assert (whole["total"], whole["passed"], whole["done"], whole["next"]) == (6, 6, 0, None)
    keys = [item["key"] for item in whole["items"]]
    assert sorted(keys) == [f"{n:09d}" for n in range(6)]
    assert [item["key"] for item in queue(service, "Bob", job=job)["items"]] == keys
    assert len({tuple(item["key"] for item in queue(service, job=job, seed=n)["items"]) for n in range(8)}) > 1
    # a sample is the beginning of the larger one, and is read in pages
    assert [item["key"] for item in queue(service, job=job, sample=4)["items"]] == keys[:4]
    page = queue(service, job=job, sample=4, start=2, limit=1)
    assert ([item["key"] for item in page["items"]], page["next"]) == ([keys[2]], 3)
    item = whole["items"][0]
    assert item["record"]["description"]["text"] and item["record"]["key"] == item["key"]
    assert service.client.get(f"/v1/records/{job}/{item['key']}/image?identity={item['identity']}").status_code == 200
    problem(service.client.get(f"/v1/records/{job}/{item['key']}?identity={'0' * 16}"), 404, "unknown-record")
    # Ada sees what she has said, and what Bob says only when she has said all
    for number, key in enumerate(keys[:3]):
        send(service, opinion(f"bob{number}", job, "accepted", int(key), reviewer="Bob"))
        send(service, opinion(f"ada{number}", job, "rejected" if number else "accepted", int(key)))
        found = queue(service, job=job, sample=3)
        assert [bool(one["judgment"]) for one in found["items"]] == [index <= number for index in range(3)]
        assert {one["judgment"]["reviewer"] for one in found["items"] if one["judgment"]} == {"Ada"}
        assert (found["agreement"] is not None) == (number == 2)
    agreement = queue(service, "Bob", job=job, sample=3)["agreement"]
    assert (agreement["records"], agreement["pairs"][0]["equal"], len(agreement["disagreements"])) == (3, 1, 2)
    assert queue(service, "Bob", job=job, sample=4)["agreement"] is None


def test_a_queue_of_a_filter_and_of_a_snapshot(service: Service, job: str) -> None:
    assert queue(service, job=job, where="width >= 35")["total"] == 3
    store = service.jobs.store
    Snapshots(store).create("few", PartsOf(store).sources([job]), Selection(where="width < 34"), [job])
    Snapshots(store).create("any", PartsOf(store).sources([job]), Selection(where="width < 34"), ["fake"])
    for name in ("few", "any"):
        found = queue(service, snapshot=name)
        assert sorted(item["key"] for item in found["items"]) == ["000000000", "000000001"]
        assert {item["job"] for item in found["items"]} == {job}
    doubtful = queue(service, job=job, order="doubtful")
    assert [item["doubt"]["score"] for item in doubtful["items"]] == [0.0] * 6
    get = service.client.get
    problem(get("/v1/review", params={"reviewer": "Ada", "snapshot": "none"}), 404, "unknown-snapshot")
    problem(get("/v1/review", params={"reviewer": "Ada", "snapshot": "../few"}), 404, "unknown-snapshot")
    problem(get("/v1/review", params={"reviewer": "Ada", "job": job, "where": "size > 3"}), 422, "invalid-request")
    problem(get("/v1/review", params={"reviewer": "Ada"}), 422, "invalid-request")
    problem(get("/v1/review", params={"reviewer": "Ada", "job": job, "snapshot": "few"}), 422, "invalid-request")
    problem(get("/v1/review", params={"job": job}), 422, "invalid-request")


def test_a_lost_file_of_judgments_is_named(service: Service, job: str) -> None:
    send(service, opinion("1", job))
    send(service, opinion("2", job, key=1))
    store = service.jobs.store
    first = min(store.find("judgments"))
    store.remove(store.path(first))
    assert service.client.get("/v1/judgments").json()["faults"] == [f"{first} is missing"]
    assert queue(service, job=job)["faults"] == [f"{first} is missing"]


@pytest.mark.parametrize("way", ["delete", "clean"])
def test_judgments_are_deleted_with_their_job(service: Service, job: str, way: str) -> None:
    wait_for_list(service.jobs)
    single = str(service.caption(jpeg(), wait=None).json()["id"])
    wait_for_end(service.jobs, single)
    send(service, opinion("1", job))
    key = service.client.get(f"/v1/jobs/{single}/results").json()["key"]
    assert send(service, opinion("2", single) | {"key": key}).status_code == 200
    store = service.jobs.store
    assert len(store.find("judgments")) == 2
    if way == "delete":
        assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    else:
        assert code_of("clean", "--forget", job, "--yes", "--store", store.uri) == 0
    assert listed(service) == ["judgment-2"]
    assert [path.split("/")[2] for path in store.find("judgments")] == [single]
