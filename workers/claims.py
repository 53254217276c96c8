"""Claims: the chunks that a group's runner takes, and the ways each of them can end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import redis

from strata.core.profiles import GROUPS
from strata.core.schemas import JobStatus
from strata.jobs.jobs import Jobs
from strata.queue import keys
from strata.queue.broker import Claim
from workers.accounts import NotAffordable
from workers.leases import Leases
from workers.retry import Result, retry_until_done

log = logging.getLogger(__name__)

TAKE_OVER_SECONDS = 2.0  # how often to look for chunks of silent holders
LATER_SECONDS = 0.5  # before the next chunk is looked at, where one must wait for others to settle what they reserved


class Claims:
    """What one group holds in this process. stop: set when the worker shall end.

    All methods raise redis.RedisError, but where they say that they go on without Redis.
    """

    def __init__(self, group: str, jobs: Jobs, leases: Leases, fingerprint_of: Callable[[str, str], str]) -> None:
        self.group, self.jobs, self.leases, self.fingerprint_of = group, jobs, leases, fingerprint_of
        self.broker = jobs.broker
        self.stop = threading.Event()
        self._overdue = 0.0

    # taking

    def take(self, priorities: Sequence[str], block: float = 0.0) -> Claim | None:
        """One chunk: of a holder that fell silent, else the next in the streams; block: seconds to wait for one."""
        if time.monotonic() >= self._overdue:
            claims = self.broker.take_over(self.group, self.leases.name, self.leases.seconds)
            if claims:  # there may be more, so the next look is soon
                self.leases.hold(claims)
                return claims[0]
            self._overdue = time.monotonic() + min(TAKE_OVER_SECONDS, self.leases.seconds / 4)
        claims = self.next(1, priorities, block)
        return claims[0] if claims else None

    def next(self, count: int, priorities: Sequence[str] = keys.PRIORITIES, block: float = 0.0) -> list[Claim]:
        """The next chunks in the streams, at most count."""
        claims = self.broker.claim(self.group, self.leases.name, count, block, priorities)
        self.leases.hold(claims)
        return claims

    # while they are in hand

    def wanted(self, claim: Claim) -> bool:
        """Whether a job still waits for the chunk; while Redis is away nobody can say, and the work goes on."""
        with suppress(redis.RedisError):
            return bool(self.broker.waiting_jobs(claim.chunk))
        return True

    def waiting(self, claim: Claim, act: Callable[[], Result], error: type[Exception]) -> Result:
        """What act answers, tried again while it raises error. Raises WorkInterrupted, as `retry_until_done` does."""
        return retry_until_done(act, (error,), self.stop, lambda: self.wanted(claim))

    # their ends

    def finish(self, claim: Claim, statuses: dict[str, int], reused: int = 0) -> None:
        """The part is there: count it for the jobs that wait, and queue the next group's chunk.

        statuses: the images by status. reused: images whose part was there before.
        """
        chunk = claim.chunk
        counts = {"images": chunk.images, "chunks": 1, "reused": reused, **statuses}
        place = GROUPS.index(chunk.group) + 1
        following = None
        if place < len(GROUPS):
            following = chunk.of_group(GROUPS[place], self.fingerprint_of(chunk.profile, GROUPS[place]))
        self._end(claim, lambda claim, name: self.broker.finish(claim, name, "", counts, following))

    def abandon(self, claim: Claim, reason: str) -> None:
        """The chunk cannot be done here or anywhere: its jobs end as failed and say why."""
        log.error("%s", reason)
        for job_id in self.broker.waiting_jobs(claim.chunk):
            self.jobs.set_status(job_id, JobStatus.FAILED, error=reason[:300])
        self._end(claim, self.broker.drop)

    def defer(self, claim: Claim, refusal: NotAffordable) -> None:
        """Jobs whose budget is spent end; others that wait for the chunk have it again at the end of the line."""
        waiting = self.broker.waiting_jobs(claim.chunk)
        for job_id, reason in refusal.spent.items():
            status = self.jobs.status(job_id)
            if status is not None and not status.final:
                self.jobs.set_status(job_id, JobStatus.FAILED, error=reason)
        self._end(claim, self.broker.drop)
        for job_id in sorted(waiting - refusal.spent.keys()):
            self.broker.enqueue(claim.chunk, job_id, claim.priority)
        self.stop.wait(LATER_SECONDS)

    def leave(self, claim: Claim) -> None:
        """Hand a chunk to another worker, or drop it if nobody waits for it; without Redis its lease lapses."""
        self.leases.release(claim)
        with suppress(redis.RedisError):
            if self.wanted(claim):
                self.broker.give_back(claim, self.leases.name)
            else:
                self.broker.drop(claim, self.leases.name)

    def release(self, claim: Claim) -> None:
        """Renew a claim no longer: it has ended, or whoever sees it first takes it over."""
        self.leases.release(claim)

    def _end(self, claim: Claim, end: Callable[[Claim, str], bool]) -> None:
        self.leases.release(claim)
        if not end(claim, self.leases.name):
            log.warning("chunk %s had been taken over; it counts once all the same", claim.chunk.id)
