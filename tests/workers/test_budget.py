"""Real workers and a real chat server that is killed, misbehaves, and costs: no image lost, budget kept."""

from __future__ import annotations

import io
import json
import signal
import socket
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bench.processes import Fleet, Process
from models.prompts import FOLDER
from models.weights.hashes import sha256_of
from strata.client.client import Client
from strata.core.chunks import Chunk
from strata.core.records import Record, Status
from strata.core.schemas import Budget, JobStatus, JobView
from strata.store.part_format import Footer
from strata.store.store import Store
from tests.fakes import jpeg, write_shard
from tests.servers.chat_server import CURSED
from tests.workers.programs.machines import ForkedProcess

PROFILE = """
chunk_size = 16
micro_batch = 8
[stages.captioner]
backend = "fake"
model = "builtin:fake"
revision = "1"
[stages.composer]
backend = "openai"
model = "server:http://127.0.0.1:{port}/v1"
revision = "1"
[stages.composer.parameters]
served_model = "tiny"
prompt = "full"
prompt_sha256 = "{sha256}"
max_new_tokens = 12
concurrency = 4
timeout = 60
price_per_million_prompt_tokens = 1.0
price_per_million_completion_tokens = 4.0
"""
SHARDS, IMAGES = 3, 32
TIMEOUT = 400.0


@dataclass
class Place:
    """Everything that runs, and what the server says that it has spent."""

    fleet: Fleet
    client: Client
    server: Process
    spent_file: Path
    shards: list[str]

    def spent(self) -> tuple[int, int]:
        """Tokens read and written for answers that were generated, sent or not."""
        lines = self.spent_file.read_text().split() if self.spent_file.exists() else []
        return sum(map(int, lines[::2])), sum(map(int, lines[1::2]))

    def wait(self, job_id: str, until: Callable[[JobView], bool]) -> JobView:
        """The job once something is true of it; whatever ended is started again meanwhile."""
        deadline = time.monotonic() + TIMEOUT
        while not until(view := self.client.job(job_id)):
            assert time.monotonic() < deadline, view.model_dump_json()
            self.fleet.look_after()
            self.server.look_after()
            time.sleep(0.05)
        return view

    def end(self, job_id: str) -> JobView:
        """The job at its end; its counts add up."""
        view = self.wait(job_id, lambda view: view.status.final)
        counts = view.request_counts
        assert counts.total == counts.succeeded + counts.filtered + counts.failed + counts.cancelled
        return view


class ForkedFleet(Fleet):
    """A fleet whose workers are forks of a process that has imported what they need, as those of `strata serve`."""

    def start_worker(self, arguments: Sequence[str], checkout: Path) -> Process:
        """Start one more worker."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        process = ForkedProcess(self.worker, arguments, self.environment, log)
        self.workers.append(process)
        return process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("budget")
    shards = folder / "shards"
    shards.mkdir()
    paths = [
        write_shard(shards / f"{n:05d}.tar", [jpeg(20 + n * IMAGES + i) for i in range(IMAGES)], n * IMAGES)
        for n in range(SHARDS)
    ]
    port, spent = free_port(), folder / "spent.txt"
    profiles = folder / "profiles"
    profiles.mkdir()
    text = PROFILE.format(port=port, sha256=sha256_of(FOLDER / "full.toml"))
    (profiles / "chat.toml").write_text(text)
    (profiles / "again.toml").write_text(text.replace('revision = "1"', 'revision = "2"'))
    command = ["-m", "tests.servers.chat_server", "--port", str(port), "--spent", str(spent)]
    server = Process([*command, "--trouble", "0.25"], {}, folder / "server.log")
    settings = {
        "STRATA_PROFILES_DIR": str(profiles),
        "STRATA_PROFILE": "chat",
        "STRATA_LEASE_SECONDS": "4",
    }
    workers = [["--groups", "index,vision"], ["--groups", "llm"], ["--groups", "llm"]]
    try:
        program = "tests.workers.programs.chat_worker"
        with ForkedFleet(folder / "fleet", str(shards), workers, settings, program) as fleet:
            fleet.wait_ready(TIMEOUT)
            wait_for_server(port)
            with Client(fleet.url) as client:
                yield Place(fleet, client, server, spent, paths)
    finally:
        server.end()


def wait_for_server(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=60)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def rows_of(place: Place, job_id: str) -> list[Record]:
    return list(place.client.results(job_id))


def test_server_killed_and_misbehaving_loses_no_image_and_keeps_the_budget(place: Place) -> None:
    extra = [jpeg(500 + n) for n in range(8)]
    shard = str(Path(place.shards[0]).parent / "cursed.tar")
    write_cursed(Path(shard), extra)
    budget = Budget(tokens=1_000_000, money=2.0)
    job = place.client.submit([*place.shards, shard], "chat", budget=budget)
    for done in (16, 48):
        place.wait(job.id, lambda view, done=done: view.groups["llm"].images >= done)  # type: ignore[misc]
        place.server.send(signal.SIGKILL)
    view = place.end(job.id)
    assert view.status is JobStatus.COMPLETED and len(place.server.deaths) >= 2
    rows = rows_of(place, job.id)
    assert Counter(row.key for row in rows) == Counter(
        [f"{n:09d}" for n in range(SHARDS * IMAGES)] + [f"cursed{n}" for n in range(8)]
    )
    for row in rows:
        if row.key in ("cursed3", "cursed4"):
            assert row.status is Status.FAILED and row.failure is not None
            assert (row.failure.stage, row.failure.error_type) == ("composer", "NoAnswer")
            # its last try may have met the end of the server
            garbage = "is not a chat completion: '<html>it works!</html>'" in row.failure.detail
            assert garbage or row.failure.transient, row.failure
        else:
            assert row.status is Status.SUCCEEDED and row.description is not None
            assert row.description.text.startswith("Seen: ")
        assert row.usage["composer"].requests >= 1
    read, written = place.spent()
    usage = view.usage
    assert usage is not None and usage.money is not None
    # what a worker paid for answers that another worker's attempt at the chunk did not use stays reserved
    assert read + written <= usage.prompt_tokens + usage.completion_tokens + usage.reserved_tokens
    assert usage.prompt_tokens + usage.completion_tokens <= 1_000_000 and usage.money <= 2.0
    assert usage.prompt_tokens == sum(row.usage["composer"].prompt_tokens for row in rows)
    assert usage.money == pytest.approx((usage.prompt_tokens + 4 * usage.completion_tokens) / 1e6)
    bills = [footer.bill for footer in footers(place, job.id)]
    assert usage.requests >= sum(bill.usage.requests for bill in bills if bill is not None)


def write_cursed(path: Path, images: list[bytes]) -> None:
    """A shard whose fourth and fifth image come with a word that the server answers in garbage."""
    with tarfile.open(path, "w") as tar:
        for n, image in enumerate(images):
            text = f"a {CURSED} thing {n}" if n in (3, 4) else f"alt {n}"
            for suffix, data in (("jpg", image), ("txt", text.encode())):
                member = tarfile.TarInfo(f"cursed{n}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def footers(place: Place, job_id: str) -> list[Footer]:
    """Of all parts that a job's composer settings have."""
    store = Store(place.fleet.store)
    request = json.loads(store.read_job_file(job_id, "request") or b"")
    folder = Path(store.path("parts", "llm", request["fingerprints"]["llm"]))
    chunks = [
        Chunk("llm", "chat", request["fingerprints"]["llm"], "", path.parent.name, int(path.stem))
        for path in folder.rglob("*.parquet")
    ]
    return [store.read_footer(chunk) for chunk in chunks]


def test_a_job_ends_when_its_budget_is_spent_and_a_bigger_one_goes_on(place: Place) -> None:
    before = sum(place.spent())
    # a chunk of 16 uses some 25,000; with all tries of a micro-batch it reserves up to 121,000
    tokens = 180_000
    job = place.client.submit(place.shards, "again", budget=Budget(tokens=tokens))
    place.wait(job.id, lambda view: view.groups["llm"].images >= 16)
    place.fleet.workers[1].send(signal.SIGKILL)  # what it had reserved stays reserved
    view = place.end(job.id)
    assert view.status is JobStatus.FAILED
    assert view.error is not None and view.error.startswith("budget spent: the next chunk may cost up to ")
    counts = view.request_counts
    assert counts.total == SHARDS * IMAGES and counts.succeeded > 0 and counts.cancelled > 0
    assert sum(place.spent()) - before <= tokens
    usage = view.usage
    assert usage is not None and usage.prompt_tokens + usage.completion_tokens + usage.reserved_tokens <= tokens
    assert len(rows_of(place, job.id)) == counts.succeeded + counts.failed
    more = place.client.submit(place.shards, "again", budget=Budget(tokens=1_000_000))
    end = place.end(more.id)
    assert end.status is JobStatus.COMPLETED
    assert end.groups["llm"].reused >= counts.succeeded + counts.failed
    assert end.request_counts.succeeded + end.request_counts.failed == SHARDS * IMAGES
    paid = [footer.bill.job for footer in footers(place, more.id) if footer.bill]
    assert set(paid) == {job.id, more.id}
