"""Images that cost much are failed rows with their reason; a worker keeps within its memory, and loses none."""

from __future__ import annotations

import itertools
import os
import signal
import zlib
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image

from bench.hostile.images import bombs, jpeg_scans, png
from strata.core import Record, Status
from strata.images import DecodingPool
from strata.images.process import DecodingProcess
from strata.jobs.jobs import Jobs
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for_end, write_shard
from tests.memory import peak_memory
from workers import micro_batches as module
from workers.items import WorkItem
from workers.micro_batches import MicroBatch, micro_batches

MIB = 2**20
ABOVE_MODELS = 1024 * MIB  # what a worker may take beside its models, with its decoding processes


def described(jobs: Jobs, shard: str, seconds: float = 120) -> list[Record]:
    """The rows of a job with one shard."""
    with FakeMachine(jobs):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo")
        wait_for_end(jobs, job.id, seconds)
    request = jobs.request(job.id)
    chunks = [chunk for summary in jobs.summaries(job.id).values() for chunk in request.chunks(summary, "llm")]
    return [record for chunk in chunks for record in jobs.store.read_records(chunk)]


def test_large_and_hostile_images_leave_a_worker_within_its_memory(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 100 million pixels of grey, 49 million in several scans; the bombs have 25 million with transparency
    largest = png(10_000, 10_000, zlib.compress(bytes(10_001 * 10_000), 1), colour=0)
    scans = jpeg_scans(7000, 7000, 3)
    images = [largest, largest, jpeg(20), scans, *bombs().values(), jpeg(21)]
    with DecodingPool(100_000_000) as decoder:
        monkeypatch.setattr("tests.fakes.DECODER", decoder)
        decoder.decode(jpeg())
        with peak_memory(psutil.Process()) as found:
            records = described(jobs, write_shard(tmp_path / "a.tar", images), 300)
    assert len(records) == len(images)
    assert all(record.status is Status.SUCCEEDED for record in (*records[:4], records[-1]))
    assert {record.failure.error_type for record in records if record.failure} == {
        "too_costly",
        "too_many_pixels",
        "truncated",
    }
    print(f"{(found[1] - found[0]) // MIB} MiB above {found[0] // MIB}")
    assert found[1] - found[0] < ABOVE_MODELS


@pytest.mark.parametrize(("number", "times", "failed"), [(signal.SIGKILL, 3, 0), (signal.SIGSEGV, 2, 1)])
def test_decoders_that_end(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, times: int, failed: int
) -> None:
    """One that is killed costs no row, also if it is killed again; one that crashes on an image costs that row."""
    ask, left = DecodingProcess.decode, [number] * times

    def end_and_ask(self: DecodingProcess, data: bytes, request: dict[str, object]) -> Image.Image:
        self._await_start()
        if left and data == jpeg(23):
            os.kill(self.pid, left.pop())
        return ask(self, data, request)

    monkeypatch.setattr(DecodingProcess, "decode", end_and_ask)
    records = described(jobs, write_shard(tmp_path / "a.tar", [jpeg(width) for width in range(20, 30)]))
    assert [record.failure.error_type for record in records if record.failure] == ["decoder_crashed"] * failed
    assert not left


def test_micro_batches_are_bounded_by_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIXELS_TOGETHER", 3000)
    monkeypatch.setattr(module, "PIXELS_IN_HAND", 5000)
    sizes = [(10, 10), (20, 20), (50, 50), (100, 100), (30, 30), (30, 30), (30, 30), (30, 30), (1, 1)]
    chunk = _Chunk([WorkItem(Record.model_construct(), data=jpeg(*size)) for size in sizes])
    batches = list(micro_batches([(chunk, row) for row in range(len(sizes))], 4))  # type: ignore[misc]
    assert [[row for _, row in batch.rows] for batch in batches] == [[0, 1, 2], [3], [4, 5, 6], [7, 8]]
    assert [batch.pixels for batch in batches] == [3000, 10_000, 2700, 901]
    assert [one.fits_beside(other) for one, other in itertools.pairwise(batches)] == [False, False, True]
    assert MicroBatch([]).fits_beside(batches[0])
    # what has no bytes, or no header, counts nothing
    chunk = _Chunk([WorkItem(Record.model_construct(), data=data) for data in (None, b"text", b"", jpeg()[:30])])
    assert [batch.pixels for batch in micro_batches([(chunk, row) for row in range(4)], 4)] == [0]  # type: ignore[misc]


class _Chunk:
    """What a row needs of a chunk."""

    def __init__(self, items: list[WorkItem]) -> None:
        self.items = items
