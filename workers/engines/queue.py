"""The chunks of the service, from Redis: claimed with a lease, and finished for all jobs that wait for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from strata.core import GROUPS, Chunk, JobStatus
from strata.errors import QueueUnavailable
from strata.jobs import Jobs
from strata.queue import PRIORITIES, Claim
from strata.telemetry import COUNTERS
from workers.accounts import NotAffordable
from workers.claims import MAX_REFUSALS, Claims, traces_of
from workers.leases import Leases
from workers.profile_versions import ProfileVersions

log = logging.getLogger(__name__)

RECLAIM_SECONDS = 1.0  # between two searches for chunks whose leases have lapsed, or whose holders have ended
REQUEUE_SECONDS = 0.5  # to wait after a chunk was requeued, for budget that is reserved or for another worker


class QueueClaims(Claims):
    """The chunks of one group in this process, from Redis."""

    def __init__(self, group: str, jobs: Jobs, leases: Leases, profiles: ProfileVersions) -> None:
        super().__init__(group, jobs.store, jobs.ledger, jobs.queue.isolation_notes)
        self.jobs, self.leases, self.profiles = jobs, leases, profiles
        self.broker, self.waits = jobs.queue.broker, jobs.queue.waits
        self._next_reclaim = 0.0

    # claiming

    def take(self, priorities: Sequence[str], block: float = 0.0) -> Claim | None:
        """One chunk: reclaimed if a lease has lapsed or its holder has ended, else the next in the streams; or None.

        block: how many seconds to wait for a chunk.
        """
        # search for lapsed leases from time to time only: each search reads the pending messages of both streams
        if time.monotonic() >= self._next_reclaim:
            self.jobs.queue.release_ended()
            claims = self.broker.reclaim(self.group, self.leases.name, self.leases.seconds)
            for claim in claims:
                COUNTERS.add("strata_chunks_reclaimed", claim.chunk.group)
            if claims:  # a worker that died may have held more chunks, so the next call searches again
                self.leases.add(claims)
                return claims[0]
            self._next_reclaim = time.monotonic() + min(RECLAIM_SECONDS, self.leases.seconds / 4)
        claims = self.claim(1, priorities, block)
        return claims[0] if claims else None

    def claim(self, count: int, priorities: Sequence[str] = PRIORITIES, block: float = 0.0) -> list[Claim]:
        """The next chunks in the streams, at most count."""
        claims = self.broker.claim(self.group, self.leases.name, count, block, priorities)
        self.leases.add(claims)
        return claims

    # while chunks are in flight

    def waiting_jobs(self, chunk: Chunk) -> Collection[str]:
        return self.broker.waiting_jobs(chunk)

    def traces(self, chunks: Sequence[Chunk]) -> Sequence[str]:
        return traces_of(self.jobs.queue, chunks)

    def is_wanted(self, claim: Claim) -> bool:
        with suppress(QueueUnavailable):
            return bool(self.broker.waiting_jobs(claim.chunk))
        return True

    def hold_up(self, chunk: Chunk, error: OSError, attempts: int) -> None:
        self.leases.hold_up(chunk, "store", error, attempts)

    def go_on(self, chunk: Chunk) -> None:
        self.leases.go_on(chunk)

    def show_layers(self, layers: Mapping[str, Mapping[str, str]]) -> None:
        with suppress(QueueUnavailable):  # who watches sees the record at the end
            self.jobs.queue.image_layers.put(layers)

    # ends

    def finish(
        self, claim: Claim, statuses: dict[str, int], reused: int = 0, sums: Mapping[str, float] | None = None
    ) -> None:
        """The part is written: count it for the waiting jobs, and queue the next group's chunk.

        statuses: the number of images by status. reused: how many images had a part before. sums: see `Claims.finish`.
        """
        chunk = claim.chunk
        counts = {"images": chunk.images, "chunks": 1, "reused": reused, **statuses}
        next_groups = GROUPS[GROUPS.index(chunk.group) + 1 :]
        following = None
        if next_groups:
            profile = self.profiles.of(chunk.profile, chunk.group, chunk.fingerprint)
            following = chunk.of_group(next_groups[0], profile.fingerprint(next_groups[0]))
        self._end(claim, lambda claim, name: self.broker.finish(claim, name, "", counts, following, sums))
        # a part that existed before says nothing about the stages
        if not reused:
            self.stage_works(claim)

    def step_aside(self, claim: Claim, stage: str, reason: str, refused: bool = False, pause: float = 0.0) -> None:
        """The stage does not work now: let the chunk and the others of its fingerprint wait, and go on with others.

        reason: one line without secrets. refused: its server refuses every request; after MAX_REFUSALS attempts the
        waiting jobs end as failed. pause: seconds that the server asks to wait. Without Redis the lease lapses.
        """
        self.leases.remove(claim)
        COUNTERS.add("strata_chunks_stepped_aside", claim.chunk.group, stage)
        log.warning("chunk %s steps aside, because %s does not work: %s", claim.chunk.id, stage, reason)
        with suppress(QueueUnavailable):
            refusals = self.waits.step_aside(claim, self.leases.name, stage, reason[:300], refused, pause)
            if refusals is not None and refusals >= MAX_REFUSALS:
                self._fail_refused(claim, f"{stage}: {reason}")

    def _fail_refused(self, claim: Claim, reason: str) -> None:
        """End the jobs that wait for a stage whose server refuses everything, with the server's words."""
        group, fingerprint = claim.chunk.group, claim.chunk.fingerprint
        log.error("%s", reason)
        for job_id in self.waits.jobs(group, fingerprint):
            self.jobs.set_status(job_id, JobStatus.FAILED, error=reason[:300])
            # else the next claims would try its chunks before the scheduler has seen that it ended
            self.broker.withdraw(job_id)
        self.waits.end(group, fingerprint)

    def stage_works(self, claim: Claim) -> None:
        """Images of a trial were computed: the stage works, and the chunks that stepped aside return."""
        if claim.trial:
            self.waits.end(claim.chunk.group, claim.chunk.fingerprint)

    def fail(self, claim: Claim, reason: str) -> None:
        """No worker can compute the chunk: end the waiting jobs as failed, with the reason.

        A job that was cancelled or has ended in the meantime stays as it is.
        """
        log.error("%s", reason)
        for job_id in self.broker.waiting_jobs(claim.chunk):
            self.jobs.set_status(job_id, JobStatus.FAILED, error=reason[:300])
        self._end(claim, self.broker.drop)

    def requeue(self, claim: Claim, refusal: NotAffordable) -> None:
        """End the jobs whose budgets are spent, and queue the chunk again for the other waiting jobs."""
        waiting = self.broker.waiting_jobs(claim.chunk)
        # end the jobs that cannot pay; a job that was cancelled or has ended in the meantime stays as it is
        for job_id, reason in refusal.spent.items():
            self.jobs.set_status(job_id, JobStatus.FAILED, error=reason)
        # chunks in flight may return budget before its turn comes
        self._to_the_end(claim, waiting - refusal.spent.keys())

    def leave(self, claim: Claim, reason: str) -> None:
        """Leave the chunk to a worker that has loaded its version of the profile, as while a service is upgraded.

        If there is none, the waiting jobs end as failed, with the reason.
        """
        if not self._is_loaded_elsewhere(claim.chunk):
            self.fail(claim, reason)
            return
        log.info("chunk %s is left to another worker: %s", claim.chunk.id, reason)
        self._to_the_end(claim, self.broker.waiting_jobs(claim.chunk))

    def _is_loaded_elsewhere(self, chunk: Chunk) -> bool:
        others = [one for one in self.jobs.queue.heartbeats.live() if one.name != self.leases.name]
        loaded = [(one.group, one.fingerprint) for other in others for one in other.loaded]
        return (chunk.group, chunk.fingerprint) in loaded

    def _to_the_end(self, claim: Claim, jobs: Collection[str]) -> None:
        """Move a chunk to the end of its stream, for these jobs, and claim nothing for a moment."""
        self._end(claim, self.broker.drop)
        for job_id in sorted(jobs):
            self.broker.enqueue(claim.chunk, job_id, claim.priority)
        self.stop.wait(REQUEUE_SECONDS)

    def replace(self, claim: Claim, other: Chunk) -> None:
        """Queue another chunk, without whose part this one cannot be computed, for the same jobs, and drop this one.

        It is queued again after the other one, or when its jobs are planned again.
        """
        waiting = self.broker.waiting_jobs(claim.chunk)
        self._end(claim, self.broker.drop)
        for job_id in sorted(waiting):
            self.broker.enqueue(other, job_id, claim.priority)

    def release(self, claim: Claim) -> None:
        """Let another worker have the chunk, or drop it if no job waits for it. Without Redis, its lease lapses."""
        self.leases.remove(claim)
        with suppress(QueueUnavailable):
            if self.is_wanted(claim):
                self.broker.release(claim, self.leases.name)
            else:
                self.broker.drop(claim, self.leases.name)

    def release_held(self, claims: Sequence[Claim]) -> None:
        """Release those of the claims that are still held: this process ends."""
        held = self.leases.in_flight()
        for claim in claims:
            if claim in held:
                self.release(claim)

    def hand_over(self, claim: Claim) -> None:
        """Let another worker have the chunk and its isolation notes, because this process ends over it."""
        self.leases.remove(claim)
        self.broker.release(claim, self.leases.name, counted=True)

    def stop_renewing(self, claim: Claim) -> None:
        """Stop renewing a chunk's lease: the chunk is finished, or another worker may reclaim it."""
        self.leases.remove(claim)

    def _end(self, claim: Claim, end: Callable[[Claim, str], bool]) -> None:
        self.leases.remove(claim)
        if not end(claim, self.leases.name):
            log.warning("chunk %s was reclaimed by another worker; it is counted once nevertheless", claim.chunk.id)
