"""`POST /v1/batches/preview` tells what a submission would compute, and creates nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import batch_preview
from strata.core import BatchPreview
from tests.fakes import jpeg, wait_for_end, write_shard
from tests.service import Service, problem


def _preview(service: Service, *shards: str) -> BatchPreview:
    answer = service.client.post("/v1/batches/preview", json={"input": {"shards": list(shards)}})
    assert answer.status_code == 200, answer.text
    return BatchPreview.model_validate_json(answer.content)


def _shards(service: Service, *sizes: int) -> Path:
    folder = Path(service.settings.shard_roots[0])
    for number, size in enumerate(sizes):
        write_shard(folder / f"{number}.tar", [jpeg(20 + number, 20 + index) for index in range(size)])
    return folder


def test_it_counts_what_is_new_and_what_exists(service: Service) -> None:
    folder = _shards(service, 5, 6)
    found = _preview(service, f"{folder}/{{0..1}}.tar")
    assert (found.shards, found.looked_at, found.images, found.reused) == (2, 2, 11, 0)
    assert found.seconds is None and found.money is None and found.like is None
    assert found.first == [f"{folder}/0.tar", f"{folder}/1.tar"]
    assert service.client.get("/v1/jobs").json()["jobs"] == []
    # after a job of one of them its images are reused, and the time of the others is known from it
    job = service.submit(f"{folder}/0.tar").json()["id"]
    wait_for_end(service.jobs, job)
    found = _preview(service, f"{folder}/{{0..1}}.tar")
    assert (found.images, found.reused, found.like) == (11, 5, job)
    view = service.jobs.view(job)
    assert view.finished_at and view.started_at and found.seconds is not None
    assert found.seconds == pytest.approx(6 / 5 * (view.finished_at - view.started_at).total_seconds(), rel=0.05)


def test_only_some_of_many_shards_are_looked_at(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _shards(service, 4, 4, 4, 4, 4, 4)
    monkeypatch.setattr(batch_preview, "MOST_SHARDS", 3)
    found = _preview(service, f"{folder}/*.tar")
    assert (found.shards, found.looked_at, found.images) == (6, 3, 24)
    # without time no shard is read to its end
    monkeypatch.setattr(batch_preview, "SECONDS", 0.0)
    found = _preview(service, f"{folder}/*.tar")
    assert (found.shards, found.looked_at, found.images, found.reused, found.seconds) == (6, 0, None, None, None)


def test_a_shard_that_cannot_be_read_is_named(service: Service) -> None:
    folder = _shards(service, 3)
    (folder / "bad.parquet").write_bytes(b"no parquet")
    found = _preview(service, f"{folder}/0.tar", f"{folder}/bad.parquet")
    assert (found.shards, found.images) == (2, 3)
    assert [one.shard for one in found.unread] == [f"{folder}/bad.parquet"] and found.unread[0].reason
    answer = service.client.post("/v1/batches/preview", json={"input": {"shards": [f"{folder}/nothing.tar"]}})
    problem(answer, 422, "shard-not-found")
    answer = service.client.post("/v1/batches/preview", json={"input": {"shards": ["/etc/hosts"]}})
    problem(answer, 422, "shard-outside-roots")
    answer = service.client.post("/v1/batches/preview", json={"input": {"shards": [str(folder)]}, "profile": "none"})
    assert answer.status_code == 422
