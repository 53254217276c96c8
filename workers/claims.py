"""Claims: what a runner asks of the engine that gives it chunks. `workers.engines` has an implementation for each.

All that is computed of a chunk lies in front of this wall, and is the same for every engine. Behind it lies what an
engine keeps: which chunks are next, what was in flight when a process ended, and what a job may spend.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from strata.core import Chunk
from strata.errors import QueueUnavailable
from strata.queue import PRIORITIES, Claim, Queue
from strata.store import Store
from strata.telemetry import is_traced
from workers.accounts import Budgets, NotAffordable
from workers.isolation import KeptNotes, watched_storage
from workers.retry import Result, retry_until_done

MAX_REFUSALS = 8  # attempts in a row that a server refuses, about a minute, after which the waiting jobs fail
MOST_TRACES = 32  # that the span of a chunk is linked with
MOST_JOBS = 3  # whose ids a line of the log has


def traces_of(queue: Queue, chunks: Sequence[Chunk]) -> Sequence[str]:
    """The traces of the requests whose jobs wait for chunks; none if this process sends no spans, or without Redis."""
    if is_traced():
        with suppress(QueueUnavailable):
            jobs = set[str]().union(*queue.broker.all_waiting_jobs(chunks))
            return queue.job_states.traces(sorted(jobs)[:MOST_TRACES])
    return ()


def told_jobs(ask: Callable[[Chunk], Collection[str]], chunk: Chunk) -> str:
    """The ids of the jobs that wait for a chunk, as lines of the log have them; empty without Redis."""
    with suppress(QueueUnavailable):
        return ",".join(sorted(ask(chunk))[:MOST_JOBS])
    return ""


class Claims(ABC):
    """The chunks of one group in this process. stop: set when the work is to end.

    Every method raises QueueUnavailable if the engine needs Redis, except where it says that it goes on without Redis.
    """

    def __init__(self, group: str, store: Store, budgets: Budgets, notes: KeptNotes) -> None:
        self.group, self.store, self.budgets, self.notes = group, store, budgets, notes
        self.stop = threading.Event()

    # claiming

    @abstractmethod
    def take(self, priorities: Sequence[str], block: float = 0.0) -> Claim | None:
        """One chunk, one whose holder has died before others; None if there is none.

        block: how many seconds to wait for a chunk.
        """

    @abstractmethod
    def claim(self, count: int, priorities: Sequence[str] = PRIORITIES, block: float = 0.0) -> list[Claim]:
        """The next chunks, at most count."""

    # while chunks are in flight

    @abstractmethod
    def waiting_jobs(self, chunk: Chunk) -> Collection[str]:
        """The ids of the jobs that wait for the chunk."""

    def traces(self, chunks: Sequence[Chunk]) -> Sequence[str]:
        """The traces of the requests whose jobs wait for chunks; none where the engine keeps none."""
        return ()

    @abstractmethod
    def is_wanted(self, claim: Claim) -> bool:
        """Whether a job waits for the chunk. While this is not known, the work goes on."""

    def retry(self, claim: Claim, act: Callable[[], Result], error: type[Exception]) -> Result:
        """The result of act, called again while it raises error and the chunk is wanted. Raises WorkInterrupted.

        While the store is away, the jobs that wait for the chunk show it.
        """
        watched = watched_storage(claim, act)

        def tell(error: Exception, attempts: int) -> None:
            if isinstance(error, OSError):
                self.hold_up(claim.chunk, error, attempts)

        try:
            return retry_until_done(watched, (error,), self.stop, lambda: self.is_wanted(claim), tell)
        finally:
            self.go_on(claim.chunk)

    @abstractmethod
    def hold_up(self, chunk: Chunk, error: OSError, attempts: int) -> None:
        """The chunk waits for the store or for its shard: tell it where the jobs show it."""

    @abstractmethod
    def go_on(self, chunk: Chunk) -> None:
        """The chunk waits no longer. Harmless if it did not wait."""

    @abstractmethod
    def show_layers(self, layers: Mapping[str, Mapping[str, str]]) -> None:
        """Show the layers of single images so far, by the ids of their chunks, to people who watch, if any can."""

    # ends

    @abstractmethod
    def finish(
        self, claim: Claim, statuses: dict[str, int], reused: int = 0, sums: Mapping[str, float] | None = None
    ) -> None:
        """The part is written: count it for the waiting jobs, and make the next group's chunk ready.

        statuses: the number of images by status. reused: how many images had a part before. sums: what metrics count
        of the chunk, by field.
        """

    @abstractmethod
    def step_aside(self, claim: Claim, stage: str, reason: str, refused: bool = False, pause: float = 0.0) -> None:
        """The stage does not work now: let the chunk and the others of its fingerprint wait, and go on with others.

        reason: one line without secrets. refused: its server refuses every request; after MAX_REFUSALS attempts the
        waiting jobs end as failed. pause: seconds that the server asks to wait.
        """

    @abstractmethod
    def stage_works(self, claim: Claim) -> None:
        """Images were computed: if they were a trial, the stage works, and the chunks that stepped aside return."""

    @abstractmethod
    def fail(self, claim: Claim, reason: str) -> None:
        """No process can compute the chunk: end the waiting jobs as failed, with the reason."""

    def leave(self, claim: Claim, reason: str) -> None:
        """This process cannot compute the chunk, since its profile is another one: leave it to a process that can.

        If none is known, the waiting jobs end as failed, with the reason.
        """
        self.fail(claim, reason)

    @abstractmethod
    def requeue(self, claim: Claim, refusal: NotAffordable) -> None:
        """End the jobs whose budgets are spent; the chunk's turn comes again if others wait for it."""

    @abstractmethod
    def replace(self, claim: Claim, other: Chunk) -> None:
        """Another chunk is needed, without whose part this one cannot be computed: its turn comes first."""

    @abstractmethod
    def release(self, claim: Claim) -> None:
        """Give the chunk back as it was."""

    @abstractmethod
    def release_held(self, claims: Sequence[Claim]) -> None:
        """Release those of the claims that are still held: this process ends."""

    @abstractmethod
    def hand_over(self, claim: Claim) -> None:
        """Let another process have the chunk and its isolation notes, because this one ends over it."""

    @abstractmethod
    def stop_renewing(self, claim: Claim) -> None:
        """The chunk is finished, or another process may have it."""
