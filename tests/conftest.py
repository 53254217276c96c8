"""Fixtures: a real Valkey for the whole session, emptied for each test, and a store in a temporary folder."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bench.processes import PLUG_INS
from strata.jobs.jobs import Jobs
from strata.queue.embedded import EmbeddedServer
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.raw_redis import raw_redis
from tests.service import Service, running_service

pytest_plugins = ["tests.log_search"]  # fails a session whose logs have a secret of its tests
sys.path.append(str(PLUG_INS))  # the profile "fake" names its back ends
# some images of containers forbid Python to keep what it has compiled, and tests start hundreds of processes; unset in
# the process that starts those of pytest-xdist, too
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# for torch, which reads it when it is imported, here and in child processes: models of this size gain nothing by more
# threads, and those of several processes of tests wait for each other's cores while they compute
os.environ.setdefault("MKL_NUM_THREADS", "1")

# how long an example takes says how busy the machine is, not whether the code is right
settings.register_profile("strata", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("strata")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep what collection makes, millions of objects that live to the end, out of the garbage collector's way.

    Else each of its full runs reads them all: many while they are made, and later in tests and at the end.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a command sets in the environment of this process ends with the test: commands set HF_HUB_OFFLINE."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an embedded server that runs during the whole session."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def queue(valkey_url: str) -> Queue:
    """A queue on an emptied server."""
    queue = Queue(valkey_url)
    raw_redis(queue).flushall()
    return queue


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def jobs(queue: Queue, store: Store) -> Jobs:
    """Jobs on this broker and store."""
    return Jobs(queue, store)


@pytest.fixture
def service(queue: Queue, tmp_path: Path) -> Iterator[Service]:
    """The REST service with fake workers."""
    with running_service(queue, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def idle_service(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The REST service without workers, one per module, for requests that need none."""
    with running_service(Queue(valkey_url), tmp_path_factory.mktemp("idle"), workers=False) as running:
        yield running
