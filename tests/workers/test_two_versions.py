"""Workers with two versions of a profile side by side, as while a service is upgraded."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.core import Profile
from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs
from strata.queue import Claim, Heartbeat, LoadedProfile
from strata.queue.queue import Queue
from strata.store.store import Store
from tests.fakes import FAKE_PROFILE, FakeMachine, jpeg, wait_for, wait_for_end, write_shard
from workers.engines import queue as engine
from workers.engines.queue import QueueClaims

OTHER = FAKE_PROFILE.model_copy(update={"evidence": FAKE_PROFILE.evidence.model_copy(update={"text": 0.123})})
GROUPS = ("vision", "llm")


def beat(queue: Queue, profile: Profile) -> None:
    """Tell of a worker that has a version of the profile in memory."""
    loaded = [LoadedProfile(group=one, profile=profile.name, fingerprint=profile.fingerprint(one)) for one in GROUPS]
    told = Heartbeat(name="old", pid=1, groups=[*GROUPS], ready=True, chunks=[], loaded=loaded)
    queue.heartbeats.publish(told, 600)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the chunks that were left to others."""
    ids: list[str] = []
    leave = QueueClaims.leave

    def noted(claims: QueueClaims, claim: Claim, reason: str) -> None:
        leave(claims, claim, reason)
        ids.append(claim.chunk.id)

    monkeypatch.setattr(QueueClaims, "leave", noted)
    monkeypatch.setattr(engine, "REQUEUE_SECONDS", 0.02)
    return ids


def test_chunks_of_the_version_before_are_left_to_the_workers_that_have_it(
    queue: Queue, store: Store, tmp_path: Path, left: list[str]
) -> None:
    jobs = Jobs(queue, store)
    shard = write_shard(tmp_path / "0.tar", [jpeg(32 + number) for number in range(12)])
    beat(queue, FAKE_PROFILE)
    with FakeMachine(jobs, name="new", profile=OTHER) as new:
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        wait_for(lambda: len(left) > len(set(left)) > 0)  # a chunk comes round again
        assert jobs.view(job).status is JobStatus.IN_PROGRESS
        with FakeMachine(jobs, name="second"):
            wait_for_end(jobs, job)
        view = jobs.view(job)
        assert view.status is JobStatus.COMPLETED and view.request_counts.succeeded == 12
        assert new.vision.images == new.llm.images == 0
        # a job of the new version is not kept waiting
        wait_for_end(jobs, jobs.new.create("batch", [shard], OTHER, "lo").id)
        assert new.vision.images == 12


def test_a_version_that_no_worker_has_ends_the_job(queue: Queue, store: Store, tmp_path: Path) -> None:
    jobs = Jobs(queue, store)
    shard = write_shard(tmp_path / "0.tar", [jpeg()])
    with FakeMachine(jobs, profile=OTHER):
        job = jobs.new.create("batch", [shard], FAKE_PROFILE, "lo").id
        wait_for_end(jobs, job)
    view = jobs.view(job)
    assert view.status is JobStatus.FAILED
    assert view.error and "the versions of profile 'fake' differ" in str(view.error)
