"""`/v1/search` and `/v1/rows`: what a described shard gives, page by page; deletion, bad input, and ended searches."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import searches
from app.problems import ProblemError
from app.searches import Target
from strata.search import Query, Scope, Search
from strata.snapshots import Selection, Snapshots
from strata.store import PartsOf
from tests.app.jobs.test_job_list import wait_for_list
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.service import Service, problem

LONG = 120.0  # seconds: far more than anything here takes


def searched(service: Service, total: int, **parameters: Any) -> dict[str, Any]:
    """The answer to a search as soon as it has so many rows in all and waits for no part."""
    until = time.monotonic() + LONG
    while True:
        response = service.client.get("/v1/search", params=parameters)
        # before the store has been listed once, the answer is that it is not ready
        body: dict[str, Any] = response.json()
        if response.status_code == 200 and body["total"] == total and not body["waiting"]:
            return body
        assert response.status_code == 200 or body["type"] == "/problems/search-not-ready", body
        assert time.monotonic() < until, body
        time.sleep(0.02)


@pytest.fixture
def job(service: Service, tmp_path: Path) -> str:
    """An ended job of nine images, of which one cannot be decoded."""
    images = [jpeg(30 + number, 20, "blue") for number in range(8)]
    shard = write_shard(tmp_path / "shards" / "a.tar", [*images, b"\xff\xd8\xff no image"])
    found = str(service.submit(shard).json()["id"])
    wait_for_end(service.jobs, found)
    return found


def test_the_rows_of_a_job_are_found_page_by_page(service: Service, job: str) -> None:
    whole = searched(service, 9, job=job)
    assert [row["key"] for row in whole["rows"]] == [f"{number:09d}" for number in range(9)]
    assert [row["status"] for row in whole["rows"]] == ["succeeded"] * 8 + ["failed"]
    assert whole["rows"][0]["title"] == "30 by 20" and whole["next"] is None and whole["broken"] == []
    # the link of each page leads to the next one, with the same conditions
    rows, link = [], f"/v1/search?job={job}&limit=2&status=succeeded&q=by&order=longest"
    while link:
        response = service.client.get(link)
        assert response.status_code == 200
        rows += response.json()["rows"]
        link = response.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert rows == whole["rows"][:8]
    found = service.client.get("/v1/search", params={"q": "31 by", "thing": []}).json()
    assert [row["key"] for row in found["rows"]] == ["000000001"]


def test_facets_count_all_rows_of_a_search(service: Service, job: str) -> None:
    searched(service, 9, job=job)
    facets = service.client.get("/v1/search/facets", params={"job": job}).json()
    assert facets["total"] == 9
    assert {one["value"]: one["count"] for one in facets["status"]} == {"succeeded": 8, "filtered": 0, "failed": 1}
    assert facets["failure"] == [{"value": "truncated", "count": 1}]
    narrowed = service.client.get("/v1/search/facets", params={"job": job, "failure": "truncated"}).json()
    assert narrowed["total"] == 1


def test_a_row_has_its_record_its_image_and_a_preview(service: Service, job: str) -> None:
    row = searched(service, 9, job=job)["rows"][3]
    record = service.client.get(f"/v1/rows/{row['id']}")
    assert record.status_code == 200 and record.json()["caption"]["text"] == "33 by 20"
    image = service.client.get(f"/v1/rows/{row['id']}/image")
    assert image.headers["content-type"] == "image/jpeg" and _size(image.content) == (33, 20)
    small = service.client.get(f"/v1/rows/{row['id']}/preview.jpg", params={"side": 16})
    assert small.headers["content-type"] == "image/jpeg" and max(_size(small.content)) == 16
    place = row["id"].rpartition("/")[0]
    problem(service.client.get(f"/v1/rows/{place}/4"), 404, "unknown-record")
    problem(service.client.get(f"/v1/rows/{'0' * 16}/{'0' * 16}/00000/0"), 404, "unknown-record")
    problem(service.client.get(f"/v1/rows/{place.replace('0', 'G', 1)}/0/preview.jpg"), 422, "invalid-request")
    failed = searched(service, 9, job=job)["rows"][8]
    problem(service.client.get(f"/v1/rows/{failed['id']}/preview.jpg"), 404, "image-unavailable")


def _size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def test_the_rows_of_a_snapshot_are_found_under_its_name(service: Service, job: str) -> None:
    store = service.jobs.store
    snapshot = Snapshots(store).create("some", PartsOf(store).sources([job]), Selection(count=3))
    found = searched(service, 3, snapshot="some")
    assert len(found["rows"]) == 3
    assert searched(service, 3, snapshot=snapshot.id)["rows"] == found["rows"]
    # a name that was given to another snapshot since
    Snapshots(store).delete("some")
    Snapshots(store).create("some", PartsOf(store).sources([job]), Selection(count=5))
    assert len(searched(service, 5, snapshot="some")["rows"]) == 5
    problem(service.client.get("/v1/search", params={"snapshot": "none"}), 404, "unknown-snapshot")


def test_nothing_of_a_deleted_job_is_found(service: Service, job: str) -> None:
    other = str(service.caption(jpeg(99, 98), wait=None).json()["id"])
    wait_for_end(service.jobs, other)
    rows = searched(service, 10)["rows"]
    wait_for_list(service.jobs)
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    # at once, and not only after the next listing of the store
    assert service.client.get("/v1/search").json()["total"] == 1
    problem(service.client.get("/v1/search", params={"job": job}), 404, "unknown-job")
    assert [row["title"] for row in searched(service, 1)["rows"]] == ["99 by 98"]
    deleted = [row for row in rows if row["title"] != "99 by 98"]
    problem(service.client.get(f"/v1/rows/{deleted[0]['id']}"), 404, "unknown-record")
    # the file is made anew without its bytes
    folder = service.settings.data_dir / "search"
    until = time.monotonic() + LONG
    while [path.name for path in folder.glob("index-*.duckdb")] == ["index-1.duckdb"]:
        assert time.monotonic() < until
        service.client.get("/v1/search")
        time.sleep(0.02)


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"cursor": "nonsense"},
        {"order": "size; drop table parts"},
        {"score_min": "nan"},
        {"score_min": "2"},
        {"words_min": "-1"},
        {"q": "a " * 300},
        {"q": " ".join(f"w{number}" for number in range(33))},
        {"status": "unknown"},
        {"thing": ["x"] * 17},
        {"job": "a", "snapshot": "b"},
        {"cut": "nonsense"},
        {"q": "?! -"},
        {"score_min": "0.9", "score_max": "0.1"},
        {"words_min": "9", "words_max": "8"},
    ],
)
def test_bad_input_is_told(idle_service: Service, parameters: dict[str, Any]) -> None:
    # the first listing of the store may not have ended
    response = idle_service.client.get("/v1/search", params=parameters)
    body = problem(response, 422, "invalid-request")
    assert body["errors"]


def test_an_unknown_job_is_told(idle_service: Service) -> None:
    problem(idle_service.client.get("/v1/search", params={"job": "0" * 22}), 404, "unknown-job")
    problem(idle_service.client.get("/v1/search/facets", params={"job": "../../etc"}), 404, "unknown-job")


def endless(search: Search) -> int:
    """A search that does not end by itself."""
    return int(search.fetch("select count(*) from range(10000000000000) a where a.range % 7 = 3")[0][0])


@pytest.mark.parametrize("reason", ["time", "caller"])
def test_a_search_is_ended_when_its_time_is_over_or_its_caller_is_gone(
    service: Service, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    searched(service, 0)
    if reason == "time":
        monkeypatch.setattr(searches, "MAX_SECONDS", 0.2)
    services = service.client.app.state.services  # type: ignore[attr-defined]
    given = searches.Searches(service.jobs, services.searches.index, services.tenants)

    async def is_gone() -> bool:
        return reason == "caller"

    async def run() -> None:
        with pytest.raises(ProblemError) as raised:
            await given.run(Target(Scope.everything()), Query(), endless, is_gone)
        assert raised.value.name == "search-stopped"

    asyncio.run(run())
    # the next search is not held up
    assert searched(service, 0)["rows"] == []
