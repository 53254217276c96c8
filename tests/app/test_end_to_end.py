"""The whole service with the real demo models: a shard, a SIGKILL in mid-job, a second submission, a photograph."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from samples.service import running_service
from strata.client.client import Client
from strata.core.records import Record
from strata.core.schemas import JobStatus
from strata.queue.queue import Queue

SHARD = Path(__file__).resolve().parents[2] / "samples" / "shards" / "00000.tar"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    """A running service with the demo profile and short leases, and its data folder."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, SHARD.parent, lease_seconds="4") as client:
        yield client, folder / "data"


def worker_pid(data: Path, group: str) -> int:
    """The process that computes a group, as its heartbeat tells."""
    beats = Queue(f"unix://{data / 'redis.sock'}").heartbeats.live()
    return next(beat.pid for beat in beats if group in beat.groups)


def test_a_killed_vision_worker_costs_no_row(service: tuple[Client, Path]) -> None:
    client, data = service
    job = client.submit([str(SHARD)])
    deadline = time.monotonic() + 300
    while client.job(job.id).groups["vision"].images < 16:
        assert time.monotonic() < deadline, "the job does not move"
        time.sleep(0.1)
    os.kill(worker_pid(data, "vision"), signal.SIGKILL)
    end = client.wait(job.id, poll=0.5)
    assert end.status is JobStatus.COMPLETED
    assert (end.request_counts.total, end.request_counts.succeeded) == (64, 64)
    rows = [
        row
        for path in sorted((data / "store" / "parts" / "llm").rglob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert Counter(row["key"] for row in rows) == {f"{i:09d}": 1 for i in range(64)}
    for row in rows:
        assert all(row[layer] is not None for layer in ("alt_text", "caption", "regions", "objects", "text"))
        assert row["description"]["text"]


def test_the_same_shard_again_calls_no_model(service: tuple[Client, Path]) -> None:
    client, data = service
    before = {path: path.stat().st_mtime_ns for path in (data / "store" / "parts").rglob("*.parquet")}
    started = time.monotonic()
    end = client.wait(client.submit([str(SHARD)]).id, poll=0.1)
    assert end.request_counts.succeeded == end.groups["vision"].reused == end.groups["llm"].reused == 64
    assert time.monotonic() - started < 10
    assert {path: path.stat().st_mtime_ns for path in (data / "store" / "parts").rglob("*.parquet")} == before


def test_results_and_overlay_of_a_single_image(service: tuple[Client, Path]) -> None:
    client, _ = service
    answer = client.caption(SHARD.parent.parent / "images" / "one.jpg", alt_text="things", wait=60)
    assert isinstance(answer, Record)
    assert answer.alt_text == "things"
    assert answer.regions and answer.description
    assert {"captioner", "detector", "segmenter", "ocr", "matcher", "composer"} <= set(answer.seconds)
    job = next(job for job in client.jobs().jobs if job.kind == "image")
    assert client.overlay(job.id, answer.key).startswith(b"\x89PNG")


def test_a_photograph_goes_through_and_the_matcher_doubts_it(service: tuple[Client, Path], tmp_path: Path) -> None:
    from skimage import data as photographs

    client, _ = service
    path = tmp_path / "astronaut.jpg"
    Image.fromarray(photographs.astronaut()).save(path)
    answer = client.caption(path, wait=60)
    assert isinstance(answer, Record)
    assert answer.status == "succeeded"
    entries = [*(answer.regions or ()), *(answer.objects or ())]
    kept = [entry for entry in entries if entry.kept]
    assert len(kept) <= len(entries) / 2, [(entry.phrase, entry.match) for entry in kept]
