"""A store that an earlier version wrote: all that reads parts still reads it, and a job finds its work done."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.core.layers import layer_named
from strata.core.profiles import GROUPS, Profile, load_profile
from strata.core.records import Status
from strata.core.schemas import JobStatus
from strata.data.exports import Request, export
from strata.data.sources.snapshots import snapshot_source
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.queue.queue import Queue
from strata.snapshots.features import CLUSTER, FEATURES
from strata.snapshots.selection import Selection
from strata.snapshots.selection.axes import Axis
from strata.snapshots.snapshots import Snapshots
from strata.store.parts import PartsOf
from strata.store.provenance import Provenance, fingerprints_of, provenance_of
from strata.store.store import Store
from tests.checkout import CHECKOUT
from tests.fakes import wait_for_end
from tests.service import running_service
from tests.store.keep_store import DAMAGED, IMAGES, MODIFIED, SHARD
from workers.indexer import Indexer
from workers.leases import Leases

KEPT = Path(__file__).parents[1] / "data_files" / "store-schema-2"
DEMO_JOB, PAID_JOB = "01a221aced4b158ec0a5e2", "01a221ad11c879e148ba20"
DEMO, PAID = "509f8e94c107b73d", "6ee661d8aec20733"  # the fingerprints of llm
SHIPPED = {  # as the version before issue 15 had them: a change means that every user computes everything again
    "demo": ("dd783b45766b413c", "0402147bd705dd53", "47a9ea6576f1d636"),
    "paper": ("dd783b45766b413c", "0003f3deb3310bc8", "37792423916af984"),  # since BLIP-2's version 2
    "modern": ("dd783b45766b413c", "85c13549487d0f1f", "4e192666f4267816"),  # since it has a second opinion
}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of the kept store, its shard where the parts say that it lies."""
    shutil.copytree(KEPT / "store", tmp_path / "data" / "store")
    shutil.copy(KEPT / SHARD, tmp_path / SHARD)
    os.utime(tmp_path / SHARD, (MODIFIED, MODIFIED))
    monkeypatch.chdir(tmp_path)
    return Store(str(tmp_path / "data" / "store"))


def profile_of(kept: Provenance) -> Profile:
    """The profile that a store keeps beside its parts."""
    return Profile.model_validate({"name": kept.profile, "prompts": kept.prompts, **kept.settings})


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_profiles_find_the_parts_that_earlier_versions_wrote(name: str) -> None:
    profile = load_profile(name, CHECKOUT / "models" / "profiles")
    assert tuple(profile.fingerprint(group) for group in GROUPS) == SHIPPED[name]


@pytest.mark.parametrize("fingerprint", [DEMO, PAID])
def test_a_kept_profile_has_the_fingerprints_it_had(kept: Store, fingerprint: str) -> None:
    known = provenance_of(kept, fingerprint)
    assert {group: profile_of(known).fingerprint(group) for group in GROUPS} == known.fingerprints
    assert known.fingerprints["llm"] == fingerprint and known.schema_version == 2


@pytest.fixture
def scheduling(queue: Queue, kept: Store) -> Iterator[Jobs]:
    """A scheduler and an indexer; whatever else had to be computed would be waited for in vain."""
    jobs, stop = Jobs(queue, kept), threading.Event()
    with Leases(queue, "indexer", ["index"], 2.0) as leases:
        scheduler = Scheduler(queue, kept, high_water=100)
        loops = [Indexer(jobs, leases).run, lambda stop: scheduler.run(stop, interval=0.02)]
        threads = [threading.Thread(target=loop, args=(stop,), daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        yield jobs
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("fingerprint", [DEMO, PAID])
def test_a_job_of_the_same_profile_computes_nothing(scheduling: Jobs, fingerprint: str) -> None:
    before = {path: Path(scheduling.store.path(path)).stat().st_mtime_ns for path in scheduling.store.find("parts")}
    profile = profile_of(provenance_of(scheduling.store, fingerprint))
    request = scheduling.new.create("batch", [SHARD], profile, "lo")
    wait_for_end(scheduling, request.id)
    view = scheduling.view(request.id)
    assert view.status is JobStatus.COMPLETED
    assert (view.request_counts.succeeded, view.request_counts.failed) == (IMAGES - 1, 1)
    assert [view.groups[group].reused for group in ("vision", "llm")] == [IMAGES, IMAGES]
    # what lies under an earlier version's name is moved, and nothing else is written
    after = {path: Path(scheduling.store.path(path)).stat().st_mtime_ns for path in scheduling.store.find("parts")}
    old = f"parts/llm/{fingerprint}/d4965b2ca782d02f/"
    renamed = {f"{old}_00000.1.parquet": f"{old}00000.1.parquet"}
    assert after == {renamed.get(path, path): time for path, time in before.items() if path != f"{old}00000.parquet"}
    assert list(scheduling.store.find("superseded")) == [f"superseded{old.removeprefix('parts')}00000.parquet"]


@pytest.mark.parametrize("job", [DEMO_JOB, PAID_JOB])
def test_the_service_shows_a_kept_job(kept: Store, queue: Queue, tmp_path: Path, job: str) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        view = service.client.get(f"/v1/jobs/{job}").json()
        assert view["request_counts"]["failed"] == 1 and view["metadata"]["kept"].startswith("kept-")
        rows = [json.loads(line) for line in service.client.get(f"/v1/jobs/{job}/results").text.splitlines()]
        assert [row["key"] for row in rows] == [f"{number:09d}" for number in range(IMAGES)]
        assert [row["status"] == Status.FAILED for row in rows] == [row["key"] == DAMAGED for row in rows]
        good = rows[3]
        assert any(not entry["kept"] and entry["reason"] == "low_match" for entry in good["regions"])
        assert good["description"]["sentences"] and good["seconds"]["detector"] > 0 and good["schema_version"] == 2
        assert bool(good["usage"]) == (job == PAID_JOB)
        (failure,) = service.client.get(f"/v1/jobs/{job}/failures").text.splitlines()
        assert json.loads(failure)["failure"]["stage"] == "decode"
        assert service.client.get(f"/v1/records/{job}/000000003").json() == good
        overlay = service.client.get(f"/v1/records/{job}/000000003/overlay.png")
        assert overlay.status_code == 200 and overlay.content.startswith(b"\x89PNG")


def test_a_kept_bill_is_read(kept: Store) -> None:
    parts = PartsOf(kept)
    request = parts.request(PAID_JOB)
    assert request is not None
    chunks = [chunk for summary in parts.summaries(request) for chunk in request.chunks(summary, "llm")]
    bills = [kept.read_footer(chunk).bill for chunk in chunks]
    assert [chunk.attempt for chunk in chunks] == [1, 0]
    assert [bill.usage.requests for bill in bills if bill] == [0, 2]


def test_a_kept_snapshot_opens_and_is_exported(kept: Store, tmp_path: Path) -> None:
    snapshot = Snapshots(kept).open("kept")
    assert snapshot.rows().num_rows == 3 and snapshot.manifest.selection.method == "balanced"
    items = export(kept, snapshot, Request("webdataset", layer_named("description")), tmp_path / "out")
    assert items.count == 3
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        assert sum(name.endswith(".txt") for name in tar.getnames()) == 3
    assert len(snapshot_source(kept, snapshot, "regions", tmp_path / "cache")) == 3


def test_new_snapshots_are_made_of_kept_parts(kept: Store) -> None:
    (fingerprint,) = fingerprints_of(kept, "kept-demo")
    parts = PartsOf(kept).sources([fingerprint])
    assert [part.attempt for part in parts] == [1, 0]
    # clusters need the stage `embedding`, which the store was kept without
    names = [name for name, feature in FEATURES.items() if feature.kind == "name" and name != CLUSTER]
    axes = tuple(map(Axis.parse, names))
    where = " and ".join(name for name in FEATURES if FEATURES[name].kind == "flag")
    made = Snapshots(kept).create("new", parts, Selection(method="balanced", axes=axes))
    assert made.rows().num_rows == IMAGES - 1 and made.manifest.counts.failed == 1
    best = Snapshots(kept).create("best", parts, Selection(method="best", where=f"({where}) or words > 0", share=0.5))
    assert best.rows().num_rows == 2
