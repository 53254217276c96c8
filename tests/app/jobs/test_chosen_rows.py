"""`POST /v1/batches` with sources: rows of other jobs once more; what is refused, and what a preview tells of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app import batch_preview
from strata.core import BatchInput
from strata.snapshots import Selection, Snapshots
from strata.store import PartsOf
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.service import Answer, Service, problem

WHERE = "matches(description, 'by 1[0-2]$')"


def submit(service: Service, path: str = "/v1/batches", **asked: Any) -> Answer:
    return service.client.post(path, json={"input": asked})


@pytest.fixture
def described(service: Service) -> str:
    """The id of a job of two shards of six images."""
    folder = Path(service.settings.shard_roots[0])
    for name in "ab":
        write_shard(folder / f"{name}.tar", [jpeg(20 + ord(name), 10 + number) for number in range(6)])
    job: str = service.submit(f"{folder}/*.tar").json()["id"]
    wait_for_end(service.jobs, job)
    return job


def test_rows_of_a_job_and_of_a_snapshot(service: Service, described: str) -> None:
    preview = submit(service, "/v1/batches/preview", sources=[described], where=WHERE).json()
    assert (preview["shards"], preview["looked_at"], preview["images"], preview["reused"]) == (2, 2, 6, 0)
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
    for path in ("/v1/batches", "/v1/batches/preview"):
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
