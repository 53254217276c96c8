"""The scheduler: compares each unfinished job's plan with the parts in the store and queues what lacks.

One process schedules at a time (a lock with an expiry in Redis). It keeps nothing that it cannot find again: a new
scheduler, or an emptied Redis, starts every unfinished job's plan anew, and parts that are there are only counted.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import cast

import redis

from strata.core.chunks import Chunk
from strata.core.profiles import FINAL_GROUP, GROUPS
from strata.core.requests import JobRequest, ShardSummary
from strata.core.schemas import JobStatus
from strata.jobs.billing import Billing
from strata.jobs.finalizer import Finalizer
from strata.jobs.jobs import Jobs, UnknownJob
from strata.jobs.plans import Plan
from strata.queue import keys
from strata.queue.broker import Broker
from strata.store.store import Store, count_of

log = logging.getLogger(__name__)

LOCK_SECONDS = 10
REVIEW_SECONDS = 30.0  # how often every plan is compared with the store from its start
SWEEP_SECONDS = 3600.0  # age at which a half written file is nobody's


class Scheduler:
    """Feeds the streams and ends the jobs. Call `run` in a thread, or `tick` by hand."""

    def __init__(self, broker: Broker, store: Store, high_water: int) -> None:
        self.broker, self.store, self.high_water = broker, store, high_water
        self.jobs = Jobs(broker, store)
        self.billing = Billing(self.jobs)
        self.name = secrets.token_hex(8)
        self.plans: dict[str, Plan] = {}
        self.finalizer = Finalizer(self.jobs)
        self.reviewed = -REVIEW_SECONDS
        self._scheduling = False

    def run(self, stop: threading.Event, interval: float = 0.1) -> None:
        """Tick until told to stop; a Redis that is away is waited for."""
        while not stop.wait(interval):
            try:
                self.tick()
            except redis.RedisError as error:
                log.warning("scheduler waits for Redis: %s", error)
                self._start_over()
                stop.wait(1.0)
            except Exception:
                log.exception("scheduler: a beat failed, the next one tries again")
                stop.wait(1.0)
        self.finalizer.close()
        self.billing.close()
        with suppress(redis.RedisError):
            self._unlock()

    def tick(self) -> None:
        """One beat: take the lock, find jobs, feed them, end those whose counts add up."""
        if not self._lock():
            self._start_over()
            return
        if time.monotonic() - self.reviewed >= REVIEW_SECONDS:
            self._recover()
            self.reviewed = time.monotonic()
        active = cast(set[str], self.broker.redis.smembers(keys.ACTIVE))
        for job_id in sorted(active | set(self.plans)):
            if job_id not in active or self._advance(self.plans.get(job_id) or self._plan(job_id)):
                del self.plans[job_id]

    def _start_over(self) -> None:
        """Forget all plans: somebody else schedules, or Redis may have lost what was queued."""
        self.plans.clear()
        self.reviewed = -REVIEW_SECONDS
        self._scheduling = False

    def _lock(self) -> bool:
        if self.broker.redis.set(keys.SCHEDULER, self.name, nx=True, ex=LOCK_SECONDS):
            if self._scheduling:  # the lock was ours and is gone: so may be all that Redis knew
                self._start_over()
            self._scheduling = True
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
        self.store.sweep(SWEEP_SECONDS)
        known = cast(set[str], self.broker.redis.smembers(keys.ACTIVE))
        for job_id in self.store.open_jobs():
            if job_id in known:
                continue
            if self.store.read_job_file(job_id, "end") is not None:  # whoever ended it died just then
                self.store.close_job(job_id)
                continue
            with suppress(UnknownJob):  # it is marked a moment before its request is written
                self.jobs.activate(self.jobs.request(job_id))
        for plan in self.plans.values():
            self._keep_shards(plan)
            if plan.handed_out:
                plan.restart()

    def _plan(self, job_id: str) -> Plan:
        self.plans[job_id] = Plan(self.jobs.request(job_id))
        return self.plans[job_id]

    def _advance(self, plan: Plan) -> bool:
        """Take a job on by as much as can be done now; whether it has ended."""
        status = self.jobs.status(plan.request.id)
        if status is None:  # Redis was emptied under us
            self.jobs.activate(plan.request)
            plan.restart()
        elif status is JobStatus.CANCELLING:
            return self.finalizer.withdraw(plan.request, JobStatus.CANCELLED)
        elif status.final:
            return self.finalizer.withdraw(plan.request, status)
        elif self.finalizer.counts(plan.request):
            return self.finalizer.advance(plan)
        else:
            self._feed(plan, status)
            self._rate(plan)
            if self._complete(plan):
                self.finalizer.begin(plan.request)
        return False

    # feeding

    def _feed(self, plan: Plan, status: JobStatus) -> None:
        request = plan.request
        self._see(plan)
        if plan.known and status is JobStatus.VALIDATING:
            self.jobs.set_status(request.id, JobStatus.IN_PROGRESS)
        shards = [plan.unindexed.popleft() for _ in range(min(self._room("index"), len(plan.unindexed)))]
        chunks = (request.index_chunk(shard) for shard in shards if shard not in plan.known)
        self.broker.enqueue_all(chunks, request.id, request.priority)
        # a job with a budget spends nothing more before it is known what it has spent
        spends = request.budget is None or self.billing.known(request)
        room = self._room(*GROUPS[1:]) if spends else 0
        while room > 0 and (plan.chunks or plan.waiting):
            if not plan.chunks:
                plan.chunks.extend(self._lacking(request, plan.waiting.popleft()))
            queued = [plan.chunks.popleft() for _ in range(min(room, len(plan.chunks)))]
            self.broker.enqueue_all(queued, request.id, request.priority)
            room -= len(queued)

    def _see(self, plan: Plan) -> None:
        """Take up the summaries of shards that were indexed since the last beat."""
        done = keys.done(plan.request.id, "index")
        there = int(self.broker.redis.hlen(done))
        if there < len(plan.known):  # Redis was emptied and the job put back by somebody who looked at it
            plan.restart()
        if there == len(plan.known):
            return
        names = set(cast(list[str], self.broker.redis.hkeys(done))) - plan.known
        new = [name for name in plan.request.shards if name in names]
        for text in cast(list[str], self.broker.redis.hmget(done, new)):
            plan.waiting.append(ShardSummary.model_validate_json(text))
        plan.known.update(new)
        if len(plan.known) == len(plan.request.shards):
            self._keep_shards(plan)

    def _keep_shards(self, plan: Plan) -> None:
        """Let the store know a job's shards before its end: whoever looks at parts may have no Redis."""
        if len(plan.known) > plan.kept:
            plan.kept = len(plan.known)
            self.jobs.write_shards(plan.request.id)

    def _room(self, *groups: str) -> int:
        """How many more chunks these groups' streams may take."""
        return max(0, self.high_water - max(self.broker.depth(group) for group in groups))

    def _lacking(self, request: JobRequest, summary: ShardSummary) -> Iterator[Chunk]:
        """The chunks of a shard to compute next; those whose parts are there are counted for the job."""
        numbers: Sequence[int] = range(summary.chunks(request.chunk_size))
        for group in GROUPS[1:]:
            chunks = list(request.chunks(summary, group, numbers))
            names = self.store.part_names(chunks[0]) if chunks else set()
            there = [chunk for chunk in chunks if chunk.name in names]
            yield from (chunk for chunk in chunks if chunk.name not in names)
            self._count(request, there)
            numbers = [chunk.number for chunk in there]

    def _count(self, request: JobRequest, chunks: Sequence[Chunk]) -> None:
        """Count chunks whose parts are there, but for those that the job has counted before: a footer costs a read."""
        if not chunks:
            return
        group = chunks[0].group
        counted = self.broker.recorded(request.id, group, [chunk.field for chunk in chunks])
        new = [chunk for chunk in chunks if chunk.field not in counted]
        statuses = self.store.read_all_counts(new) if group == FINAL_GROUP else [Counter[str]() for _ in new]
        for chunk, status in zip(new, statuses, strict=True):
            counts = {"images": chunk.images, "chunks": 1, "reused": chunk.images}
            self.broker.record(request.id, chunk, "", counts | (count_of(status) if group == FINAL_GROUP else {}))

    def _rate(self, plan: Plan) -> None:
        """Images a second that this job computed lately; images that were there before do not count."""
        job = keys.job(plan.request.id)
        images, reused = self._numbers(job, f"{FINAL_GROUP}:images", f"{FINAL_GROUP}:reused")
        rate = plan.rate(time.monotonic(), images - reused)
        if rate is not None:
            self.broker.redis.hset(job, "rate", f"{rate:.3f}")

    def _numbers(self, name: str, *fields: str) -> list[int]:
        return [int(value or 0) for value in cast("list[str | None]", self.broker.redis.hmget(name, fields))]

    def _complete(self, plan: Plan) -> bool:
        if not plan.handed_out:
            return False
        fields = ("index:images", f"{FINAL_GROUP}:images", "index:chunks")
        total, done, shards = self._numbers(keys.job(plan.request.id), *fields)
        return shards == len(plan.request.shards) and done == total and self.billing.known(plan.request)
