"""The scheduler: compares each unfinished job's plan with the parts in the store and queues what lacks.

One process schedules at a time (a lock with an expiry in Redis). It keeps nothing that it cannot find again: a new
scheduler, or an emptied Redis, starts every unfinished job's plan anew, and parts that are there are only counted.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

import redis

from strata import keys
from strata.broker import Broker
from strata.chunks import Chunk
from strata.jobs import Jobs
from strata.plans import Plan
from strata.profiles import FINAL_GROUP, GROUPS
from strata.requests import JobRequest, ShardSummaries, ShardSummary
from strata.schemas import JobStatus
from strata.store import Store, count_of

log = logging.getLogger(__name__)

LOCK_SECONDS = 10
REVIEW_SECONDS = 30.0  # how often every plan is compared with the store from its start


class Scheduler:
    """Feeds the streams and ends the jobs. Call `run` in a thread, or `tick` by hand."""

    def __init__(self, broker: Broker, store: Store, high_water: int) -> None:
        self.broker, self.store, self.high_water = broker, store, high_water
        self.jobs = Jobs(broker, store)
        self.name = secrets.token_hex(8)
        self.plans: dict[str, Plan] = {}
        self.ended: set[str] = set()  # jobs whose end was seen in the store: it is read once
        self.reviewed = -REVIEW_SECONDS

    def run(self, stop: threading.Event, interval: float = 0.1) -> None:
        """Tick until told to stop; a Redis that is away is waited for."""
        while not stop.wait(interval):
            try:
                self.tick()
            except redis.RedisError as error:
                log.warning("scheduler waits for Redis: %s", error)
                self.plans.clear()
                self.reviewed = -REVIEW_SECONDS
                stop.wait(1.0)
            except Exception:
                log.exception("scheduler: a beat failed, the next one tries again")
                stop.wait(1.0)
        with suppress(redis.RedisError):
            self._unlock()

    def tick(self) -> None:
        """One beat: take the lock, find jobs, feed them, end those whose counts add up."""
        if not self._lock():
            self.plans.clear()
            return
        if time.monotonic() - self.reviewed >= REVIEW_SECONDS:
            self._recover()
            self.reviewed = time.monotonic()
        active = cast(set[str], self.broker.redis.smembers(keys.ACTIVE))
        for job_id in sorted(active | set(self.plans)):
            if job_id not in active:
                del self.plans[job_id]
            else:
                self._advance(self.plans.get(job_id) or self._plan(job_id))

    def _lock(self) -> bool:
        if self.broker.redis.set(keys.SCHEDULER, self.name, nx=True, ex=LOCK_SECONDS):
            return True
        if self.broker.redis.get(keys.SCHEDULER) != self.name:
            return False
        return bool(self.broker.redis.expire(keys.SCHEDULER, LOCK_SECONDS))

    def _unlock(self) -> None:
        """Let another process schedule at once rather than when the lock expires."""
        if self.broker.redis.get(keys.SCHEDULER) == self.name:
            self.broker.redis.delete(keys.SCHEDULER)

    def _recover(self) -> None:
        """Bring back jobs that the store knows as unfinished and Redis does not know, and review all plans."""
        known = cast(set[str], self.broker.redis.smembers(keys.ACTIVE))
        for job_id in self.store.job_ids():
            if job_id in known or job_id in self.ended:
                continue
            if self.store.read_job_file(job_id, "end") is not None:
                self.ended.add(job_id)
            else:
                self.jobs.activate(self.jobs.request(job_id))
        for plan in self.plans.values():
            if not plan.chunks:
                plan.restart()

    def _plan(self, job_id: str) -> Plan:
        self.plans[job_id] = Plan(self.jobs.request(job_id))
        return self.plans[job_id]

    def _advance(self, plan: Plan) -> None:
        job_id = plan.request.id
        status = self.jobs.status(job_id)
        if status is None:  # Redis was emptied under us
            self.jobs.activate(plan.request)
            plan.restart()
        elif status.final:
            self._end(plan, status)
        elif status is JobStatus.CANCELLING:
            self._cancel(plan)
        else:
            self._feed(plan)
            self._rate(plan)
            if self._complete(plan):
                self._finalize(plan)

    # feeding

    def _feed(self, plan: Plan) -> None:
        request = plan.request
        summaries = self.jobs.summaries(request.id)
        if len(summaries) < len(plan.planned):  # Redis was emptied and the job put back by somebody who looked at it
            plan.restart()
        while plan.unindexed and self._room("index"):
            shard = plan.unindexed.popleft()
            if shard not in summaries:
                self.broker.enqueue(request.index_chunk(shard), request.id, request.priority)
        for shard, summary in summaries.items():
            if shard not in plan.planned:
                plan.planned.add(shard)
                plan.chunks.extend(self._lacking(request, summary))
        if summaries and self.jobs.status(request.id) is JobStatus.VALIDATING:
            self.jobs.set_status(request.id, JobStatus.IN_PROGRESS)
        while plan.chunks and self._room(*GROUPS[1:]):
            self.broker.enqueue(plan.chunks.popleft(), request.id, request.priority)

    def _room(self, *groups: str) -> bool:
        return all(self.broker.depth(group) < self.high_water for group in groups)

    def _lacking(self, request: JobRequest, summary: ShardSummary) -> Iterator[Chunk]:
        """The chunks of a shard to compute next; those whose parts are there are counted for the job."""
        numbers = set(range(summary.chunks(request.chunk_size)))
        for group in GROUPS[1:]:
            chunks = list(request.chunks(summary, group, sorted(numbers)))
            numbers = numbers & self.store.part_numbers(chunks[0]) if chunks else set()
            for chunk in chunks:
                if chunk.number in numbers:
                    self._count(request, chunk)
                else:
                    yield chunk

    def _count(self, request: JobRequest, chunk: Chunk) -> None:
        counts = {"images": chunk.images, "chunks": 1, "reused": chunk.images}
        if chunk.group == FINAL_GROUP:
            counts |= count_of(self.store.read_counts(chunk))
        self.broker.record(request.id, chunk, json.dumps(counts), counts)

    def _rate(self, plan: Plan) -> None:
        """Images a second that this job computed lately; images that were there before do not count."""
        fields = self.broker.redis.hmget(keys.job(plan.request.id), f"{FINAL_GROUP}:images", f"{FINAL_GROUP}:reused")
        images, reused = (int(cast(str, value) or 0) for value in fields)
        rate = plan.rate(time.monotonic(), images - reused)
        if rate is not None:
            self.broker.redis.hset(keys.job(plan.request.id), "rate", f"{rate:.3f}")

    # ending

    def _complete(self, plan: Plan) -> bool:
        if plan.unindexed or plan.chunks or len(plan.planned) < len(plan.request.shards):
            return False
        view = self.jobs.view(plan.request.id)
        indexed = view.groups["index"].chunks == len(plan.request.shards)
        return indexed and view.groups[FINAL_GROUP].images == view.request_counts.total

    def _finalize(self, plan: Plan) -> None:
        """Complete the job if the counts, read again from the parts, add up; else start its plan anew."""
        request = plan.request
        self.jobs.set_status(request.id, JobStatus.FINALIZING)
        summaries = self.jobs.summaries(request.id)
        counts: Counter[str] = Counter()
        try:
            for summary in summaries.values():
                for chunk in request.chunks(summary, FINAL_GROUP):
                    counts += self.store.read_counts(chunk)
        except FileNotFoundError as error:
            log.warning("job %s: a part is gone, its plan starts anew: %s", request.id, error)
            self._start_anew(plan)
            return
        if sum(counts.values()) != sum(summary.images for summary in summaries.values()):
            log.error("job %s: parts hold %s, that is not its number of images", request.id, dict(counts))
            self._start_anew(plan)
            return
        reasons = [f"{name}: {summary.failure.detail}" for name, summary in summaries.items() if summary.failure]
        if reasons and not any(summary.images for summary in summaries.values()):
            self._end(plan, JobStatus.FAILED, error=f"no shard could be read: {reasons[0]}")
        else:
            self._end(plan, JobStatus.COMPLETED)

    def _start_anew(self, plan: Plan) -> None:
        job_id = plan.request.id
        groups = [keys.done(job_id, group) for group in GROUPS]
        names = cast(list[str], self.broker.redis.hkeys(keys.job(job_id)))
        stale = [name for name in names if ":" in name]
        with self.broker.redis.pipeline(transaction=True) as pipe:
            pipe.delete(*groups)
            if stale:
                pipe.hdel(keys.job(job_id), *stale)
            pipe.execute()
        self.jobs.activate(plan.request)
        self.jobs.set_status(job_id, JobStatus.IN_PROGRESS)
        plan.restart()

    def _cancel(self, plan: Plan) -> None:
        """Nobody waits for the job's chunks any more; workers drop those that nobody waits for."""
        plan.chunks.clear()
        plan.unindexed.clear()
        waiting = cast(dict[str, str], self.broker.redis.hgetall(keys.QUEUED))
        with self.broker.redis.pipeline(transaction=False) as pipe:
            for chunk_id in waiting:
                pipe.srem(keys.waiters(chunk_id), plan.request.id)
            pipe.execute()
        self._end(plan, JobStatus.CANCELLED)

    def _end(self, plan: Plan, status: JobStatus, **fields: str) -> None:
        job_id = plan.request.id
        self.jobs.set_status(job_id, status, finished_at=datetime.now(UTC).isoformat(), **fields)
        summaries = list(self.jobs.summaries(job_id).values())
        self.store.write_job_file(job_id, "shards", ShardSummaries(shards=summaries))
        self.store.write_job_file(job_id, "end", self.jobs.view(job_id))
        self.broker.redis.srem(keys.ACTIVE, job_id)
        self.plans.pop(job_id, None)
