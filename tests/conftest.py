"""Fixtures: a real Valkey for the whole session, emptied for each test, and a store in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.jobs.jobs import Jobs
from strata.queue.broker import Broker
from strata.queue.embedded import EmbeddedServer
from strata.store.store import Store
from tests.service import Service, running_service


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an embedded server that runs during the whole session."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def broker(valkey_url: str) -> Broker:
    """A broker on an emptied server."""
    broker = Broker(valkey_url)
    broker.redis.flushall()
    return broker


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def jobs(broker: Broker, store: Store) -> Jobs:
    """Jobs on this broker and store."""
    return Jobs(broker, store)


@pytest.fixture
def service(broker: Broker, tmp_path: Path) -> Iterator[Service]:
    """The REST service with fake workers."""
    with running_service(broker, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def idle_service(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The REST service without workers, one per module, for requests that need none."""
    with running_service(Broker(valkey_url), tmp_path_factory.mktemp("idle"), workers=False) as running:
        yield running
