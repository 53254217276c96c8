"""Images that a rule of the profile rejects: never computed, counted, told with rule and value, and left alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from app.images.overlay import draw_overlay
from strata.cli import jobs
from strata.cli import main as cli
from strata.cli.rendering import records as render
from strata.client.client import Client
from strata.core.chunks import Chunk
from strata.core.profiles import ProfileError
from strata.core.records import ImageReference, Record, Status
from strata.core.rules import Rules
from strata.images import decode
from strata.queue.queue import Queue
from strata.shards.sources import index_shard
from strata.snapshots.selection import Selection
from strata.snapshots.snapshots import Snapshots
from strata.store.parts import PartsOf
from strata.store.store import Store
from tests.fakes import DECODER, FAKE_PROFILE, jpeg, wait_for_end, write_shard
from tests.service import Service, running_service
from workers.groups import LlmGroup, PipelineCache, VisionGroup
from workers.profile_versions import ProfileVersions

RULES = Rules(smallest_side=20, largest_aspect=4.0, longest_alt_text=5)
PROFILE = FAKE_PROFILE.model_copy(update={"rules": RULES})
# keys 0 and 5 pass; 1 is too small, 2 too long, 3 damaged; from 10 on the alt texts have six characters
IMAGES = [jpeg(32, 24), jpeg(32, 19), jpeg(200, 40), jpeg()[:300], b"", jpeg(20, 80)]
REASONS = {
    "000000001": ("smallest_side", "pixels of the shorter side: 19, at least: 20"),
    "000000002": ("largest_aspect", "longer side over shorter side: 5, at most: 4"),
    "000000010": ("longest_alt_text", "characters of the alt text: 6, at most: 5"),
    "000000011": ("longest_alt_text", "characters of the alt text: 6, at most: 5"),
}


@pytest.fixture
def ruled(queue: Queue, tmp_path: Path) -> Iterator[Service]:
    """The service with a profile that has rules."""
    with running_service(queue, tmp_path, profile=PROFILE) as service:
        yield service


def shards(folder: Path) -> list[str]:
    one = write_shard(folder / "00000.tar", IMAGES)
    return [one, write_shard(folder / "00001.tar", [jpeg(), jpeg()[:200]], first=10)]


def finished(service: Service, tmp_path: Path) -> dict[str, Any]:
    job = service.submit(*shards(tmp_path / "shards")).json()
    wait_for_end(service.jobs, job["id"])
    return dict(service.client.get(f"/v1/jobs/{job['id']}").json())


def lines(service: Service, path: str) -> list[dict[str, Any]]:
    """The rows of all pages."""
    rows: list[dict[str, Any]] = []
    while path:
        answer = service.client.get(path)
        assert answer.status_code == 200, answer.text
        rows += [json.loads(line) for line in answer.text.splitlines()]
        path = answer.links.get("next", {}).get("url", "")
    return rows


def test_filtered_rows_are_counted_and_told(ruled: Service, tmp_path: Path) -> None:
    job = finished(ruled, tmp_path)
    counts = job["request_counts"]
    assert job["status"] == "completed"
    assert [counts[name] for name in ("total", "succeeded", "filtered", "failed")] == [8, 2, 4, 2]
    filtered = lines(ruled, f"/v1/jobs/{job['id']}/failures?status=filtered&limit=1")
    assert {row["key"]: (row["failure"]["error_type"], row["failure"]["detail"]) for row in filtered} == REASONS
    assert {row["failure"]["stage"] for row in filtered} == {"rules"}
    failed = lines(ruled, f"/v1/jobs/{job['id']}/failures")
    assert [row["key"] for row in failed] == ["000000003", "000000004"]
    assert lines(ruled, f"/v1/jobs/{job['id']}/failures?status=failed&limit=1") == failed
    assert ruled.client.get(f"/v1/jobs/{job['id']}/failures?status=lost").status_code == 422


def test_filtered_rows_are_never_computed(ruled: Service, tmp_path: Path) -> None:
    job = finished(ruled, tmp_path)
    assert ruled.machine and (ruled.machine.vision.images, ruled.machine.llm.images) == (2, 2)
    for row in lines(ruled, f"/v1/jobs/{job['id']}/results"):
        layers = [row[name] for name in ("caption", "regions", "objects", "text", "description")]
        assert (row["status"] == "filtered") == (row["key"] in REASONS)
        assert (layers == [None] * 5) == (row["status"] != "succeeded")
        known = row["key"] not in ("000000003", "000000004", "000000010", "000000011")
        assert (row["width"] is not None) == known  # what a rule rejects by its alt text is not even decoded


def test_a_retry_and_a_snapshot_leave_filtered_rows_alone(ruled: Service, tmp_path: Path) -> None:
    job = finished(ruled, tmp_path)
    assert ruled.client.post(f"/v1/jobs/{job['id']}/retry").status_code == 200
    wait_for_end(ruled.jobs, job["id"])
    again = ruled.client.get(f"/v1/jobs/{job['id']}").json()
    assert again["request_counts"] == job["request_counts"]
    assert ruled.machine and (ruled.machine.vision.images, ruled.machine.llm.images) == (2, 2)
    store = ruled.jobs.store
    snapshot = Snapshots(store).create("all", PartsOf(store).sources([job["id"]]), Selection())
    counts = snapshot.manifest.counts
    assert (counts.succeeded, counts.filtered, counts.failed, counts.selected) == (2, 4, 2, 2)


def test_a_job_without_failures_is_not_retried_for_its_filtered_rows(ruled: Service, tmp_path: Path) -> None:
    job = ruled.submit(write_shard(tmp_path / "shards" / "a.tar", [jpeg(), jpeg(9, 9)])).json()["id"]
    wait_for_end(ruled.jobs, job)
    assert ruled.client.post(f"/v1/jobs/{job}/retry").json()["status"] == "completed"


def test_a_single_image_can_be_filtered(ruled: Service) -> None:
    answer = ruled.caption(jpeg(8, 8))
    assert answer.status_code == 200 and answer.json()["status"] == "filtered"
    record = Record.model_validate(answer.json())
    picture = ruled.client.get(answer.headers["Content-Location"] + "/overlay.png")
    assert picture.status_code == 200
    assert (
        draw_overlay(decode(jpeg(8, 8), 100), record).height
        > draw_overlay(decode(jpeg(8, 8), 100), bare(record)).height
    )
    console = Console(file=io.StringIO(), width=120)
    console.print(render.layers_tree(record))
    assert isinstance(console.file, io.StringIO)
    told = "filtered by the rule smallest_side: pixels of the shorter side: 8, at least: 20"
    assert told in console.file.getvalue()


def bare(record: Record) -> Record:
    return record.model_copy(update={"failure": None})


def test_the_command_tells_filtered_rows(
    ruled: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = finished(ruled, tmp_path)
    client = Client("http://testserver", transport=passing(ruled))
    assert [row.key for row in client.failures(job["id"], "filtered")] == list(REASONS)
    monkeypatch.setattr(jobs, "open_client", lambda *_: client)
    with pytest.raises(SystemExit) as ended:
        cli.main(["failures", job["id"], "--status", "filtered"])
    assert not ended.value.code
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert printed[0].endswith("000000001: rules: smallest_side: pixels of the shorter side: 19, at least: 20")
    assert "4 filtered" in render.job_line(ruled.jobs.view(job["id"]))


def passing(service: Service) -> httpx.MockTransport:
    """A transport to the service of a test."""

    def handle(request: httpx.Request) -> httpx.Response:
        answer = service.client.request(request.method, request.url.raw_path.decode())
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)

    return httpx.MockTransport(handle)


def test_rules_are_applied_before_bytes_are_read_and_before_models(store: Store, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", IMAGES[:3])
    index = index_shard(shard)
    chunk = Chunk("vision", "fake", PROFILE.fingerprint("vision"), shard, index.identity, 0, 3)
    store.write_index(chunk.of_group("index", PROFILE.fingerprint("index")), index.table)
    group = VisionGroup(store, PipelineCache(no_models, ProfileVersions(lambda _: PROFILE)), DECODER)
    items = group.decode(group.read(chunk, group.items(chunk)))
    assert [item.settled for item in items] == [False, True, True]
    assert [item.record.status for item in items][1:] == [Status.FILTERED] * 2
    short = PROFILE.model_copy(update={"rules": Rules(longest_alt_text=1)})
    other = VisionGroup(store, PipelineCache(no_models, ProfileVersions(lambda _: short)), DECODER)
    items = other.read(chunk, other.items(Chunk(**vars(chunk) | {"fingerprint": short.fingerprint("vision")})))
    assert all(item.settled and item.data is None for item in items)
    # a worker whose rules are not those of the job writes no rows
    with pytest.raises(ProfileError, match="the versions of profile"):
        other.items(chunk)


def test_filtered_rows_are_settled_for_llm(store: Store) -> None:
    rows = [Record(key="a", image=ImageReference(uri="u", size=1)).filtered("smallest_side", "too small")]
    chunk = Chunk("llm", "fake", PROFILE.fingerprint("llm"), "a.tar", "a" * 16, 0, 1)
    store.write_records(chunk.of_group("vision", PROFILE.fingerprint("vision")), rows)
    (item,) = LlmGroup(store, PipelineCache(no_models, ProfileVersions(lambda _: PROFILE)), DECODER).items(chunk)
    assert item.settled and item.record == rows[0]


def no_models(_: object) -> Any:
    raise AssertionError("a model was asked")
