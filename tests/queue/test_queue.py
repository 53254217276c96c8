"""The parts of the queue besides broker and ledger, on a real server; and what all of them raise without one."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

import pytest
from redis.backoff import NoBackoff
from redis.retry import Retry

from strata.core.profiles import GROUPS
from strata.core.requests import ShardSummary
from strata.core.schemas import Budget, JobStatus
from strata.core.transitions import STOPPED, TRANSITIONS
from strata.core.usage import Bill, Cost
from strata.errors import QueueUnavailable
from strata.queue import IMAGES, keys
from strata.queue.broker import Claim
from strata.queue.heartbeats import Heartbeat
from strata.queue.idempotency_keys import IN_FLIGHT_SECONDS
from strata.queue.isolation_notes import Notes
from strata.queue.job_events import FIRST_EVENT
from strata.queue.job_states import Limit
from strata.queue.queue import Queue
from strata.queue.scheduler_lock import LOCK_SECONDS, LockState
from strata.queue.scripts import load_script
from tests.queue.requests import chunk, job_request
from tests.raw_redis import raw_redis

HEARTBEAT = Heartbeat(name="w", pid=1, groups=["vision"], ready=True, chunks=[chunk()])
PARTS = (
    "broker",
    "waits",
    "job_states",
    "job_events",
    "ledger",
    "heartbeats",
    "isolation_notes",
    "scheduler_lock",
    "idempotency_keys",
)
ARGUMENTS: dict[str, Any] = {
    "bill": Bill(job="j", entry="e"),
    "budget": Budget(tokens=1),
    "chunk": chunk(),
    "chunks": [chunk()],
    "claim": Claim(chunk(), "strata:stream:vision:lo", "1-0"),
    "cost": Cost(tokens=1),
    "count": 1,
    "chunk_deaths": 1,
    "counted": [(chunk(), {"images": 1})],
    "counts": {"images": 1},
    "fields": ["a"],
    "fingerprints": {"vision": "f" * 16},
    "heartbeat": HEARTBEAT,
    "idle": 1.0,
    "in_a_row": 1,
    "limits": [Limit("images", 1, 1)],
    "money": {"k": 1.0},
    "names": ["vision:images"],
    "notes": Notes(),
    "priced": False,
    "quota": IMAGES,
    "rate": 1.0,
    "request": job_request("j"),
    "seconds": 1.0,
    "status": JobStatus.COMPLETED,
    "things": [("a/0", 1)],
}


def methods(queue: Queue) -> list[Any]:
    """All public methods of the queue and its parts."""
    owners = [queue, *(getattr(queue, part) for part in PARTS)]
    return [
        method for owner in owners for name, method in inspect.getmembers(owner, inspect.ismethod) if name[0] != "_"
    ]


def test_every_method_raises_queue_unavailable_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as many attempts as ever, which follow each other at once
    monkeypatch.setattr("strata.queue.connection._retry", lambda: Retry(NoBackoff(), 2))
    found = [method for method in methods(Queue(f"unix://{tmp_path}/none.sock")) if method.__name__ != "close"]
    assert len(found) > 40
    for method in found:
        parameters = inspect.signature(method).parameters.values()
        needed = [
            one for one in parameters if one.default is inspect.Parameter.empty and one.kind is not one.VAR_KEYWORD
        ]
        arguments = [ARGUMENTS.get(one.name, "text") for one in needed]
        with pytest.raises(QueueUnavailable, match=r"none\.sock"):
            method(*arguments)


def test_an_error_of_the_server_is_queue_unavailable_too(queue: Queue) -> None:
    raw_redis(queue).set(keys.ACTIVE, "not a set")
    with pytest.raises(QueueUnavailable, match="WRONGTYPE"):
        queue.job_states.active()


def test_ping_and_peak_memory(queue: Queue) -> None:
    queue.ping()
    assert queue.peak_memory() > 100_000


# scripts


def test_a_script_is_loaded_with_its_values() -> None:
    assert "'waiters:' .. chunk_id" in load_script("waits", WAITERS="waiters:", NAMES="{}")
    with pytest.raises(KeyError):
        load_script("claim")
    with pytest.raises(FileNotFoundError):
        load_script("none")


# job states


def test_a_working_copy_is_created_once_and_forgotten(queue: Queue) -> None:
    states, request = queue.job_states, job_request("j")
    assert (states.request("j"), states.status("j"), states.fields("j")) == (None, None, {})
    states.create(request, status="validating", started_at="now")
    states.create(request, status="completed", started_at="later")
    assert (states.request("j"), states.status("j")) == (request, JobStatus.VALIDATING)
    states.set_status("j", JobStatus.FAILED, error="why")
    assert states.set_fields("j", JobStatus.COMPLETED, rate="2.345") is JobStatus.FAILED
    assert states.set_fields("j", JobStatus.FAILED, rate="1.235") is JobStatus.FAILED
    fields = states.fields("j")
    assert (fields["status"], fields["error"], fields["rate"], fields["started_at"]) == (
        "failed",
        "why",
        "1.235",
        "now",
    )
    assert queue.job_events.newest("j") != FIRST_EVENT


def test_active_jobs(queue: Queue) -> None:
    for job_id in ("one", "two", "one"):
        queue.job_states.activate(job_id)
    queue.job_states.deactivate("two")
    assert queue.job_states.active() == {"one"}


def test_a_chunk_is_recorded_once_for_a_job(queue: Queue) -> None:
    states = queue.job_states
    assert not states.record("one", chunk(), {"images": 4, "chunks": 1}) and states.fields("one") == {}
    states.create(job_request("one"))
    assert states.record("one", chunk(), {"images": 4, "chunks": 1})
    assert not states.record("one", chunk(), {"images": 4, "chunks": 1})
    assert states.counts("one", "vision:images", "vision:chunks", "llm:images") == [4, 1, 0]
    assert states.recorded("one", "vision", [chunk().field, chunk(1).field]) == {chunk().field}


def test_summaries_of_indexed_shards(queue: Queue) -> None:
    states, request = queue.job_states, job_request("j", ("a.tar", "b.tar", "c.tar"))
    states.create(request)
    summaries = {shard: ShardSummary(shard=shard, identity="i", images=3) for shard in ("c.tar", "a.tar")}
    for shard, summary in summaries.items():
        states.record("j", request.index_chunk(shard), {"images": 3}, summary)
    assert (states.summary_count("j"), states.summarized_shards("j")) == (2, {"a.tar", "c.tar"})
    assert states.summaries("j") == summaries
    assert list(states.summaries("j", ["a.tar", "b.tar"])) == ["a.tar"]
    assert states.summaries("j", []) == {} == states.summaries("none")


def test_all_keys_of_an_ended_job_expire(queue: Queue) -> None:
    states = queue.job_states
    server: Any = raw_redis(queue)
    states.create(job_request("j"), status="finalizing")
    states.activate("j")
    for group in GROUPS:
        states.record("j", chunk(group=group), {})
    queue.ledger.begin("j", None)
    states.set_status("j", JobStatus.COMPLETED)
    # only a job with the status that was written is closed
    assert not states.close_job("j", JobStatus.FAILED) and states.is_active("j")
    assert states.close_job("j", JobStatus.COMPLETED) and not states.is_active("j")
    assert server.delete(keys.CHANGED) == 1  # the scheduler empties it
    # one for each kind of job in a period of ten seconds, which may have ended in between
    closed = server.keys("strata:closed:*")
    assert 0 < len(closed) <= 2 and all(0 < server.ttl(name) <= 120 for name in closed)
    assert server.delete(*closed) == len(closed)
    names = [name for name in server.keys("*") if not name.startswith("strata:list:")]
    assert len(names) == 3 + len(GROUPS)
    assert all(86_000 < server.ttl(name) <= 86_400 for name in names)
    # the last event comes when the end is written, for those who watch the job
    assert [fields["event"] for _, fields in queue.job_events.after("j", FIRST_EVENT)][-2:] == ["status", "status"]


def test_a_job_that_runs_again_counts_anew_and_its_keys_do_not_expire(queue: Queue) -> None:
    states = queue.job_states
    server: Any = raw_redis(queue)
    states.create(job_request("j"), status="in_progress", started_at="now")
    states.activate("j")
    states.record("j", chunk(), {"images": 4})
    states.set_fields("j", JobStatus.IN_PROGRESS, rate="1.0", waiting="{}")
    states.set_status("j", JobStatus.FAILED, error="why", finished_at="then")
    # its end is not written yet
    assert states.run_again(job_request("j"), JobStatus.VALIDATING) is JobStatus.FAILED
    assert states.close_job("j", JobStatus.FAILED)
    changed = job_request("j").model_copy(update={"retries": {"i/00000": 1}})
    assert states.run_again(changed, JobStatus.VALIDATING, started_at="later") is JobStatus.VALIDATING
    fields = states.fields("j")
    fingerprints = {f"{group}_fingerprint" for group in GROUPS}
    assert fields.keys() == {"request", "listed", "shards", "priority", "draws", "status", "started_at"} | fingerprints
    assert (fields["started_at"], states.request("j")) == ("later", changed)
    assert not states.recorded("j", "vision", [chunk().field])
    assert all(server.ttl(name) == -1 for name in (keys.job("j"), keys.events("j")))
    # a second retry at the same time changes nothing
    assert states.record("j", chunk(), {"images": 4})
    assert states.run_again(job_request("j"), JobStatus.VALIDATING) is JobStatus.VALIDATING
    assert states.counts("j", "vision:images") == [4]


@pytest.mark.parametrize("before", [None, *JobStatus])
@pytest.mark.parametrize("after", JobStatus)
def test_a_status_changes_as_the_table_says(queue: Queue, before: JobStatus | None, after: JobStatus) -> None:
    states = queue.job_states
    if before is not None:
        states.create(job_request("j"), status=before.value, error="first")
    stands = states.set_status("j", after, error="second")
    if before is not None and after in TRANSITIONS[before]:
        assert (stands, states.status("j"), states.fields("j")["error"]) == (after, after, "second")
        assert len(queue.job_events.after("j", FIRST_EVENT)) == 1
        return
    # the status that stands is returned, and nothing is changed
    assert (stands, states.status("j")) == (before, before)
    assert states.fields("j").get("error") == (None if before is None else "first")
    assert queue.job_events.after("j", FIRST_EVENT) == []


@pytest.mark.parametrize("status", sorted(STOPPED))
def test_nothing_is_queued_or_counted_for_a_job_that_has_stopped(queue: Queue, status: JobStatus) -> None:
    states, broker = queue.job_states, queue.broker
    states.create(job_request("j"), status="in_progress")
    states.create(job_request("other"), status="in_progress")
    assert broker.enqueue(chunk(), "j", "lo")
    assert not broker.enqueue(chunk(), "other", "lo")
    (claim,) = [*broker.claim("vision", "w", 1), *broker.claim("vision", "w", 1)]
    server: Any = raw_redis(queue)
    server.hset(keys.job("j"), "status", status.value)
    assert not broker.enqueue(chunk(1), "j", "lo") and broker.waiting_jobs(chunk(1)) == set()
    assert not states.record("j", chunk(1), {"images": 4})
    # a chunk in flight is counted for the other job only, and so is the chunk of the next group
    assert broker.finish(claim, "w", "", {"images": 4}, chunk(group="llm"))
    assert (states.counts("j", "vision:images"), states.counts("other", "vision:images")) == ([0], [4])
    assert broker.waiting_jobs(chunk(group="llm")) == {"other"}


# job events


def test_events_of_a_job_in_order(queue: Queue) -> None:
    events = queue.job_events
    assert (events.newest("j"), events.after("j", FIRST_EVENT)) == (FIRST_EVENT, [])
    queue.job_states.create(job_request("j"), status="validating")
    queue.job_states.set_status("j", JobStatus.IN_PROGRESS)
    first = events.newest("j")
    queue.job_states.record("j", chunk(), {"images": 4})
    ((event_id, fields),) = events.after("j", first)
    assert (event_id, fields["event"], fields["group"]) == (events.newest("j"), "progress", "vision")
    assert [fields["event"] for _, fields in events.after("j", FIRST_EVENT)] == ["status", "progress"]


# heartbeats


def test_a_withdrawn_heartbeat_is_not_live(queue: Queue) -> None:
    queue.heartbeats.publish(HEARTBEAT, 60)
    queue.heartbeats.publish(HEARTBEAT.model_copy(update={"name": "other"}), 60)
    queue.heartbeats.withdraw(HEARTBEAT.name)
    assert [heartbeat.name for heartbeat in queue.heartbeats.live()] == ["other"]


def test_heartbeats_expire_and_their_names_are_removed(queue: Queue) -> None:
    queue.heartbeats.publish(HEARTBEAT, 60)
    queue.heartbeats.publish(HEARTBEAT.model_copy(update={"name": "dead"}), 0.05)
    time.sleep(0.1)
    assert queue.heartbeats.live() == [HEARTBEAT]
    assert raw_redis(queue).smembers(keys.WORKERS) == {"w"}


# the scheduler's lock


def test_one_owner_at_a_time_has_the_lock(queue: Queue) -> None:
    lock, server = queue.scheduler_lock, raw_redis(queue)
    assert lock.acquire("one") is LockState.ACQUIRED
    server.expire(keys.SCHEDULER, 1)
    assert lock.acquire("two") is LockState.HELD_BY_ANOTHER
    assert lock.acquire("one") is LockState.RENEWED
    assert server.ttl(keys.SCHEDULER) == LOCK_SECONDS
    lock.release("two")
    assert lock.acquire("two") is LockState.HELD_BY_ANOTHER
    lock.release("one")
    assert lock.acquire("two") is LockState.ACQUIRED


# isolation notes


def test_deaths_are_counted_by_what_was_in_flight(queue: Queue) -> None:
    notes = queue.isolation_notes
    assert notes.take_over("c") == Notes()
    assert notes.take_over("c") == Notes(chunk_deaths=1)  # the first call has marked the chunk
    notes.mark("c", 7)
    assert notes.take_over("c") == Notes({7: 1}, {}, 1, in_a_row=1)
    notes.clear("c")
    assert notes.take_over("c") == Notes({7: 1}, {}, 1, in_a_row=1)
    notes.computed("c", 7)
    assert notes.take_over("c") == Notes(chunk_deaths=1)
    assert raw_redis(queue).ttl(keys.in_flight("c")) > 0


def test_a_process_that_ends_in_order_says_which_rows_are_suspects(queue: Queue) -> None:
    notes = queue.isolation_notes
    notes.take_over("c")
    notes.ended("c", [3, 2], None, "broken", saved=False)
    assert notes.take_over("c") == Notes(suspects=frozenset({2, 3}))
    notes.ended("c", [2, 3], 3, "broken", saved=True)
    found = notes.take_over("c")
    assert found == Notes({3: 1}, {3: "broken"}, 0, frozenset({2, 3}), in_a_row=1, saved=True)
    notes.try_again("c", found, in_a_row=0, chunk_deaths=3)
    assert notes.take_over("c") == Notes(suspects=frozenset({2, 3}), saved=True)


def test_finishing_a_chunk_removes_its_notes(queue: Queue) -> None:
    queue.broker.claim("vision", "w", 1)
    queue.broker.enqueue(chunk(), "one", "lo")
    (claim,) = queue.broker.claim("vision", "w", 1)
    queue.isolation_notes.mark(chunk().id)
    assert queue.broker.finish(claim, "w", "", {})
    assert not raw_redis(queue).exists(keys.in_flight(chunk().id))


# idempotency keys


def test_an_idempotency_key_is_reserved_kept_and_freed(queue: Queue) -> None:
    idempotency, server = queue.idempotency_keys, raw_redis(queue)
    assert idempotency.begin("k", "first") is None
    assert IN_FLIGHT_SECONDS - 60 < server.ttl(keys.idempotency("k")) <= IN_FLIGHT_SECONDS
    assert idempotency.begin("k", "second") == "first"
    idempotency.keep("k", "answer")
    assert idempotency.begin("k", "third") == "answer"
    idempotency.free("k")
    assert idempotency.begin("k", "fourth") is None
