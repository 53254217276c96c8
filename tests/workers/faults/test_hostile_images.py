"""Images that cost much are failed rows with their reason; a worker keeps within its memory, and loses none."""

from __future__ import annotations

import itertools
import os
import signal
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image

from bench.hostile.images import bombs, encoded, jpeg_scans, png
from bench.worker_memory.resident import peak_memory
from strata.core import Chunk, Profile, Record, Status
from strata.images import DecodingPool, ImageError
from strata.images.process import DecodingProcess
from strata.jobs.jobs import Jobs
from tests.fakes import FAKE_PROFILE, FakeMachine, FakeVision, jpeg, read_in_pieces, wait_for_end, write_shard
from workers import micro_batches as module
from workers.items import ItemReader, WorkItem
from workers.micro_batches import MicroBatch, micro_batches

MIB = 2**20
ABOVE_MODELS = 1024 * MIB  # what a worker may take beside its models, with its decoding processes


def described(jobs: Jobs, shard: str, seconds: float = 120, profile: Profile = FAKE_PROFILE) -> list[Record]:
    """The rows of a job with one shard."""
    with FakeMachine(jobs, profile=profile):
        job = jobs.new.create("batch", [shard], profile, "lo")
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
    # a PNG with large texts and a large profile is decoded
    assert {record.failure.error_type for record in records if record.failure} == {"too_costly", "too_many_pixels"}
    print(f"{(found[1] - found[0]) // MIB} MiB above {found[0] // MIB}")
    assert found[1] - found[0] < ABOVE_MODELS


def test_photographs_are_in_memory_at_the_size_that_the_stages_see(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow takes 96 MB for 24 megapixels, and a worker has up to four such images in memory."""
    photograph = Image.linear_gradient("L").resize((6000, 4000)).convert("RGB")
    data, sizes = encoded(photograph, "JPEG"), list[tuple[int, int]]()

    def run(self: FakeVision, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        sizes.extend(image.size for _, image in batch)
        return [record for record, _ in batch]

    monkeypatch.setattr(FakeVision, "run", run)
    with DecodingPool(100_000_000) as decoder:
        monkeypatch.setattr("tests.fakes.DECODER", decoder)
        records = described(jobs, write_shard(tmp_path / "a.tar", [data, jpeg(20)]))
    assert sizes == [(3000, 2000), (20, 24)]
    assert [(record.width, record.height) for record in records] == [(6000, 4000), (20, 24)]


@pytest.mark.parametrize(("number", "times", "failed"), [(signal.SIGKILL, 3, 0), (signal.SIGSEGV, 3, 1)])
def test_decoders_that_end(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, times: int, failed: int
) -> None:
    """One that is killed costs no row, also if it is killed again; one that crashes on an image costs that row."""
    ask, left = DecodingProcess.decode, [number] * times

    def end_and_ask(self: DecodingProcess, files: Sequence[bytes], *how: Any) -> list[Image.Image | ImageError]:
        self._await_start()
        if left and jpeg(23) in files:
            os.kill(self.pid, left.pop())
        return ask(self, files, *how)

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
    # an image that is shrunk where it is decoded counts as what is in memory then: 10,000 / 3² and 2,500 / 2²
    assert [batch.pixels for batch in micro_batches([(chunk, row) for row in range(4)], 4, 1200)] == [2236]  # type: ignore[misc]
    # what has no bytes, or no header, counts nothing
    chunk = _Chunk([WorkItem(Record.model_construct(), data=data) for data in (None, b"text", b"", jpeg()[:30])])
    assert [batch.pixels for batch in micro_batches([(chunk, row) for row in range(4)], 4)] == [0]  # type: ignore[misc]


class Reads:
    """Counts the reads of images, and the most bytes of images that were in memory undecoded after one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = self.most = 0
        self._items: list[weakref.ref[WorkItem]] = []
        whole = ItemReader.read

        def read(reader: ItemReader, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
            found = whole(reader, chunk, items)
            self.count += 1
            self._items += map(weakref.ref, found)
            alive = [item for ref in self._items if (item := ref()) is not None]
            self.most = max(self.most, sum(len(item.data or b"") for item in alive))
            return found

        monkeypatch.setattr(ItemReader, "read", read)


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize("largest", [5000, 60_000])
def test_a_chunk_of_large_files_is_read_in_pieces(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, largest: int
) -> None:
    """At most four pieces are in memory, or one image that is larger than a piece and a piece of the next chunk."""
    piece, sizes = 10_000, [1000, 5000, 2000, largest, 3000, largest, largest, 900] * 8
    # what follows the end of a JPEG is not decoded
    images = [jpeg(20 + row).ljust(size, b"\0") for row, size in enumerate(sizes)]
    shard = tmp_path / "shard.tar"
    if kind == "tar":
        write_shard(shard, images)
    else:
        shard.mkdir()
        for row, data in enumerate(images):
            (shard / f"{row:09d}.jpg").write_bytes(data)
    read_in_pieces(monkeypatch, piece)
    reads = Reads(monkeypatch)
    profile = FAKE_PROFILE.model_copy(update={"chunk_size": 32})
    found = described(jobs, str(shard), profile=profile)
    assert [(one.key, one.description and one.description.text) for one in found] == [
        (f"{row:09d}", f"{20 + row} by 24") for row in range(len(images))
    ]
    assert max(sizes) <= reads.most <= max(4 * piece, piece + max(sizes))
    assert reads.count >= sum(sizes) / max(piece, largest)


def test_a_chunk_of_small_files_is_read_at_once(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    assert len(described(jobs, write_shard(tmp_path / "a.tar", [jpeg()] * 32))) == 32
    assert reads.count == 32 / FAKE_PROFILE.chunk_size


class _Chunk:
    """What a row needs of a chunk."""

    def __init__(self, items: list[WorkItem]) -> None:
        self.items = items
