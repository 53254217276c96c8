"""A worker whose every step is called by a test: it claims chunks, writes their parts, and finishes them."""

from __future__ import annotations

from strata.core.chunks import Chunk
from strata.core.profiles import GROUPS
from strata.core.records import FailureNote, ImageReference, Record, Status
from strata.core.requests import JobRequest, ShardSummary
from strata.jobs.jobs import Jobs
from strata.queue.broker import Claim
from strata.store.store import count_of
from tests.fakes import FAKE_PROFILE


def batch(jobs: Jobs, *shards: str) -> JobRequest:
    """Create a job of shards that need not exist, because a `HandWorker` indexes them."""
    return jobs.new.create("batch", list(shards), FAKE_PROFILE, "lo")


class HandWorker:
    """Works on all groups with FAKE_PROFILE. images: how many images each shard has."""

    def __init__(self, jobs: Jobs, name: str = "hand", images: int = 10) -> None:
        self.jobs, self.name, self.images = jobs, name, images
        self.broker, self.store = jobs.queue.broker, jobs.store

    def claim(self, group: str) -> Claim | None:
        """The next chunk of a group; None if there is none."""
        # the first call on an emptied server only creates the consumer groups
        for _ in range(2):
            if claims := self.broker.claim(group, self.name, 1):
                return claims[0]
        return None

    def write(self, claim: Claim, failed: int = 0) -> None:
        """Write the part of a claimed chunk; its first images failed."""
        chunk = claim.chunk
        if chunk.group != "index":
            self.store.write_records(chunk, [_record(chunk, row, row < failed) for row in range(chunk.images)])

    def finish(self, claim: Claim) -> bool:
        """Finish a claimed chunk, whose part is written; False if another worker has it."""
        chunk = claim.chunk
        if chunk.group == "index":
            summary = ShardSummary(shard=chunk.shard, identity=identity_of(chunk.shard), images=self.images)
            counts = {"images": self.images, "chunks": 1, "unreadable": 0}
            return self.broker.finish(claim, self.name, summary.model_dump_json(), counts)
        counts = {"images": chunk.images, "chunks": 1, "reused": 0, **count_of(self.store.read_footer(chunk).counts)}
        rest = GROUPS[GROUPS.index(chunk.group) + 1 :]
        following = chunk.of_group(rest[0], FAKE_PROFILE.fingerprint(rest[0])) if rest else None
        return self.broker.finish(claim, self.name, "", counts, following)

    def work(self, group: str, count: int = 1, failed: int = 0) -> int:
        """Compute at most so many chunks of a group; returns how many there were."""
        for done in range(count):
            claim = self.claim(group)
            if claim is None:
                return done
            self.write(claim, failed)
            self.finish(claim)
        return count

    def work_all(self) -> int:
        """Compute everything that is queued in all groups, once; returns the number of chunks."""
        return sum(self.work(group, 1000) for group in GROUPS)


def identity_of(shard: str) -> str:
    """The identity that a `HandWorker` gives a shard."""
    return shard.encode().hex()[:16]


def _record(chunk: Chunk, row: int, failed: bool) -> Record:
    return Record(
        key=f"{chunk.number:05d}-{row}",
        image=ImageReference(uri=chunk.shard, size=1),
        status=Status.FAILED if failed else Status.SUCCEEDED,
        failure=FailureNote(stage="captioner", error_type="bad", detail="bad") if failed else None,
    )
