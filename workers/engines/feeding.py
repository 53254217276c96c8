"""The chunks of a run without Redis: the engine gives them to a runner, and learns what became of each."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from strata.core import Chunk, growing_pause
from strata.queue import PRIORITIES, Claim
from strata.store import Store, reason_of
from workers.accounts import NotAffordable
from workers.claims import MAX_REFUSALS, Claims
from workers.engines.desk import Desk
from workers.retry import FIRST_PAUSE, LONGEST_PAUSE

log = logging.getLogger(__name__)

STREAM = "run:lo"  # in place of a stream's name: all chunks of a run have the priority `lo`
LOOK_SECONDS = 1.0  # between two looks whether the run goes on
LONGEST_REQUESTED = 3600.0  # seconds; the upper limit of a pause that a server asks for


class Ended(NamedTuple):
    """What became of a chunk.

    how: "written": it has a part, with these counts; "failed": no process can compute it, and the job fails;
    "again": another part is missing or broken, so that the job is planned anew; "released": the run ends.
    """

    chunk: Chunk
    how: Literal["written", "failed", "again", "released"]
    counts: Mapping[str, int] = {}
    reason: str = ""


class FedClaims(Claims):
    """The chunks of one group, as `add` gives them. ended: is told the end of each. job_id: the only job.

    A chunk that has stepped aside comes back after a pause that grows; meanwhile no other is given, because all chunks
    of a run have the same fingerprint.
    """

    def __init__(self, group: str, store: Store, desk: Desk, job_id: str, ended: Callable[[Ended], None]) -> None:
        super().__init__(group, store, desk, desk)
        self.desk, self.job_id, self._ended = desk, job_id, ended
        self._chunks: deque[Chunk] = deque()
        self._returned: set[str] = set()  # the ids of chunks that have stepped aside
        self._held: dict[str, Claim] = {}
        self._changed = threading.Condition()
        self._attempts = self._refusals = 0
        self._resumes = 0.0
        self._looked, self._is_stopped = -LOOK_SECONDS, False

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Give chunks to the runner."""
        with self._changed:
            self._chunks.extend(chunks)
            self._changed.notify_all()

    def end(self) -> None:
        """Let the runner end, when it has finished its micro-batch."""
        self.stop.set()
        with self._changed:
            self._changed.notify_all()

    # claiming

    def take(self, priorities: Sequence[str], block: float = 0.0) -> Claim | None:
        until = time.monotonic() + block
        if not self._goes_on():
            self._release_all()
        with self._changed:
            while not self._may_take(priorities):
                left = until - time.monotonic()
                if left <= 0 or self.stop.is_set():
                    return None
                # wakes up for a chunk that has stepped aside, too
                self._changed.wait(min(left, max(0.01, self._resumes - time.monotonic())) if self._chunks else left)
            chunk = self._chunks.popleft()
            # one chunk finds out whether the stage works again
            if self._attempts:
                self._resumes = time.monotonic() + LONGEST_REQUESTED
        claim = Claim(chunk, STREAM, chunk.id, self.desk.deliveries(chunk.id), chunk.id in self._returned)
        with self._changed:
            self._held[chunk.id] = claim
        return claim

    def _may_take(self, priorities: Sequence[str]) -> bool:
        ready = "lo" in priorities and bool(self._chunks) and not self.stop.is_set()
        return ready and time.monotonic() >= self._resumes

    def claim(self, count: int, priorities: Sequence[str] = PRIORITIES, block: float = 0.0) -> list[Claim]:
        taken = self.take(priorities, block) if count else None
        return [taken] if taken else []

    # while chunks are in flight

    def waiting_jobs(self, chunk: Chunk) -> Collection[str]:
        return {self.job_id}

    def is_wanted(self, claim: Claim) -> bool:
        return self._goes_on()

    @property
    def images_in_hand(self) -> int:
        """How many images the chunks have that the runner holds."""
        with self._changed:
            return sum(claim.chunk.images for claim in self._held.values())

    def _goes_on(self) -> bool:
        """Whether the run goes on, as the desk has said a moment ago."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._is_stopped = now, self.desk.is_stopped()
        return not self._is_stopped

    def hold_up(self, chunk: Chunk, error: OSError, attempts: int) -> None:
        self.desk.wait_for(chunk.id, "store", reason_of(error), attempts)

    def go_on(self, chunk: Chunk) -> None:
        self.desk.works(chunk.id)

    def show_layers(self, layers: Mapping[str, Mapping[str, str]]) -> None:
        """Nobody watches: a run has no single images."""

    # ends

    def finish(
        self, claim: Claim, statuses: dict[str, int], reused: int = 0, sums: Mapping[str, float] | None = None
    ) -> None:
        counts = {"images": claim.chunk.images, "chunks": 1, "reused": reused, **statuses}
        self.desk.forget(claim.chunk.id)
        self._end(claim, Ended(claim.chunk, "written", counts))
        if not reused:
            self.stage_works(claim)

    def step_aside(self, claim: Claim, stage: str, reason: str, refused: bool = False, pause: float = 0.0) -> None:
        log.warning("chunk %s steps aside, because %s does not work: %s", claim.chunk.id, stage, reason)
        with self._changed:
            self._refusals = self._refusals + 1 if refused else 0
            self._attempts += 1
            growing = growing_pause(self._attempts - 1, FIRST_PAUSE, LONGEST_PAUSE)
            self._resumes = time.monotonic() + max(growing, min(pause, LONGEST_REQUESTED))
        self.desk.wait_for(self.group, stage, reason, self._attempts)
        if self._refusals >= MAX_REFUSALS:
            self.fail(claim, f"{stage}: {reason}")
            return
        self._returned.add(claim.chunk.id)
        self.desk.clear(claim.chunk.id)
        self._put_back(claim)

    def stage_works(self, claim: Claim) -> None:
        if self._attempts:
            with self._changed:
                self._attempts, self._refusals, self._resumes = 0, 0, 0.0
                self._changed.notify_all()
            self.desk.works(self.group)

    def fail(self, claim: Claim, reason: str) -> None:
        log.error("%s", reason)
        self._end(claim, Ended(claim.chunk, "failed", reason=reason[:300]))

    def requeue(self, claim: Claim, refusal: NotAffordable) -> None:
        # the only job cannot pay: it fails; else chunks in flight may return budget
        if refusal.spent:
            self.fail(claim, "; ".join(refusal.spent.values()))
            return
        self._put_back(claim)
        self.stop.wait(FIRST_PAUSE)

    def replace(self, claim: Claim, other: Chunk) -> None:
        self._end(claim, Ended(claim.chunk, "again"))

    def release(self, claim: Claim) -> None:
        if self.stop.is_set() or self.desk.is_stopped():
            self.desk.clear(claim.chunk.id)
            self._end(claim, Ended(claim.chunk, "released"))
        else:
            self._put_back(claim)

    def release_held(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            if claim.chunk.id in self._held:
                self.release(claim)

    def hand_over(self, claim: Claim) -> None:
        """The notes are at the desk, and the next process gets the chunk anew."""
        self.stop_renewing(claim)

    def stop_renewing(self, claim: Claim) -> None:
        with self._changed:
            self._held.pop(claim.chunk.id, None)

    def _release_all(self) -> None:
        """The run ends: give back the chunks that nobody has taken."""
        with self._changed:
            left, self._chunks = list(self._chunks), deque()
        for chunk in left:
            self._ended(Ended(chunk, "released"))

    def _put_back(self, claim: Claim) -> None:
        with self._changed:
            self._held.pop(claim.chunk.id, None)
            self._chunks.appendleft(claim.chunk)
            self._changed.notify_all()

    def _end(self, claim: Claim, ended: Ended) -> None:
        with self._changed:
            self._held.pop(claim.chunk.id, None)
            self._returned.discard(claim.chunk.id)
            # a trial that has ended in another way lets the next chunk be one
            self._resumes = 0.0
            self._changed.notify_all()
        self._ended(ended)
