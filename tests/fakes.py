"""Fake pipelines and shards for tests of the runner. They compute nothing, and can be set to fail."""

from __future__ import annotations

import functools
import io
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image

from models.base import Stage
from models.items import ComposeRequest
from strata.core.parameters import TextSettings
from strata.core.profiles import Profile, StageSettings
from strata.core.records import Caption, Description, Record
from strata.images import DecodingPool
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.queue.broker import Broker
from strata.queue.connection import connect
from strata.queue.queue import Queue
from strata.store import texts_of
from workers import micro_batches, prepared
from workers.engines.queue import QueueClaims
from workers.groups import Group, LlmGroup, PipelineCache, VisionGroup
from workers.indexer import Indexer
from workers.leases import Leases
from workers.profile_versions import ProfileVersions
from workers.runner import Runner

DECODER = DecodingPool(1_000_000)  # of all workers of a test process; it starts with the first image
FAKE_PROFILE = Profile(
    name="fake",
    chunk_size=4,
    micro_batch=2,
    stages={
        name: StageSettings(backend="fake", model="builtin:fake", revision="1")
        for name in ("captioner", "detector", "segmenter", "ocr", "matcher", "composer")
    },
)


class FakeVision:
    """Captions each image with its size; counts its calls."""

    def __init__(self, profile: Profile, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.images = 0
        self.stages: dict[str, Stage[Any, Any]] = {}

    def load(self) -> None:
        """Nothing to load."""

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """Records with a caption and empty layers."""
        time.sleep(self.seconds * len(batch))
        self.images += len(batch)
        empty: dict[str, list[object]] = {"regions": [], "objects": [], "text": []}
        return [
            record.model_copy(update={"caption": Caption(text=f"{image.width} by {image.height}"), **empty})
            for record, image in batch
        ]


class FakeLlm:
    """Describes each image by repeating its caption; counts its calls."""

    def __init__(self, profile: Profile) -> None:
        self.images = 0
        self.stages: dict[str, Stage[Any, Any]] = {}

    def load(self) -> None:
        """Nothing to load."""

    def run(self, batch: Sequence[ComposeRequest], texts: TextSettings | None = None) -> list[Record]:
        """Records with a description; the texts are not used."""
        del texts
        self.images += len(batch)
        records = [request.record for request in batch]
        captions = [record.caption.text if record.caption else "" for record in records]
        return [
            record.model_copy(update={"description": Description(text=text, sentences=[])})
            for record, text in zip(records, captions, strict=True)
        ]


class FakeMachine:
    """A scheduler and one worker per group, in threads. Use it as a context manager."""

    def __init__(
        self,
        jobs: Jobs,
        lease_seconds: float = 2.0,
        seconds: float = 0.0,
        name: str = "worker",
        vision: bool = True,
        profile: Profile = FAKE_PROFILE,
        roots: Sequence[str] = (),
    ) -> None:
        self.jobs = jobs
        self.vision, self.llm = FakeVision(profile, seconds), FakeLlm(profile)
        self.stop = threading.Event()
        self.leases = Leases(jobs.queue, name, ["index", "vision", "llm"], lease_seconds)
        profiles = ProfileVersions(lambda _: profile, functools.partial(texts_of, jobs.store))
        groups: tuple[Group, ...] = (
            VisionGroup(jobs.store, PipelineCache(lambda _: self.vision, profiles), DECODER),
            LlmGroup(jobs.store, PipelineCache(lambda _: self.llm, profiles), DECODER),
        )
        self.scheduler = Scheduler(jobs.queue, jobs.store, high_water=100)
        if not vision:
            groups = groups[1:]
        loops = [Runner(group, QueueClaims(group.name, jobs, self.leases, profiles), 2).run for group in groups]
        loops += [Indexer(jobs, self.leases, roots).run, lambda stop: self.scheduler.run(stop, interval=0.02)]
        self.threads = [threading.Thread(target=loop, args=(self.stop,), daemon=True) for loop in loops]

    def __enter__(self) -> FakeMachine:
        self.leases.__enter__()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        join_workers(self.jobs.queue, self.threads)
        self.leases.__exit__()


def join_workers(queue: Queue, threads: Sequence[threading.Thread], stop: Callable[[], object] = lambda: None) -> None:
    """Wait for the end of the threads of workers that are to stop. stop: called until they have ended.

    A worker that waits for a chunk is told that there is none; by itself it would wait for up to a second.
    """
    with closing(connect(queue.url)) as client:
        for thread in threads:
            while thread.is_alive():
                stop()
                with suppress(redis.RedisError):
                    _end_waits(client)
                thread.join(0.02)


def _end_waits(client: redis.Redis) -> None:
    waiting: Any = client.client_list()
    for one in waiting:
        if one["cmd"] == "xreadgroup" and "b" in one["flags"]:
            client.client_unblock(int(one["id"]))


def jpeg(width: int = 32, height: int = 24, colour: str = "red") -> bytes:
    """A small JPEG."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def write_shard(path: Path, images: Sequence[bytes], first: int = 0) -> str:
    """Write a webdataset tar with one sample per image, each with a text; return its path."""
    with tarfile.open(path, "w") as tar:
        for i, data in enumerate(images, first):
            for suffix, content in (("jpg", data), ("txt", f"alt {i}".encode())):
                member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)


def read_in_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let workers read images in pieces of at most `size` bytes."""
    for module in (prepared, micro_batches):
        monkeypatch.setattr(module, "PIECE_BYTES", size)


def wait_for_end(jobs: Jobs, job_id: str, seconds: float = 120.0) -> None:
    """Wait until the job is final. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while not jobs.view(job_id).status.final:
        if time.monotonic() > until:
            raise TimeoutError(jobs.view(job_id).model_dump_json())
        time.sleep(0.02)


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until the condition holds. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not true after {seconds:g} seconds")
        time.sleep(0.02)


def dead_workers_claim(broker: Broker, group: str, count: int = 1) -> None:
    """Claim chunks for a worker that does not exist, and so never renews them."""
    broker.claim(group, "dead", count)
