"""One `llm` worker, two profiles: where the server of one refuses, hangs or is away, the other's images go on."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import models.chat.server as chat_server
import strata.queue.waits as waits_module
import workers.engines.queue as claims_module
from bench.fakes.scripted_server import Reply, good, scripted
from models.pipeline import LlmPipeline
from models.prompts import FOLDER
from models.weights.hashes import sha256_of
from strata.core.profiles import Profile, load_profile
from strata.queue.job_events import FIRST_EVENT
from strata.queue.queue import Queue
from tests.fakes import DECODER, FakeLlm, FakeVision, join_workers, jpeg, write_shard
from tests.secrets import SECRET
from tests.service import Service, running_service
from workers.engines.queue import QueueClaims
from workers.groups import LlmGroup, PipelineCache, VisionGroup
from workers.indexer import Indexer
from workers.leases import Leases
from workers.profile_versions import ProfileVersions
from workers.runner import Runner

SECONDS = 60.0
KEY = f"sk-{SECRET}"
PROFILE = """
chunk_size = 4
micro_batch = 2
[stages.captioner]
backend = "fake"
model = "builtin:fake"
revision = "1"
[stages.composer]
backend = "openai"
model = "server:{url}"
revision = "{name}"
[stages.composer.parameters]
served_model = "m"
prompt = "full"
prompt_sha256 = "{sha256}"
api_key_variable = "PLANTED_KEY"
timeout = {timeout}
"""


def write_chat_profile(folder: Path, name: str, url: str, timeout: float = 120) -> None:
    text = PROFILE.format(url=url, name=name, sha256=sha256_of(FOLDER / "full.toml"), timeout=timeout)
    (folder / f"{name}.toml").write_text(text)


def llm_pipeline(profile: Profile) -> Any:
    return FakeLlm(profile) if profile.name == "fake" else LlmPipeline(profile)


@contextmanager
def workers_of(service: Service, lease_seconds: float = 2.0) -> Iterator[threading.Event]:
    """One process' worth of workers: a thread for each group. Yields what stops them."""
    jobs, stop = service.jobs, threading.Event()
    profiles = ProfileVersions(functools.partial(load_profile, folder=service.settings.profiles_dir))
    with Leases(jobs.queue, "w", ["index", "vision", "llm"], lease_seconds) as leases:
        vision = VisionGroup(jobs.store, PipelineCache(FakeVision, profiles), DECODER)
        llm = LlmGroup(jobs.store, PipelineCache(llm_pipeline, profiles), DECODER)
        loops = [Runner(group, QueueClaims(group.name, jobs, leases, profiles), 2).run for group in (vision, llm)]
        threads = [threading.Thread(target=loop, args=(stop,)) for loop in [*loops, Indexer(jobs, leases).run]]
        for thread in threads:
            thread.start()
        try:
            yield stop
        finally:
            stop.set()
            join_workers(jobs.queue, threads)


@pytest.fixture
def service(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    with running_service(queue, tmp_path, workers=False) as running:
        yield running


def submit(service: Service, profile: str, images: int = 12, **more: Any) -> str:
    shards = Path(service.settings.shard_roots[0])
    shard = write_shard(shards / f"{profile}.tar", [jpeg(20 + n) for n in range(images)])
    answer = service.submit(shard, profile=profile, **more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def wait_until(service: Service, job_id: str, is_true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job, as the service shows it, once something is true of it."""
    deadline = time.monotonic() + SECONDS
    while True:
        view: dict[str, Any] = service.client.get(f"/v1/jobs/{job_id}").json()
        if is_true(view):
            return view
        assert time.monotonic() < deadline, view
        time.sleep(0.02)


def seconds_of_image(service: Service, colour: str) -> float:
    """How long a single image of the profile `fake` takes."""
    started = time.monotonic()
    assert service.caption(jpeg(colour=colour), profile="fake").status_code == 200
    return time.monotonic() - started


REFUSALS = {
    "away": None,
    "wrong key": Reply("no such key", 401),
    "no model": Reply("no such model", 404),
    "bad request": Reply("max_tokens is too large", 400),
    "busy": Reply("later", 429, {"Retry-After": "600"}),
    "broken": Reply("out of memory", 500),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_single_images_of_another_profile_do_not_wait(
    service: Service, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "MAX_REFUSALS", 10_000)
    reply = REFUSALS[name]
    with scripted(lambda body: reply or good("x")) as server:
        url = "http://127.0.0.1:9/v1" if reply is None else server.url
        write_chat_profile(service.settings.profiles_dir, "away", url)
        with workers_of(service):
            usual = seconds_of_image(service, "red")
            job_id = submit(service, "away")
            view = wait_until(service, job_id, lambda view: view["waiting"] is not None)
            assert view["waiting"]["stage"] == "composer" and view["status"] == "in_progress"
            assert name == "away" or reply is None or reply.body in view["waiting"]["reason"] or reply.status == 429
            for colour in ("blue", "lime", "yellow", "white"):
                assert seconds_of_image(service, colour) < usual + 2
            # and a whole job of another profile ends
            other = submit(service, "fake")
            assert wait_until(service, other, lambda view: view["status"] == "completed")["waiting"] is None
            wait_until(service, job_id, lambda view: view["waiting"]["attempts"] >= (1 if name == "busy" else 3))
            service.client.post(f"/v1/jobs/{job_id}/cancel")
            assert wait_until(service, job_id, lambda view: view["status"] == "cancelled")["waiting"] is None


def test_single_images_do_not_wait_for_a_server_that_hangs(service: Service) -> None:
    free, asked = threading.Event(), threading.Event()

    def hang(body: dict[str, Any]) -> Reply:
        asked.set()
        server.lock.release()
        try:
            free.wait(SECONDS)
        finally:
            server.lock.acquire()
        return good("A red thing.")

    with scripted(hang) as server:
        write_chat_profile(service.settings.profiles_dir, "away", server.url, timeout=SECONDS)
        with workers_of(service):
            usual = seconds_of_image(service, "red")
            job_id = submit(service, "away")
            assert asked.wait(SECONDS)
            # an image of the profile whose server hangs waits, and keeps nobody else waiting
            own = service.caption(jpeg(colour="black"), wait=None, profile="away").json()["id"]
            for colour in ("blue", "lime", "yellow"):
                assert seconds_of_image(service, colour) < usual + 2
            assert not service.client.get(f"/v1/jobs/{own}").json()["request_counts"]["succeeded"]
            free.set()
            for one, images in ((job_id, 12), (own, 1)):
                view = wait_until(service, one, lambda view: view["status"] == "completed")
                assert view["request_counts"]["succeeded"] == images


def test_all_is_computed_once_the_server_works_and_answers_are_paid_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits_module, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(chat_server, "FIRST_PAUSE", 0.05)
    answered, down = [0], [True]

    def answer(body: dict[str, Any]) -> Reply:
        # five answers, then the server is broken for a while
        if down and answered[0] >= 5:
            return Reply("out of memory", 500)
        answered[0] += 1
        return good(f"A red thing {answered[0]}.", read=5, written=3)

    with scripted(answer) as server:
        write_chat_profile(service.settings.profiles_dir, "away", server.url)
        with workers_of(service):
            job_id = submit(service, "away", budget={"tokens": 1_000_000})
            wait_until(service, job_id, lambda view: view["waiting"] and view["waiting"]["attempts"] >= 3)
            down.clear()
            view = wait_until(service, job_id, lambda view: view["status"] == "completed")
    assert view["request_counts"]["succeeded"] == 12 and view["waiting"] is None
    # every answer was used: the rows that were computed before the trouble are not computed again
    probes = len(server.bodies) - len(server.asked)
    usage = view["usage"]
    assert answered[0] <= 12 + probes and usage["reserved_tokens"] == 0
    assert usage["prompt_tokens"] == 5 * answered[0] and usage["completion_tokens"] == 3 * answered[0]
    events = [fields["event"] for _, fields in service.jobs.queue.job_events.after(job_id, FIRST_EVENT)]
    assert "waiting" in events


@pytest.mark.parametrize("status", [401, 404])
def test_a_server_that_refuses_everything_fails_the_job_with_its_words(
    service: Service, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waits_module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(claims_module, "MAX_REFUSALS", 4)
    with scripted(lambda body: Reply(f"Incorrect API key provided: {KEY}. Sorry!", status)) as server:
        write_chat_profile(service.settings.profiles_dir, "away", server.url)
        with workers_of(service):
            jobs = [submit(service, "away"), service.caption(jpeg(), wait=None, profile="away").json()["id"]]
            views = [wait_until(service, one, lambda view: view["status"] == "failed") for one in jobs]
    for view in views:
        assert f"status {status}: Incorrect API key provided: ***. Sorry!" in view["error"]
        assert view["error"].startswith("composer: ") and view["waiting"] is None
    assert KEY not in caplog.text and KEY not in str(views)
    assert len(server.bodies) >= 4


def test_a_refusal_that_passes_fails_no_job(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits_module, "FIRST_PAUSE", 0.05)
    replies = [Reply("no such key", 401)] * 3

    def answer(body: dict[str, Any]) -> Reply:
        return replies.pop() if replies else good("A red thing.")

    with scripted(answer) as server:
        write_chat_profile(service.settings.profiles_dir, "away", server.url)
        with workers_of(service):
            job_id = submit(service, "away")
            view = wait_until(service, job_id, lambda view: view["status"] == "completed")
    assert view["request_counts"]["succeeded"] == 12
