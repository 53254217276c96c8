"""The scheduler: compares each unfinished job's plan with the parts in the store and queues the missing chunks.

One process schedules at a time, by a lock with an expiry in Redis. All its state can be rebuilt: a new scheduler, or
one whose Redis was emptied, starts every unfinished job's plan again, and parts that exist are only counted.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from bisect import bisect_left
from contextlib import suppress

from strata.addresses import without_secrets
from strata.core import FINAL_GROUP, STOPPED, JobStatus
from strata.errors import QueueUnavailable
from strata.jobs.billing import Billing
from strata.jobs.feeder import Feeder
from strata.jobs.finalizer import Finalizer
from strata.jobs.image_jobs import ImageJobs
from strata.jobs.jobs import Jobs, UnknownJob, Watch
from strata.jobs.pairing import OtherStore
from strata.jobs.plans import Plan
from strata.jobs.review import Review
from strata.jobs.sampling import Draws
from strata.jobs.waiting import Troubles, WaitingJobs
from strata.queue import LockState, Queue
from strata.store import Store, storage_fault
from strata.webhooks import Post, Sender

log = logging.getLogger(__name__)

REVIEW_SECONDS = 30.0  # every plan is compared with the store again after this time
RATE_LOOK_SECONDS = 1.0  # between two looks at a job whose rate may fall, or that has more to queue than it may
DRAW_LOOK_SECONDS = 0.2  # between two looks at a job whose sample is being drawn
TICK_SECONDS = 1.0  # the jobs that a tick has not reached after this time come first in the next one


class Scheduler:
    """Queues the chunks of jobs and ends the jobs. Call `run` in a thread, or `tick` by hand.

    high_water: how many chunks a group's streams hold at most; upload_days: for how long uploads are kept, None: for
    ever. post: how a webhook is sent, None: none is. watch: is called when a job begins to be computed and when it has
    ended; it must return at once.
    """

    def __init__(
        self,
        queue: Queue,
        store: Store,
        high_water: int,
        upload_days: float | None = None,
        post: Post | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.queue, self.store = queue, store
        self.jobs = Jobs(queue, store)
        self.jobs.watch = watch or self.jobs.watch
        self.billing = Billing(self.jobs)
        self.waiting = WaitingJobs(queue)
        self.feeder = Feeder(self.jobs, self.billing, self.waiting, high_water)
        self.finalizer = Finalizer(self.jobs)
        self.draws = Draws(self.jobs)
        self.parts = self.jobs.parts
        self.images = ImageJobs(self.jobs, self.billing, self.finalizer, self.waiting)
        self.review = Review(self.jobs, upload_days)
        self.sender = Sender(self.jobs.outbox, post) if post else None
        self.name = secrets.token_hex(8)
        self.plans: dict[str, Plan] = {}
        self.troubles = Troubles()
        self.reviewed = -REVIEW_SECONDS
        self._has_lock = False
        self._active: set[str] = set()
        self._owed: set[str] = set()  # jobs that have changed, and that no tick has reached since then
        self._next = ""  # the job with which the next tick begins
        self._ends = 0.0  # when this tick is to end
        self._looked_at_all = False  # since then the jobs that change are known one by one

    def run(self, stop: threading.Event, interval: float = 0.1) -> None:
        """Call `tick` every interval seconds until stop is set. While Redis is away, wait for it."""
        while not stop.wait(interval):
            try:
                self.tick()
            except QueueUnavailable as error:
                log.warning("the scheduler waits for Redis: %s", error)
                self._reset()
                stop.wait(1.0)
            except OtherStore as error:
                log.error("the scheduler waits: %s", error)
                stop.wait(1.0)
            except Exception as error:
                if storage_fault(error) is None:
                    log.exception("scheduler: a tick failed; the next one tries again")
                else:
                    log.warning("the scheduler waits for the store: %s", without_secrets(str(error)))
                stop.wait(1.0)
        self.finalizer.close()
        self.draws.close()
        self.images.close()
        self.review.close()
        self.billing.close()
        if self.sender is not None:
            self.sender.close()
        with suppress(QueueUnavailable):
            self.queue.scheduler_lock.release(self.name)

    def tick(self) -> None:
        """Acquire the lock, find the unfinished jobs, queue their chunks, and end the jobs that are complete."""
        # without the lock another process schedules, and this one's plans are out of date
        if not self._acquire_lock():
            self._reset()
            return
        # from time to time, and after every reset, compare everything with the store
        if time.monotonic() - self.reviewed >= REVIEW_SECONDS:
            self.review.begin()
            self.reviewed = time.monotonic()
            self._looked_at_all = False
        # work on what has changed; a tick that fails is followed by one that looks at all jobs
        changed, self._looked_at_all = self._find_changed(), False
        self.review.restore_next(self._active)
        waited = self.waiting.anything
        tells = self.waiting.refresh() and (waited or self.waiting.anything)
        self._advance_images(changed, tells)
        self._advance_batches(changed, tells)
        self._looked_at_all = True
        if self.sender is not None:
            self.sender.advance()

    def _find_changed(self) -> set[str]:
        """The jobs that have changed since the last tick; all that are unfinished or known, if that is not certain."""
        states = self.queue.job_states
        if not self._looked_at_all:
            known = self._active
            self._active = states.active()
            return known | self._active | self.plans.keys()
        found = states.changed()
        for job_id, active in found.items():
            (self._active.add if active else self._active.discard)(job_id)
        return set(found)

    def _advance_images(self, changed: set[str], tells: bool) -> None:
        """Advance the jobs of one image, and show the errors of the threads that work on them.

        tells: what they wait for may have changed.
        """
        self.images.advance(self._active, changed, all_of_them=tells)
        for job_id, error in self.images.take_outcomes():
            if error is not None:
                self._note_trouble(job_id, error)
            elif self.troubles.clear(job_id):
                self.waiting.show(job_id, None)

    def _advance_batches(self, changed: set[str], tells: bool) -> None:
        """Advance the other jobs, the oldest first, and drop the plans of jobs that have ended.

        A tick ends TICK_SECONDS after it began, but not within a slice of a job's chunks. What is left goes on in the
        next one, which begins with the job that comes next, so that no job waits for another one's big plan.
        """
        now = time.monotonic()
        self._ends = now + TICK_SECONDS
        self.feeder.begin(self.plans.values(), self._ends)
        job_ids = sorted((self._active | self.plans.keys()) - self.images.known)
        self._owed |= set(job_ids) if tells else changed
        first, self._next = bisect_left(job_ids, self._next), ""
        for job_id in job_ids[first:] + job_ids[:first]:
            plan = self.plans.get(job_id)
            if job_id not in self._active:
                self._drop(job_id)
            elif not self.troubles.is_due(job_id, now):
                continue
            elif plan is None or job_id in self._owed or plan.wakes <= now or self.feeder.can_go_on(plan):
                if self._next:  # the time was over before
                    self._next = job_id
                    return
                self._attend(job_id)
                self._owed.discard(job_id)
                self._next = job_id if time.monotonic() >= self._ends else ""
        self._next = ""
        self._owed.clear()

    def _acquire_lock(self) -> bool:
        state = self.queue.scheduler_lock.acquire(self.name)
        if state is LockState.ACQUIRED:
            # the lock was ours and is gone: Redis may have lost everything else too
            if self._has_lock:
                self._reset()
            self._has_lock = True
        return state is not LockState.HELD_BY_ANOTHER

    def _reset(self) -> None:
        """Drop all plans: another process schedules, or Redis may have lost what was queued."""
        self.plans.clear()
        self.review.reset()
        self.finalizer.reset()
        self.draws.reset()
        self.images.reset()
        self.feeder.reset()
        if self.sender is not None:
            self.sender.reset()
        self._looked_at_all = False
        self._owed.clear()
        self.reviewed = -REVIEW_SECONDS
        self._has_lock = False

    def _drop(self, job_id: str) -> None:
        """Forget a job on which the scheduler no longer works."""
        self.plans.pop(job_id, None)
        self.finalizer.forget(job_id)
        self.draws.forget(job_id)
        self.troubles.clear(job_id)

    def _attend(self, job_id: str) -> None:
        """Advance one job. Its errors are shown on the job and do not stop the others; it is tried again later."""
        try:
            plan = self.plans.get(job_id) or Plan(self.jobs.request(job_id))
            self.plans[job_id] = plan
            # queue again what may have been lost, and count parts that other jobs have written
            if plan.is_due(REVIEW_SECONDS):
                self.feeder.write_summaries(plan)
                if plan.all_queued:
                    plan.restart()
            ended = self._advance(plan)
        except QueueUnavailable:
            raise
        except UnknownJob:
            log.warning("job %s is not planned: neither Redis nor the store has its request", job_id)
            self.queue.job_states.deactivate(job_id)
            self._drop(job_id)
        except Exception as error:
            self._note_trouble(job_id, error)
        else:
            if ended:
                self._drop(job_id)
            elif self.troubles.clear(job_id):
                self.waiting.show(job_id, plan.held)

    def _note_trouble(self, job_id: str, error: Exception) -> None:
        # the plan may have lost what was to be queued: the next attempt begins with a new one
        self.plans.pop(job_id, None)
        before, waiting = self.troubles.reason(job_id), self.troubles.add(job_id, error, time.monotonic())
        # once for each reason, with the traceback of an error in our code; a storage that is away or full needs none
        if waiting.reason != before:
            unexpected = storage_fault(error) is None
            log.warning("job %s cannot be planned: %s", job_id, waiting.reason, exc_info=unexpected)
        self.waiting.show(job_id, waiting)

    def _advance(self, plan: Plan) -> bool:
        """Do for a job what can be done now; True if the job has ended."""
        plan.rest(0.0)
        status = self.jobs.status(plan.request.id)
        if status is None:  # Redis was emptied since the last tick
            self.jobs.restore(plan.request.id)
            plan.restart()
        elif status in STOPPED:
            # a worker sets the status `failed` if a chunk cannot be computed or the budget is spent
            return self.finalizer.end(plan.request, status)
        elif self.finalizer.is_counting(plan.request):
            return self.finalizer.advance(plan)
        elif plan.request.draws:
            self._draw(plan)
        else:
            self.waiting.tell(plan)
            status = self._begin(plan, status)
            self.feeder.feed(plan)
            self._update_rate(plan, status)
            if self._is_complete(plan):
                self.finalizer.begin(plan.request)
            elif not plan.has_more and self.billing.known(plan.request):
                # a rate falls while nothing is computed
                plan.rest(RATE_LOOK_SECONDS if plan.is_running else REVIEW_SECONDS)
            elif plan.has_more:
                plan.rest(RATE_LOOK_SECONDS)
        return False

    # indexing

    def _draw(self, plan: Plan) -> None:
        """Have all shards of a job indexed, then its sample drawn; after that its shards are the drawn images."""
        self.waiting.tell(plan)
        self.feeder.read_summaries(plan)
        plan.waiting.clear()  # none of their chunks is one of the job
        self.feeder.feed_shards(plan)
        plan.rest(RATE_LOOK_SECONDS)
        if len(plan.known) == len(plan.request.shards):
            plan.rest(DRAW_LOOK_SECONDS)
            if (drawn := self.draws.advance(plan.request)) is not None:
                self.plans[drawn.id] = Plan(drawn)
                self.jobs.watch(self.store, drawn, JobStatus.IN_PROGRESS)

    def _begin(self, plan: Plan, status: JobStatus) -> JobStatus:
        """Read what was indexed; the first summary ends the validation of the job's shards. Returns the status."""
        self.feeder.read_summaries(plan)
        if plan.known and status is JobStatus.VALIDATING:
            begun = self.jobs.set_status(plan.request.id, JobStatus.IN_PROGRESS)
            if begun is JobStatus.IN_PROGRESS:
                self.jobs.watch(self.store, plan.request, begun)
            return begun or status
        return status

    # ending

    def _update_rate(self, plan: Plan, status: JobStatus) -> None:
        """Set the job's rate: images per second that were computed lately, without those whose parts existed."""
        states, job_id = self.queue.job_states, plan.request.id
        images, reused = states.counts(job_id, f"{FINAL_GROUP}:images", f"{FINAL_GROUP}:reused")
        rate = plan.rate(time.monotonic(), images - reused)
        if rate is not None:
            states.set_fields(job_id, status, rate=f"{rate:.3f}")

    def _is_complete(self, plan: Plan) -> bool:
        """Whether every shard is indexed, every image has a result, and the job's spending is known."""
        if not plan.all_queued:
            return False
        names = ("index:images", f"{FINAL_GROUP}:images", "index:chunks")
        total, done, shards = self.queue.job_states.counts(plan.request.id, *names)
        # a chunk is counted once, however many shards of the job have its content: add the others at the end
        if done < total <= done + sum(summary.images for _, summary in plan.copies):
            for number, summary, numbers in plan.slices_of_copies():
                self.parts.count_copy(plan.request, summary, number, numbers)
                if time.monotonic() >= self._ends:
                    break
        return shards == len(plan.request.shards) and done == total and self.billing.known(plan.request)
