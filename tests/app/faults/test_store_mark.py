"""The store's mark: a store that is away for a moment is waited for, and Redis belongs to one store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import server
from strata.cli import exits
from strata.core.chunks import Chunk
from strata.core.schemas import JobStatus
from strata.core.settings import Settings
from strata.errors import DamagedFile
from strata.jobs.pairing import OtherStore, pair
from strata.jobs.scheduler import Scheduler
from strata.queue.queue import Queue
from strata.shards.image_reader import ImageReader
from strata.store.filesystem import MARK
from strata.store.index_rows import located_rows
from strata.store.store import Store
from tests.app.test_serve import Refused, refused
from tests.cli.test_cli import code_of
from tests.fakes import FakeMachine, jpeg, wait_for, wait_for_end, write_shard
from tests.raw_redis import raw_redis
from tests.service import Service, problem, running_service

__all__ = ["refused"]  # a fixture


def gone(folder: Path) -> None:
    """The folder of the store does not exist."""


def unmounted(folder: Path) -> None:
    """The folder on which the store was mounted is there, and it is empty."""
    folder.mkdir()


def another(folder: Path) -> None:
    """Another store is mounted."""
    Store(str(folder)).make_mark()


@pytest.fixture
def described(queue: Queue, tmp_path: Path) -> Any:
    """A service whose store has a mark and a job that has ended."""
    with running_service(queue, tmp_path) as service:
        pair(queue, service.jobs.store)
        assert service.caption(jpeg(10)).status_code == 200
        wait_for_end(service.jobs, service.jobs.store.job_ids()[0])
        wait_for(lambda: queue.job_list.is_complete() and not queue.job_states.active())
        yield service


@pytest.mark.parametrize("instead", [gone, unmounted, another])
def test_a_store_that_is_away_is_unavailable_and_nothing_is_forgotten(
    described: Service, instead: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, folder = described, Path(described.settings.store_uri)
    (job,) = service.jobs.store.job_ids()
    shard = write_shard(tmp_path / "shards" / "0.tar", [jpeg(20)])
    answers = [service.client.get("/v1/jobs").json(), service.client.get(f"/v1/jobs/{job}").json()]
    away = folder.rename(tmp_path / "away")
    instead(folder)
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr("app.store_probe.PROBE_SECONDS", 0.0)
    service.client.app.state.services.store_probe._until = 0.0  # type: ignore[attr-defined]
    for _ in range(2):
        for url in ("/v1/jobs", f"/v1/jobs/{job}", f"/v1/jobs/{job}/results"):
            problem(service.client.get(url), 503, "storage-unavailable")
        problem(service.client.delete(f"/v1/jobs/{job}"), 503, "storage-unavailable")
        problem(service.caption(jpeg(11), wait=None), 503, "storage-unavailable")
        problem(service.submit(str(shard)), 503, "storage-unavailable")
        assert MARK in problem(service.client.get("/readyz"), 503, "not-ready")["detail"]
    # nothing was accepted, and nothing was written into the folder
    assert service.jobs.queue.job_states.active() == set()
    assert sorted(folder.rglob("*")) == before
    # the store is back: everything is as it was
    shutil.rmtree(folder, ignore_errors=True)
    away.rename(folder)
    assert [service.client.get("/v1/jobs").json(), service.client.get(f"/v1/jobs/{job}").json()] == answers
    assert service.caption(jpeg(11)).status_code == 200


@pytest.mark.parametrize("instead", [gone, unmounted])
def test_an_image_waits_for_a_store_that_is_away(
    instead: Callable[[Path], None], queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        pair(queue, service.jobs.store)
        job = service.caption(jpeg(10), wait=None).json()["id"]
        folder = Path(service.settings.store_uri)
        away = folder.rename(tmp_path / "away")
        instead(folder)
        with caplog.at_level(logging.WARNING), FakeMachine(service.jobs):
            wait_for(lambda: any(one.name == "workers.retry" and MARK in one.getMessage() for one in caplog.records))
            assert queue.job_states.status(job) is JobStatus.IN_PROGRESS
            shutil.rmtree(folder, ignore_errors=True)
            away.rename(folder)
            wait_for_end(service.jobs, job, 60)
            view = service.jobs.view(job)
            assert view.status is JobStatus.COMPLETED and view.request_counts.succeeded == 1


def test_an_upload_that_is_away_with_its_store_is_no_failed_image(described: Service, tmp_path: Path) -> None:
    store, folder = described.jobs.store, Path(described.settings.store_uri)
    (job,) = store.job_ids()
    request = described.jobs.request(job)
    index = Chunk("index", "fake", request.fingerprints["index"], request.shards[0], request.indexed[0].identity)
    located = list(located_rows(store.read_index(index)[0], request.shards[0]))
    assert ImageReader(store).read(located) == [jpeg(10)]
    away = folder.rename(tmp_path / "away")
    with pytest.raises(OSError, match=MARK) as caught:
        ImageReader(store).read(located)
    assert not isinstance(caught.value, FileNotFoundError)
    away.rename(folder)
    # an upload that was removed is missing
    Path(store.locate(request.shards[0])).unlink()
    (result,) = ImageReader(store).read(located)
    assert isinstance(result, FileNotFoundError)


# one store for one Redis


def test_a_store_gets_its_mark_and_redis_remembers_it(queue: Queue, store: Store, tmp_path: Path) -> None:
    # an empty place, and a store of an earlier version
    pair(queue, store)
    known = store.find_mark()
    assert known is not None and queue.store_id() == known and sorted(store.find()) == [MARK]
    raw_redis(queue).flushall()
    old = Store(str(tmp_path / "old"))
    old.open_job("a1")
    old.put(old.path("jobs", "a1", "request.json"), b"{}")
    pair(queue, old)
    assert old.find_mark() == queue.store_id() != known
    # the store was moved: the same id
    Path(old.root).rename(tmp_path / "new")
    pair(queue, Store(str(tmp_path / "new")))
    # a copy of Redis' contents is not needed: it is remembered again
    raw_redis(queue).flushall()
    pair(queue, Store(str(tmp_path / "new")))
    assert queue.store_id() is not None


def test_redis_with_the_jobs_of_another_store_is_refused(queue: Queue, store: Store, tmp_path: Path) -> None:
    pair(queue, store)
    other = Store(str(tmp_path / "other"))
    with pytest.raises(OtherStore, match=r"there is no store at .*FLUSHDB"):
        pair(queue, other)
    assert not (tmp_path / "other").exists()  # it may be a place where nothing is mounted
    other.make_mark()
    with pytest.raises(OtherStore, match=r"a different store is at .* choose another database number"):
        pair(queue, other)
    assert queue.store_id() == store.find_mark()


def test_a_damaged_mark_is_told(queue: Queue, store: Store) -> None:
    store.put(store.path(MARK), b"{")
    with pytest.raises(DamagedFile, match=MARK):
        pair(queue, store)


def test_the_scheduler_has_an_emptied_redis_remember_the_store_again(described: Service) -> None:
    known = described.jobs.queue.store_id()
    raw_redis(described.jobs.queue).flushall()
    wait_for(lambda: described.jobs.queue.store_id() == known)


def test_a_scheduler_whose_redis_became_another_stores_does_nothing(queue: Queue, store: Store, tmp_path: Path) -> None:
    pair(queue, store)
    raw_redis(queue).flushall()
    pair(queue, Store(str(tmp_path / "other")))
    with pytest.raises(OtherStore):
        Scheduler(queue, store, high_water=10).tick()


def test_a_service_and_a_worker_with_another_store_are_refused(
    refused: Refused, queue: Queue, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    pair(queue, store)
    code, told = refused("--port", "0", REDIS_URL=queue.url)
    assert code == exits.USAGE and len(told.splitlines()) == 1
    assert told.startswith("strata serve: STRATA_STORE: there is no store at ") and "FLUSHDB" in told
    # the environment of the service is still set
    code = code_of("worker", "--groups", "index")
    told = capfd.readouterr().err
    assert code == exits.USAGE and len(told.splitlines()) == 1 and "FLUSHDB" in told


def test_a_service_starts_while_its_store_is_away(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(store=str(tmp_path / "store"))
    with monkeypatch.context() as patched:

        def away(*_: object) -> bytes:
            raise OSError(5, "the disk is away")

        patched.setattr(Store, "get", away)
        store = server._paired_store(settings, queue)
    assert queue.store_id() is None
    # the scheduler pairs the two when the store is back
    Scheduler(queue, store, high_water=10).tick()
    assert queue.store_id() == Store(settings.store_uri).find_mark() is not None
