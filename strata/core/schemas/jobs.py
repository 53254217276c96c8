"""Jobs as they are shown: status, progress, cost, what they wait for, failures."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from strata.core.ids import DEFAULT_TENANT
from strata.core.profiles import FINAL_GROUP
from strata.core.records import FailureNote
from strata.core.schemas.batches import Budget, Priority

JobKind = Literal["image", "batch"]


class JobStatus(StrEnum):
    """The state of a job; the last three are final."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the job has ended: its status will not change any more, except by a retry."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class RequestCounts(BaseModel):
    """The images of a job by state; at the end total = succeeded + filtered + failed + cancelled."""

    total: int = 0
    queued: int = 0
    processing: int = 0
    succeeded: int = 0
    filtered: int = 0
    failed: int = 0
    cancelled: int = 0


class ShardCounts(BaseModel):
    """The shards of a job. A failed shard stays in `total`; its reason is in /failures.

    left_out: how many files of the indexed shards are in no row, by the reason: `hidden`, `no_image`, `further_image`
    (of a sample that has one already), `text_without_image`, `metadata_without_image`, `unreadable_folder` and
    `text_too_many`.
    """

    total: int = 0
    indexed: int = 0
    failed: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)


class GroupProgress(BaseModel):
    """Images and chunks of a job that a group has finished.

    reused: images that were not computed for the job, because their part existed before, or because their rows were
    copied from earlier parts.
    """

    images: int = 0
    chunks: int = 0
    reused: int = 0


class JobUsage(BaseModel):
    """What a job has spent on model servers. money is null if the profile has no prices.

    reserved: the upper bound for chunks that are being computed, and for interrupted work whose cost is not known.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    money: float | None = None
    reserved_tokens: int = 0
    reserved_money: float | None = None


class Waiting(BaseModel):
    """What an unfinished job waits for: the stage, why it does not work, since when, and the attempts since then.

    stage: a stage of the profile; "store" or "shard" if a worker cannot reach the store or a shard; "quota" if the key
    that made the job has used what it may; "scheduler" if the job cannot be planned.
    """

    stage: str
    reason: str
    since: datetime
    attempts: int


class ChosenRows(BaseModel):
    """Which rows a job describes once more: those of jobs, snapshots and data sets that a filter chooses, or all."""

    sources: list[str]
    where: str | None = None


class JobSample(BaseModel):
    """That a job describes a random sample of the images of its shards (`POST /v1/batches/estimate`).

    images: how many, at most; seed: of the draw. drawn: whether all shards are indexed and the images are drawn; the
    job's counts are then those of the sample.
    """

    images: int
    seed: int
    drawn: bool = False


class JobView(BaseModel):
    """A job, of one image or of many shards. Times are in RFC 3339, UTC.

    waiting: what the job waits for now; null if nothing is in its way. tenant: to whom it belongs; empty if that is not
    known, because its request is damaged. chosen: which rows of other jobs it describes; null: shards or an image.
    sample: null of a job that describes all images.

    images_per_second: images that the job has computed itself, without those that it found computed. While the job
    runs: over the last half minute in which it has computed some; null in its first ten seconds. Of a job that has
    ended: over the time from `started_at` to `finished_at`, in which it may also have waited; after a retry both are
    those of the retry alone. Null if it has computed none, and of a job of one image.
    """

    id: str
    kind: JobKind
    status: JobStatus
    profile: str
    priority: Priority
    metadata: dict[str, str] = Field(default_factory=dict)
    request_counts: RequestCounts
    shards: ShardCounts
    groups: dict[str, GroupProgress]
    usage: JobUsage | None = None
    budget: Budget | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    waiting: Waiting | None = None
    links: dict[str, str] = Field(default_factory=dict)
    tenant: str = DEFAULT_TENANT
    chosen: ChosenRows | None = None
    sample: JobSample | None = None

    @property
    def computed(self) -> int:
        """Images that the job's last run has computed itself."""
        done = self.groups.get(FINAL_GROUP)
        return max(0, done.images - done.reused) if done else 0

    @property
    def run_rate(self) -> float | None:
        """Images per second over the whole last run of a job of shards that has ended; None if it has computed none."""
        if self.kind == "image" or self.finished_at is None or not self.computed:
            return None
        seconds = (self.finished_at - (self.started_at or self.created_at)).total_seconds()
        return round(self.computed / seconds, 3) if seconds > 0 else None


class JobPage(BaseModel):
    """`GET /v1/jobs`, newest first. next: the cursor of the following page, null on the last one."""

    jobs: list[JobView]
    next: str | None = None


class FailureRow(BaseModel):
    """One line of `/failures`: a shard (key null) or one of its images, and why it failed or which rule rejected it."""

    shard: str
    key: str | None
    failure: FailureNote
