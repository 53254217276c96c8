"""A fault of the machine never becomes data: stages that break, too little memory, code that fails."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from models.items import PROBE_IMAGE, CaptionRequest
from models.observed import Observed
from models.pipeline import VisionPipeline
from models.writers import CaptionerStage
from strata.core import Profile, Record, StageSettings, Status
from strata.core.schemas import JobStatus, JobView, Priority, Waiting
from strata.errors import ProcessBroken, StrataError
from strata.images import decode
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.queue import keys
from tests.fakes import DECODER, FakeLlm, join_workers, jpeg, write_shard
from tests.raw_redis import raw_redis
from workers.engines.queue import QueueClaims
from workers.groups import LlmGroup, PipelineCache, VisionGroup
from workers.indexer import Indexer
from workers.leases import Leases
from workers.profile_versions import ProfileVersions
from workers.runner import Runner

MICRO_BATCH = 8
Trouble = Callable[[Sequence[int], int], BaseException | None]
STICKY = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def profile_of(chunk_size: int) -> Profile:
    names = ("captioner", "composer")
    stages = {name: StageSettings(backend="fake", model="builtin:fake", revision="1", batch_size=16) for name in names}
    return Profile(name="fake", chunk_size=chunk_size, micro_batch=MICRO_BATCH, stages=stages)


class Captioner(CaptionerStage):
    """Says how wide an image is. trouble: what goes wrong, by the widths of a batch and the number of the call."""

    name: ClassVar[str] = "captioner"

    def __init__(self, settings: StageSettings, trouble: Trouble, computed: Counter[int]) -> None:
        super().__init__(settings)
        self.trouble, self.computed, self.calls = trouble, computed, 0

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[CaptionRequest]) -> list[str]:
        self.calls += 1
        widths = [request.image.width for request in batch]
        error = self.trouble(widths, self.calls)
        if error is not None:
            raise error
        self.computed.update(widths)
        return [f"{width} pixels wide" for width in widths]


class Place:
    """A scheduler, an indexer and a composer that work, and `vision` processes one after the other.

    A process ends when its runner finds it broken, and the next one starts at once. ends: the errors, in order;
    computed: how often each image was computed, by its width.
    """

    def __init__(self, jobs: Jobs, chunk_size: int, trouble: Trouble = lambda widths, call: None) -> None:
        self.jobs, self.profile, self.trouble = jobs, profile_of(chunk_size), trouble
        self.ends: list[StrataError] = []
        self.computed = Counter[int]()
        self.build: Callable[[Profile], Any] = self._pipeline
        self.stop, self.process_stop = threading.Event(), threading.Event()
        profiles = ProfileVersions(lambda _: self.profile)
        leases = Leases(jobs.queue, "other", ["index", "llm"], 5.0)
        llm = LlmGroup(jobs.store, PipelineCache(FakeLlm, profiles), DECODER)
        scheduler = Scheduler(jobs.queue, jobs.store, high_water=100)
        loops: list[Callable[[threading.Event], None]] = [
            Indexer(jobs, leases).run,
            Runner(llm, QueueClaims("llm", jobs, leases, profiles), MICRO_BATCH).run,
            lambda stop: scheduler.run(stop, interval=0.02),
        ]
        self.threads = [threading.Thread(target=loop, args=(self.stop,), daemon=True) for loop in loops]
        self.threads.append(threading.Thread(target=self._processes, daemon=True))

    def _pipeline(self, profile: Profile) -> VisionPipeline:
        stage = Captioner(profile.stages["captioner"], self.trouble, self.computed)
        return VisionPipeline(profile, {"captioner": stage})

    def _processes(self) -> None:
        while not self.stop.is_set():
            self.process_stop = threading.Event()
            profiles = ProfileVersions(lambda _: self.profile)
            with Leases(self.jobs.queue, f"vision-{len(self.ends)}", ["vision"], 5.0) as leases:
                cache = PipelineCache(lambda profile: self.build(profile), profiles)
                group = VisionGroup(self.jobs.store, cache, DECODER)
                try:
                    Runner(group, QueueClaims(group.name, self.jobs, leases, profiles), MICRO_BATCH).run(
                        self.process_stop
                    )
                except ProcessBroken as error:
                    self.ends.append(error)

    def __enter__(self) -> Place:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        join_workers(self.jobs.queue, self.threads, lambda: self.process_stop.set())

    def submit(self, shard: str, priority: Priority = "lo") -> str:
        return self.jobs.new.create("batch", [shard], self.profile, priority).id

    def wait(self, job_id: str) -> JobView:
        """The job at its end. Raises TimeoutError."""
        deadline = time.monotonic() + 120
        while not (view := self.jobs.view(job_id)).status.final:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{view.model_dump_json()} {self.ends[-3:]}")
            time.sleep(0.02)
        return view

    def waiting(self, attempts: int = 1) -> Waiting:
        """What the work waits for, once it has been tried so often. Raises TimeoutError."""
        deadline = time.monotonic() + 120
        while True:
            found = self.jobs.queue.waits.find({"vision": self.profile.fingerprint("vision")})
            if found is not None and found.attempts >= attempts:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(self.ends[-3:])
            time.sleep(0.02)

    def rows(self, job_id: str) -> list[Record]:
        """All rows of a job's final parts."""
        request = self.jobs.request(job_id)
        chunks = [chunk for one in self.jobs.summaries(job_id).values() for chunk in request.chunks(one, "llm")]
        return [record for chunk in chunks for record in self.jobs.store.read_records(chunk)]

    def nothing_is_left(self) -> bool:
        """Whether neither notes nor saved rows are left of the chunks."""
        return not raw_redis(self.jobs.queue).keys(keys.in_flight("*")) and not self.jobs.store.find("progress")


def shard_of(folder: Path, widths: Sequence[int]) -> str:
    return write_shard(folder / "a.tar", [jpeg(width, 8) for width in widths])


@pytest.mark.parametrize("chunk_size", [4, 20, 64, 120])
@pytest.mark.parametrize("error", [STICKY, RuntimeError("out of order"), SystemExit(3)], ids=["cuda", "other", "exit"])
def test_a_stage_that_breaks_at_its_sixth_call_in_every_process_fails_no_image(
    jobs: Jobs, tmp_path: Path, chunk_size: int, error: BaseException
) -> None:
    widths = range(100, 220)
    with Place(jobs, chunk_size, lambda widths, call: error if call >= 6 else None) as place:
        job = place.submit(shard_of(tmp_path, widths))
        view = place.wait(job)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (len(widths), 0)
    assert [row.caption and row.caption.text for row in place.rows(job)] == [f"{width} pixels wide" for width in widths]
    assert place.ends and all("captioner is broken" in str(end) for end in place.ends)
    # what was computed before a process ended is not computed again
    assert {width: place.computed[width] for width in widths} == dict.fromkeys(widths, 1)
    assert place.nothing_is_left()


def test_an_image_that_breaks_every_process_is_poison_and_its_neighbours_are_whole(jobs: Jobs, tmp_path: Path) -> None:
    with Place(jobs, 64, lambda widths, call: STICKY if 150 in widths else None) as place:
        job = place.submit(shard_of(tmp_path, range(100, 200)))
        view = place.wait(job)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (99, 1)
    assert len(place.ends) == 3  # with its neighbours, then twice alone
    (failure,) = [row.failure for row in place.rows(job) if row.failure]
    assert (failure.stage, failure.error_type, failure.transient) == ("captioner", "poison", False)
    assert "illegal memory access" in failure.detail
    assert place.computed[149] == place.computed[151] == 1 and place.nothing_is_left()


def test_deadly_images_in_a_row_are_told_from_a_machine_that_breaks(jobs: Jobs, tmp_path: Path) -> None:
    deadly = set(range(120, 132))
    with Place(jobs, 100, lambda widths, call: STICKY if deadly & set(widths) else None) as place:
        job = place.submit(shard_of(tmp_path, range(100, 200)))
        view = place.wait(job)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (88, 12)
    failures = [row.failure for row in place.rows(job) if row.failure]
    assert {(one.error_type, one.transient) for one in failures} == {("poison", False)}
    assert all(place.computed[width] == 1 for width in range(100, 200) if width not in deadly)


@pytest.mark.parametrize("seed", range(4))
def test_machines_that_break_at_random_and_deadly_images_are_told_apart(jobs: Jobs, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    deadly = set(chance.sample(range(100, 300), 5))
    place = Place(jobs, chance.choice([7, 50, 200]))

    def trouble(widths: Sequence[int], call: int) -> BaseException | None:
        # a machine that breaks at its first image again and again is as bad as the image
        breaks = call > 3 and chance.random() < 0.1
        return STICKY if breaks or deadly & set(widths) else ValueError("bad") if 111 in widths else None

    place.trouble = trouble
    with place:
        job = place.submit(shard_of(tmp_path, range(100, 300)))
        view = place.wait(job)
    failed = {100 + int(row.key): row.failure.error_type for row in place.rows(job) if row.failure}
    assert failed == dict.fromkeys(deadly, "poison") | ({111: "ValueError"} if 111 not in deadly else {})
    assert view.request_counts.failed == len(failed) and place.nothing_is_left()


def test_an_image_that_memory_does_not_hold_twice_is_a_transient_failure(jobs: Jobs, tmp_path: Path) -> None:
    with Place(jobs, 64, lambda widths, call: NO_MEMORY if 150 in widths else None) as place:
        job = place.submit(shard_of(tmp_path, range(100, 200)))
        view = place.wait(job)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (99, 1)
    assert len(place.ends) == 2  # alone in two processes: the first one finds out which of its batch it is
    (failure,) = [row.failure for row in place.rows(job) if row.failure]
    assert (failure.stage, failure.error_type, failure.transient) == ("captioner", "OutOfMemoryError", True)


def test_memory_that_lacks_in_one_process_only_fails_no_image(jobs: Jobs, tmp_path: Path) -> None:
    place = Place(jobs, 64)
    place.trouble = lambda widths, call: MemoryError() if 150 in widths and not place.ends else None
    with place:
        view = place.wait(place.submit(shard_of(tmp_path, range(100, 200))))
    assert view.request_counts.succeeded == 100 and len(place.ends) == 1


def test_a_machine_that_breaks_on_every_image_blames_none_and_goes_on_when_it_is_mended(
    jobs: Jobs, tmp_path: Path
) -> None:
    place = Place(jobs, 64)
    mended = threading.Event()

    def breaks(widths: Sequence[int], call: int) -> BaseException | None:
        return None if mended.is_set() or widths == [PROBE_IMAGE.width] else STICKY

    place.trouble = breaks
    with place:
        job = place.submit(shard_of(tmp_path, range(100, 200)))
        reason = place.waiting().reason
        assert "each with one image in flight" in reason and "illegal memory access" in reason
        mended.set()
        view = place.wait(job)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (100, 0)
    assert view.status is JobStatus.COMPLETED


def test_single_images_are_suspects_too_and_share_no_blame(jobs: Jobs, tmp_path: Path) -> None:
    with Place(jobs, 1, lambda widths, call: STICKY if 150 in widths else None) as place:
        shards = [write_shard(tmp_path / f"{width}.tar", [jpeg(width, 8)], first=width) for width in range(148, 153)]
        views = [place.wait(job) for job in [place.submit(shard, "hi") for shard in shards]]
    assert [view.request_counts.failed for view in views] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("error", [KeyError("weights"), TypeError("None"), ImportError("flash"), OSError("disk")])
def test_an_error_in_building_a_pipeline_writes_no_part_and_the_job_waits(
    jobs: Jobs, tmp_path: Path, error: Exception
) -> None:
    place = Place(jobs, 20)

    class Unloadable(Captioner):
        def load(self) -> None:
            raise error

    def build(profile: Profile) -> VisionPipeline:
        stage = Unloadable(profile.stages["captioner"], place.trouble, place.computed)
        return VisionPipeline(profile, {"captioner": stage})

    place.build = build
    with place:
        job = place.submit(shard_of(tmp_path, range(100, 140)))
        waiting = place.waiting(attempts=2)
        assert waiting.stage == "captioner"
        assert "cannot be loaded" in waiting.reason and type(error).__name__ in waiting.reason
        assert not jobs.store.find("parts", "vision") and not place.ends
        place.build = place._pipeline
        view = place.wait(job)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (40, 0)


def test_a_machine_that_is_broken_before_it_computes_blames_no_image(jobs: Jobs, tmp_path: Path) -> None:
    place = Place(jobs, 1)
    place.trouble = lambda widths, call: STICKY if len(place.ends) < 5 else None  # each time at the probe
    with place:
        view = place.wait(place.submit(shard_of(tmp_path, [100])))
    assert view.request_counts.succeeded == 1 and len(place.ends) == 5


def broken_at(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[int], bool]) -> None:
    """Let the code between the stages fail on images of some widths."""
    finished = Observed.finished

    def fail(self: Observed, settings: Any) -> Record:
        if is_bad(self.image.width):
            raise ZeroDivisionError("evidence")
        return finished(self, settings)

    monkeypatch.setattr(Observed, "finished", fail)


def test_our_own_code_that_fails_on_one_image_fails_that_image(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_at(monkeypatch, lambda width: width in (105, 139))
    with Place(jobs, 20) as place:
        job = place.submit(shard_of(tmp_path, range(100, 140)))
        view = place.wait(job)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (38, 2)
    failures = [row.failure for row in place.rows(job) if row.failure]
    assert {(one.stage, one.error_type) for one in failures} == {("vision", "ZeroDivisionError")}


def test_our_own_code_that_fails_on_a_lone_image_is_tested_with_another(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_at(monkeypatch, lambda width: width != PROBE_IMAGE.width)
    with Place(jobs, 1) as place:
        job = place.submit(shard_of(tmp_path, [100]))
        assert place.wait(job).request_counts.failed == 1
    assert [row.status for row in place.rows(job)] == [Status.FAILED]


def test_our_own_code_that_fails_on_every_image_fails_none(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = threading.Event()
    broken.set()
    broken_at(monkeypatch, lambda width: broken.is_set())
    with Place(jobs, 20) as place:
        job = place.submit(shard_of(tmp_path, range(100, 140)))
        waiting = place.waiting()
        assert waiting.stage == "vision" and "ZeroDivisionError: evidence; a test image fails too" in waiting.reason
        assert not jobs.store.find("parts", "vision")
        broken.clear()
        view = place.wait(job)
    assert (view.request_counts.succeeded, view.request_counts.failed) == (40, 0)


@pytest.mark.parametrize("all_fail", [False, True])
def test_a_decoder_that_fails_unexpectedly(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_fail: bool
) -> None:
    broken = threading.Event()
    broken.set()

    def fail(files: Sequence[bytes], *_: object) -> list[Any]:
        images = [decode(data, 1_000_000) for data in files]
        if broken.is_set() and (all_fail or any(image.width == 105 for image in images)):
            raise KeyError("marker")
        return images

    monkeypatch.setattr(DECODER, "decode_all", fail)
    with Place(jobs, 20) as place:
        job = place.submit(shard_of(tmp_path, range(100, 140)))
        if all_fail:
            assert place.waiting().stage == "decode"
            broken.clear()
        view = place.wait(job)
    expected = (40, 0) if all_fail else (39, 1)
    assert (view.request_counts.succeeded, view.request_counts.failed) == expected
    if not all_fail:
        assert [row.failure.error_type for row in place.rows(job) if row.failure] == ["KeyError"]


def test_a_decoder_without_memory_is_the_machine_s_fault(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(jobs, 20)

    def fail(files: Sequence[bytes], *_: object) -> list[Any]:
        images = [decode(data, 1_000_000) for data in files]
        if any(image.width == 105 for image in images) and not place.ends:
            raise MemoryError
        return images

    monkeypatch.setattr(DECODER, "decode_all", fail)
    with place:
        view = place.wait(place.submit(shard_of(tmp_path, range(100, 140))))
    assert view.request_counts.succeeded == 40 and len(place.ends) == 1


def test_a_part_that_cannot_be_written_for_an_unknown_reason_waits(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, broken = jobs.store.write_records, threading.Event()
    broken.set()

    def fail(*arguments: Any) -> Any:
        if broken.is_set():
            raise TypeError("schema")
        return write(*arguments)

    monkeypatch.setattr(jobs.store, "write_records", fail)
    with Place(jobs, 20) as place:
        job = place.submit(shard_of(tmp_path, range(100, 140)))
        assert "TypeError: schema" in place.waiting().reason
        broken.clear()
        assert place.wait(job).request_counts.succeeded == 40
