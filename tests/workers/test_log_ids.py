"""Lines that a worker logs of a chunk have the ids of the jobs that wait for it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.base import WeightsMissing
from strata.jobs.jobs import Jobs
from strata.logs import JsonFormatter
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, FakeVision, jpeg, wait_for_end, write_shard
from workers import indexer
from workers.groups import VisionGroup


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What this process logs, as JSON."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


def broken(*_: object) -> None:
    raise WeightsMissing("the weights are gone")


def unreadable(*_: object, **__: object) -> None:
    raise ValueError("no rows")


@pytest.mark.parametrize("name", ["index", "items", "run"])
def test_a_line_of_a_chunk_has_its_job(
    queue: Queue, store: Store, tmp_path: Path, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shard = write_shard(tmp_path / "0.tar", [jpeg()])
    if name == "index":
        monkeypatch.setattr(indexer, "index_shard", unreadable)
    elif name == "items":
        monkeypatch.setattr(VisionGroup, "items", unreadable)
    else:
        monkeypatch.setattr(FakeVision, "run", broken)
    jobs = Jobs(queue, store)
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        wait_for_end(jobs, job)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    of_workers = [line for line in told if line["logger"].startswith("workers.")]
    assert of_workers and {line["job"] for line in of_workers} == {job}
    # of the index the chunk's id would be the shard's address
    assert all(("chunk" in line) == (name != "index") for line in of_workers)
