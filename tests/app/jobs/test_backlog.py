"""`GET /v1/backlog`: the whole plan of unfinished jobs by group, of which the streams have only the beginning."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from strata.core import DEFAULT_TENANT, GROUPS, JobStatus
from strata.core.requests import Sample
from strata.jobs import Jobs
from strata.jobs.envelope import backlog
from strata.queue import Heartbeat, OpenCounts
from strata.queue.queue import Queue
from strata.store import Store
from tests.fakes import FakeMachine, jpeg, wait_for, wait_for_end, write_shard
from tests.queue.requests import job_request
from tests.raw_redis import raw_redis
from tests.service import Service, running_service

SHARDS, IMAGES = 3, 40  # each
NOW = time.time()


def of(service: Service) -> Any:
    return service.client.get("/v1/backlog").raise_for_status().json()


def test_it_follows_a_job_from_its_shards_to_its_end(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False) as service:
        nothing = {"images": 0, "ready": 0, "shards": 0, "oldest_seconds": None}
        assert of(service) == {"jobs": 0, "groups": dict.fromkeys(GROUPS, nothing), "workers": dict.fromkeys(GROUPS, 0)}
        folder = tmp_path / "shards"
        shards = [write_shard(folder / f"{number}.tar", [jpeg()] * IMAGES) for number in range(SHARDS)]
        # only shards are known before they are indexed
        job = service.submit(*shards).json()["id"]
        found = of(service)
        assert found["jobs"] == 1 and found["groups"]["index"]["shards"] == SHARDS
        assert found["groups"]["index"]["oldest_seconds"] > 0 and found["groups"]["vision"] == nothing
        # without a worker for vision nothing is ready for llm, however much it will have to do
        with FakeMachine(service.jobs, vision=False, name="first"):
            wait_for(lambda: of(service)["groups"]["index"]["shards"] == 0)
            found, total = of(service), SHARDS * IMAGES
            assert found["groups"]["index"] == nothing
            assert (found["groups"]["vision"]["images"], found["groups"]["vision"]["ready"]) == (total, total)
            assert (found["groups"]["llm"]["images"], found["groups"]["llm"]["ready"]) == (total, 0)
        ready = Heartbeat(name="one", pid=1, groups=["llm"], ready=True, chunks=[])
        queue.heartbeats.publish(ready, seconds=600)
        assert of(service)["workers"] == {"index": 0, "vision": 0, "llm": 1}
        with FakeMachine(service.jobs, name="second"):
            wait_for_end(service.jobs, job)
            assert of(service)["groups"] == dict.fromkeys(GROUPS, nothing)


numbers = st.integers(0, 1000)


@given(
    st.lists(
        st.tuples(st.sampled_from(JobStatus), st.lists(numbers, min_size=3, max_size=3), numbers, st.booleans()),
        max_size=5,
    ),
)
def test_it_is_the_sum_of_unfinished_jobs(jobs: list[tuple[JobStatus, list[int], int, bool]]) -> None:
    known = []
    for status, counts, age, draws in jobs:
        total, vision, llm = sorted(counts, reverse=True)
        found = {"index:chunks": 0, "index:images": total, "vision:images": vision, "llm:images": llm}
        if draws:  # the images that are indexed are not those of the job, and none is computed yet
            found |= {"vision:images": 0, "llm:images": 0}
        known.append(OpenCounts(NOW - age, status, 1, DEFAULT_TENANT, "lo", found, draws))
    unfinished = [job for job in known if job.status in (JobStatus.VALIDATING, JobStatus.IN_PROGRESS)]
    count, groups = backlog(known, NOW)
    assert count == len(unfinished)
    own = [job for job in unfinished if not job.draws]
    assert groups["vision"].images == sum(j.counts["index:images"] - j.counts["vision:images"] for j in own)
    assert groups["llm"].ready == sum(j.counts["vision:images"] - j.counts["llm:images"] for j in own)
    assert groups["index"].shards == len(unfinished)
    for group in groups.values():
        assert 0 <= group.ready <= group.images
        assert (group.oldest_seconds is None) == (group.images + group.shards == 0)


def test_the_requests_of_the_jobs_are_not_read(queue: Queue, tmp_path: Path) -> None:
    """A request of 100,000 shards has megabytes, and an autoscaler asks every few seconds."""
    states, names = queue.job_states, [f"{number:05d}.tar" for number in range(2000)]
    made = job_request(f"{int(NOW * 1000):012x}" + "0" * 10, tuple(names)).model_copy(update={"tenant": "them"})
    states.create(made, status="in_progress")
    states.activate(made.id)
    before = sent(queue)
    (found,) = states.open_counts([made.id])
    assert sent(queue) - before < 12_000 < len(made.model_dump_json())
    assert (found.shards, found.tenant) == (len(names), "them")
    assert not found.draws
    # a job draws its sample until its request is one of the drawn images
    sampled = job_request(f"{int(NOW * 1000):012x}" + "1" * 10, ("0.tar",)).model_copy(
        update={"sample": Sample(images=1, seed=0, batch=1)}
    )
    states.create(sampled, status="validating")
    assert states.open_counts([sampled.id])[0].draws
    states.run_again(made.model_copy(update={"id": sampled.id}), JobStatus.IN_PROGRESS)
    assert not states.open_counts([sampled.id])[0].draws
    jobs = Jobs(queue, Store(str(tmp_path)))
    assert jobs.backlog().groups["index"].shards == jobs.backlog("them").groups["index"].shards == len(names)
    assert jobs.backlog(DEFAULT_TENANT).jobs == 0


def sent(queue: Queue) -> int:
    """How many bytes the server has sent so far."""
    return int(raw_redis(queue).info("stats")["total_net_output_bytes"])
