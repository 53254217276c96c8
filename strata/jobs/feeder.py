"""The feeder: queues what unfinished jobs lack, as far as the streams and the quotas of their keys have room."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice

from strata.core import GROUPS, Chunk, JobRequest, JobStatus
from strata.jobs.billing import Billing
from strata.jobs.jobs import Jobs
from strata.jobs.plans import Plan, Room
from strata.jobs.waiting import WaitingJobs
from strata.keys import StoredKeys
from strata.quotas import JobQuotas
from strata.telemetry import span

HELD_SECONDS = 5.0  # between two looks at a job whose key has used a quota, which may be raised meanwhile
COMPARED_SHARDS = 64  # shards, or slices of a big one, of a job whose parts are looked for in one tick


class Feeder:
    """Queues the shards of jobs that are not indexed, and of the others the chunks that have no parts.

    high_water: how many chunks a group's streams hold at most.
    """

    def __init__(self, jobs: Jobs, billing: Billing, waiting: WaitingJobs, high_water: int) -> None:
        self.jobs, self.queue, self.parts = jobs, jobs.queue, jobs.parts
        self.billing, self.waiting, self.high_water = billing, waiting, high_water
        self._quotas = JobQuotas(jobs.queue, StoredKeys(jobs.store))
        self._room = Room(self.queue, high_water, ())
        self._ends = 0.0  # when the tick is to end

    def begin(self, plans: Iterable[Plan], ends: float) -> None:
        """A tick begins. plans: of all jobs, which share the room; ends: its end, in seconds of the monotonic clock."""
        self._room, self._ends = Room(self.queue, self.high_water, plans), ends

    def reset(self) -> None:
        """Forget what was read of quotas: another process has scheduled, or Redis was emptied."""
        self._quotas.reset()

    def can_go_on(self, plan: Plan) -> bool:
        """Whether more chunks of a job can be queued or compared with the store now."""
        if plan.can_compare or (plan.unindexed and self._free(plan, "index")):
            return True
        return bool(plan.chunks) and not plan.is_held and self._free(plan, *GROUPS[1:]) > 0

    def _free(self, plan: Plan, *groups: str) -> int:
        """How many more chunks of these groups may be queued for a job."""
        request = plan.request
        return self._room.free(request.caller, *groups, most=self._quotas.of(request.key).chunks_queued)

    # what the workers have indexed

    def read_summaries(self, plan: Plan) -> None:
        """Add to the plan the summaries of shards that were indexed since the last tick."""
        job_id, states = plan.request.id, self.queue.job_states
        # comparing two numbers is cheap, so that a tick without news costs little
        indexed = states.summary_count(job_id)
        if indexed < len(plan.known):  # Redis was emptied, and a request for the job has rebuilt its working copy
            plan.restart()
        if indexed == len(plan.known):
            return
        # read the new summaries only, in the order of the request
        unread = states.summarized_shards(job_id) - plan.known
        new = [shard for shard in plan.request.shards if shard in unread]
        plan.waiting.extend(states.summaries(job_id, new).values())
        plan.known.update(new)
        if len(plan.known) == len(plan.request.shards):
            self.write_summaries(plan)

    def write_summaries(self, plan: Plan) -> None:
        """Write new summaries to the store before the job ends, for readers of parts that have no Redis."""
        if len(plan.known) > plan.summaries_written:
            plan.summaries_written = len(plan.known)
            self.jobs.write_shards(plan.request.id)

    # queueing

    def feed(self, plan: Plan) -> None:
        """Queue the job's next shards for indexing and its next missing chunks, as far as the streams have room.

        Nothing is queued or counted for a job that was cancelled or has failed in this moment.
        """
        request = plan.request
        self.feed_shards(plan)
        # a job with a budget must not spend more until it is known what it has spent
        may_spend = request.budget is None or self.billing.known(request)
        free = self._free(plan, *GROUPS[1:]) if may_spend and plan.has_more else 0
        # chunks that stepped aside keep no other job waiting, but this one must not add to them without end
        free = min(free, self.high_water - self.waiting.parked(request))
        # queue missing chunks, slice by slice; which of their parts exist is asked when their turn comes. What needs
        # no work must not wait for room in the streams: it is compared and counted even if they are full
        for compared in range(COMPARED_SHARDS + 1):
            queued = self._take_admitted(plan, free)
            self._queue(request, queued)
            free -= len(queued)
            late = compared > 0 and time.monotonic() >= self._ends
            if not plan.can_compare or late or compared == COMPARED_SHARDS:
                break
            if (found := plan.next_slice()) is not None:
                plan.request, missing = self.parts.missing(plan.request, *found)
                plan.chunks.extend(missing)

    def feed_shards(self, plan: Plan) -> None:
        """Queue the job's next shards that are not indexed, as far as the stream has room."""
        request = plan.request
        free = self._free(plan, "index") if plan.unindexed else 0
        shards = [plan.unindexed.popleft() for _ in range(min(free, len(plan.unindexed)))]
        self._queue(request, [request.index_chunk(shard) for shard in shards if shard not in plan.known])

    def _take_admitted(self, plan: Plan, most: int) -> list[Chunk]:
        """Take the next chunks of a plan, at most so many, that the quotas of the job's key admit.

        What exceeds a quota waits; a job of which a chunk can never be admitted fails.
        """
        chunks = [] if plan.is_held else list(islice(plan.chunks, max(0, most)))
        if not chunks:
            return []
        admission = self._quotas.admit(plan.request, chunks)
        admitted = [plan.chunks.popleft() for _ in range(admission.number)]
        was_held = plan.held is not None
        if admission.never:
            self.jobs.set_status(plan.request.id, JobStatus.FAILED, error=admission.reason)
        elif admission.reason:
            plan.hold(admission.reason, min(HELD_SECONDS, admission.seconds or HELD_SECONDS))
        else:
            plan.go_on()
        if plan.held is not None or was_held:
            self.waiting.show(plan.request.id, plan.held)
        return admitted

    def _queue(self, request: JobRequest, chunks: Sequence[Chunk]) -> None:
        """Queue chunks of a job; then there is less room."""
        if chunks:
            with span("queue chunks", [request.trace], job=request.id, group=chunks[0].group, chunks=len(chunks)):
                self.queue.broker.enqueue_all(chunks, request.id, request.priority)
            self._room.has_changed()
