"""What a submission would compute, before it is made: shards, images, reused results, time and money.

Nothing is created. Shards that were indexed before are counted by their index; of others some are read, as far as the
time allows. If not all shards were looked at, the numbers are scaled from those that were.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.dependencies import Services
from strata.addresses import without_secrets
from strata.core import FINAL_GROUP, GROUPS, BatchPreview, Chunk, JobStatus, JobView, Profile, UnreadShard, source_shard
from strata.queue import JobFilter
from strata.shards import SourceError, index_shard, shard_stamps
from strata.store import BrokenPart

SECONDS = 3.0  # for which shards are looked at
MOST_SHARDS = 200  # that are looked at, spread evenly over all
MOST_UNREAD = 20  # shards that the answer names with the reason
EARLIER_JOBS = 20  # that are searched for one whose rate and cost are known
LEAST_COMPUTED = 32  # images: the time of a job that has computed fewer is mostly that of its beginning and its end


class TimeOver(SourceError):
    """A shard is too large to be read for a preview. It is a SourceError, which passes through unchanged."""


@dataclass
class _Looked:
    """What was seen of some shards. reused: None if it is not known of one; failed: those of them that failed."""

    shards: int = 0
    images: int = 0
    reused: int | None = 0
    failed: int | None = None


class Preview:
    """Looks at shards for one submission. Raises QueueUnavailable and OSError.

    tenant: whose earlier jobs tell what to expect; None: all jobs do.
    """

    def __init__(self, given: Services, profile: Profile, tenant: str | None) -> None:
        self.given, self.profile, self.tenant = given, profile, tenant
        self.end = time.monotonic() + SECONDS
        self.unread: list[UnreadShard] = []
        self.looked = _Looked()
        self._identities: set[str] = set()  # of the shards that were looked at

    def of(self, shards: Sequence[str]) -> BatchPreview:
        """The preview of a job of these shards."""
        shards = list(dict.fromkeys(shards))
        for shard in _spread(shards, MOST_SHARDS):
            if time.monotonic() >= self.end:
                break
            self._look_at(shard)
        seen = self.looked
        scale = len(shards) / seen.shards if seen.shards else 0.0
        images, reused, failed = (
            round(number * scale) if seen.shards and number is not None else None
            for number in (seen.images, seen.reused, seen.failed)
        )
        earlier = self._earlier_job()
        rate, price = (earlier.run_rate, _price(earlier)) if earlier else (None, None)
        computed = None if images is None or reused is None else images - reused
        return BatchPreview(
            shards=len(shards),
            looked_at=seen.shards,
            images=images,
            reused=reused,
            failed=failed,
            unread=self.unread,
            seconds=computed / rate if computed is not None and rate else None,
            money=computed * price if computed is not None and price is not None else None,
            like=earlier.id if earlier else None,
            first=[source_shard(shard) for shard in shards[:3]],
        )

    def _look_at(self, shard: str) -> None:
        """Count the images of a shard, and those whose results exist."""
        try:
            identity, images = self._count(shard)
        except TimeOver:
            return
        except (SourceError, OSError) as error:
            self.looked.shards += 1
            self._tell(shard, str(error))
            return
        self.looked.shards += 1
        self.looked.images += images
        # what is computed for a shard are the results of its copies too
        is_copy = identity in self._identities
        self._identities.add(identity)
        try:
            reused = images if is_copy else self._reused(shard, identity, images)
        except TimeOver:
            self.looked.reused = None
        else:
            self.looked.reused = None if self.looked.reused is None else self.looked.reused + reused

    def _count(self, shard: str) -> tuple[str, int]:
        """The identity and the images of a shard. Raises TimeOver, SourceError and OSError."""
        return self._indexed(shard) or self._read(shard)

    def check_time(self) -> None:
        """Raise TimeOver if the time of the preview is over."""
        if time.monotonic() >= self.end:
            raise TimeOver("the time of the preview is over")

    def _tell(self, shard: str, reason: str) -> None:
        if len(self.unread) < MOST_UNREAD:
            self.unread.append(
                UnreadShard(shard=source_shard(shard), reason=" ".join(without_secrets(reason).split())[:300])
            )

    def _indexed(self, shard: str) -> tuple[str, int] | None:
        """The identity and the images of a shard that was indexed before as it is now."""
        store, stamp = self.given.store, shard_stamps(shard).now
        identity = store.read_identity(stamp) if stamp else None
        if identity is None:
            return None
        fingerprint = self.profile.fingerprint(GROUPS[0])
        try:
            table, _ = store.read_index(Chunk(GROUPS[0], self.profile.name, fingerprint, shard, identity))
        except (FileNotFoundError, BrokenPart):
            return None
        return identity, table.num_rows

    def _read(self, shard: str) -> tuple[str, int]:
        """The identity and the images of a shard that was not indexed before. Raises TimeOver."""
        index = index_shard(shard, self.given.settings.shard_roots, progress=self.check_time)
        if index.failure:
            self._tell(shard, index.failure)
        return index.identity, index.table.num_rows

    def _reused(self, shard: str, identity: str, images: int) -> int:
        """How many of a shard's images have results of this version of the profile. Raises TimeOver."""
        size, fingerprint = self.profile.chunk_size, self.profile.fingerprint(FINAL_GROUP)
        first = Chunk(FINAL_GROUP, self.profile.name, fingerprint, shard, identity)
        found = self.given.store.attempts(first).found
        return sum(min(size, images - number * size) for number in found if number * size < images)

    def _earlier_job(self) -> JobView | None:
        """The newest completed job of the profile that tells what others take: most of its images are its own work.

        Not one of a sample: it has small chunks. Nor a retry of a few images: what was paid is of all runs.
        """
        chosen = JobFilter(status=JobStatus.COMPLETED, kind="batch", profile=self.profile.name, tenant=self.tenant)
        views, _ = self.given.listing.page(chosen, EARLIER_JOBS)
        return next((view for view in views if view.sample is None and _tells(view)), None)


def _tells(view: JobView) -> bool:
    """Whether a job has computed so many images, and so many of its own, that its rate and cost mean something."""
    enough = max(LEAST_COMPUTED, view.request_counts.total / 2)
    return view.run_rate is not None and view.computed >= enough


def _price(view: JobView) -> float | None:
    """What an image of a job has cost; None if its profile has no prices."""
    return view.usage.money / view.computed if view.usage and view.usage.money is not None else None


def _spread(shards: Sequence[str], most: int) -> Iterator[str]:
    """At most so many shards, evenly spread, in an order whose beginnings are spread too."""
    step = max(1, len(shards) / most)
    chosen = [shards[int(index * step)] for index in range(min(most, len(shards)))]
    # the first one, then halves, then quarters: when the time is over, what was seen is still spread
    seen: set[int] = set()
    stride = max(1, len(chosen))
    while len(seen) < len(chosen):
        for index in range(0, len(chosen), stride):
            if index not in seen:
                seen.add(index)
                yield chosen[index]
        stride = max(1, stride // 2)
