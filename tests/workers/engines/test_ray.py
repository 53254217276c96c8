"""`strata run --engine ray`: the same parts through Ray Data, whatever dies."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from bench.processes import PLUG_INS
from strata.core import JobRequest, JobStatus
from strata.store import Store
from tests.checkout import CHECKOUT
from tests.fakes import wait_for
from tests.workers.engines.runs import options, rows_of, run_here, settings_of, shards_of, started
from workers.engines.start import computed

ray = pytest.importorskip("ray")
MEMORY = 80 * 2**20  # bytes of a node's object store: rows are pointers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray node on this machine, to which this process is connected."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{CHECKOUT}:{PLUG_INS}"
    nodes = Cluster()
    try:
        add_node(nodes, num_cpus=1, include_dashboard=False)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def add_node(cluster: Any, **given: Any) -> Any:
    """Add a node; on a busy machine it may not be there after the 30 seconds that Ray waits for it."""
    for attempt in range(6):
        try:
            return cluster.add_node(object_store_memory=MEMORY, **given)
        except Exception:
            if attempt == 5:
                raise
    raise AssertionError


def complete(store: Store, request: JobRequest, images: int) -> None:
    """Check that every image has its row, once."""
    assert Counter(key for key, _ in rows_of(store, request)) == {f"{i:09d}": 1 for i in range(images)}


def test_a_row_is_the_same_from_every_engine(cluster: Any, tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "shards", 2, 300)
    local, here = settings_of(tmp_path / "local"), settings_of(tmp_path / "ray")
    request, _ = run_here(local, shards, options())
    through_ray, view = run_here(here, shards, options("ray"))
    assert view.status is JobStatus.COMPLETED
    assert (view.request_counts.succeeded, view.request_counts.failed) == (598, 2)
    rows = rows_of(Store(local.store_uri), request)
    assert rows == rows_of(Store(here.store_uri), through_ray) and len(rows) == 600
    # the names of the parts too
    parts = [sorted(Store(one.store_uri).find("parts")) for one in (local, here)]
    assert parts[0] == parts[1]
    # what lacks is computed, by any engine
    _, again = run_here(here, shards, options())
    assert again.groups["llm"].reused == 600


@pytest.mark.cluster
def test_an_image_that_ends_actors_is_a_failed_row(cluster: Any, tmp_path: Path) -> None:
    settings, shards = settings_of(tmp_path), shards_of(tmp_path / "shards", 1, 20, deadly=7)
    request, view = run_here(settings, shards, options("ray"))
    assert view.status is JobStatus.COMPLETED and view.request_counts.failed == 2
    store = Store(settings.store_uri)
    complete(store, request, 20)
    failed = {key: row["failure"]["error_type"] for key, row in rows_of(store, request) if row["failure"]}
    assert failed["000000007"] == "poison" and len(failed) == 2


@pytest.mark.cluster
def test_a_killed_node_and_a_killed_actor_lose_nothing(cluster: Any, tmp_path: Path) -> None:
    settings, shards = settings_of(tmp_path), shards_of(tmp_path / "shards", 3, 256)
    node = add_node(cluster, num_cpus=2)
    cluster.wait_for_nodes()
    job = started(settings, shards, options("ray", seconds=0.003))

    def kill() -> None:
        wait_for(lambda: job.counts.numbers["vision:chunks"])
        for pid in actor_pids()[:1]:
            os.kill(pid, signal.SIGKILL)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    view = computed(job, settings, options("ray", seconds=0.003))
    thread.join()
    assert view.status is JobStatus.COMPLETED and view.request_counts.succeeded == 765
    complete(Store(settings.store_uri), job.request, 768)


def actor_pids() -> list[int]:
    """The processes of the actors that compute chunks, which this process has started through its nodes."""
    ours = psutil.Process().children(recursive=True)
    return [one.pid for one in ours if one.is_running() and "MapWorker" in " ".join(one.cmdline())]
