"""The files of a job in the store: its request, and a summary of each of its shards."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from strata.core.chunks import Chunk
from strata.core.ids import DEFAULT_TENANT
from strata.core.records import SCHEMA_VERSION, FailureNote
from strata.core.schemas import Budget, ChosenRows, JobKind, JobSample, JobView, Priority

# why a file of a shard is in no row, and how one and several of them are told
LEFT_OUT = {
    "hidden": ("hidden file", "hidden files"),
    "no_image": ("file that is no image", "files that are no images"),
    "further_image": ("further image of a sample", "further images of a sample"),
    "text_without_image": ("text without an image", "texts without an image"),
    "metadata_without_image": ("row of a metadata file without an image", "rows of metadata files without an image"),
    "unreadable_folder": ("folder that may not be read", "folders that may not be read"),
    "text_too_many": ("text far from its image, more than are kept", "texts far from their images, more than are kept"),
}


class ShardSummary(BaseModel):
    """The result of indexing a shard; failure: why it could not be read, or not to its end.

    left_out: how many of its files are in no row, by the reason (a name in LEFT_OUT).
    """

    shard: str
    identity: str = ""
    images: int = 0
    failure: FailureNote | None = None
    left_out: dict[str, int] = {}

    @property
    def counts(self) -> dict[str, int]:
        """What a job counts for the shard. A damaged shard of which some images could be read counts as readable."""
        unreadable = int(self.failure is not None and self.images == 0)
        left_out = {f"left_out:{reason}": number for reason, number in self.left_out.items()}
        return {"images": self.images, "chunks": 1, "unreadable": unreadable, **left_out}

    def chunks(self, size: int) -> int:
        """The number of chunks of the shard, with `size` images each (the last may have fewer)."""
        # integer division that rounds up
        return -(-self.images // size)


class PinnedParts(BaseModel):
    """`llm` parts of one shard with one fingerprint, as they were when rows of them were chosen.

    identity: of the shard, or of rows that an earlier job has chosen of it. numbers, attempts: of each part. rows: of
    each part those that a snapshot has, as bits, the first row in the highest one, in hexadecimal; None: all rows.
    """

    fingerprint: str
    identity: str
    numbers: list[int]
    attempts: list[int]
    rows: list[str] | None = None


class PinnedShard(BaseModel):
    """The parts of a shard of which rows are chosen. identity: that of the whole shard."""

    uri: str
    identity: str
    parts: list[PinnedParts]


class Pin(BaseModel):
    """The content of `jobs/ID/chosen.json`: which rows of which parts a job describes once more.

    It is written when the job is made. Parts never change, so that what is chosen does not change either, however often
    a shard is indexed. where: the filter; None: all rows that succeeded.
    """

    where: str | None = None
    shards: list[PinnedShard]


class ShardSummaries(BaseModel):
    """The shards of a job, as the store keeps them."""

    shards: list[ShardSummary]


class JobEnd(JobView):
    """A job as it ended.

    written: of a job that was cancelled or has failed, the numbers of the chunks whose parts existed at its end, by the
    identities of their shards. They are its results and its counts; parts that are written later are not. None: all.
    """

    written: dict[str, list[int]] | None = None


RUN_SECONDS = 60.0  # a run whose file is older than this has ended: it is written every few seconds


class JobRun(BaseModel):
    """A job that `strata run` computes now, without Redis. The process writes it every few seconds.

    engine: `local` or `ray`. host, pid: of the process. view: the job as it is at this time.
    """

    engine: str
    host: str
    pid: int
    updated_at: datetime
    view: JobView

    @property
    def is_alive(self) -> bool:
        """Whether the process was there lately. The clocks of two machines may differ by some seconds."""
        return (datetime.now(UTC) - self.updated_at).total_seconds() < RUN_SECONDS


class Cancellation(BaseModel):
    """That the cancellation of a job was requested. It is in the store, so that it is not lost with Redis."""

    requested_at: datetime


class Sample(JobSample):
    """What a job of a sample needs besides.

    batch: images that are computed together; prices: of the stages that ask servers, of a million tokens read and
    written; None: the profile has none.
    """

    batch: int
    prices: dict[str, tuple[float, float] | None] = Field(default_factory=dict)


class JobRequest(BaseModel):
    """A job's request, with everything that determines which parts are its results.

    Only a retry changes it. paid: the groups that use a model server; priced: whether the profile has its prices.
    caller: who has asked, as an opaque text; callers take turns. tenant: to whom the job belongs.
    retries: for chunks (by their field) whose failed images were retried, the attempt that is valid for this job. run:
    which end of the job comes next; a retry is a further run. webhook: whether its end is told to somebody.
    trace: the `traceparent` of the request that made it, if traces are sent. key: the id of the API key that made it,
    whose quotas count; empty if none has, or the operator's. chosen: from what the rows were chosen that the job
    describes (`Pin`); its shards are then those rows of each shard (`chosen_shard`). sample: the job describes a random
    sample of its shards' images; when that is drawn, lists of these images are its shards (`strata.jobs.sampling`).
    """

    id: str
    kind: JobKind
    shards: list[str]
    profile: str
    fingerprints: dict[str, str]
    chunk_size: int
    priority: Priority
    metadata: dict[str, str]
    created_at: datetime
    schema_version: int = SCHEMA_VERSION
    indexed: list[ShardSummary] = []  # shards that the API indexes itself: uploads
    retries: dict[str, int] = {}
    paid: list[str] = []
    priced: bool = False
    budget: Budget | None = None
    caller: str = ""
    run: int = 1
    webhook: bool = False
    tenant: str = DEFAULT_TENANT
    trace: str = ""
    key: str = ""
    chosen: ChosenRows | None = None
    sample: Sample | None = None

    @property
    def draws(self) -> bool:
        """Whether its shards are only indexed, because a sample of their images is to be drawn."""
        return self.sample is not None and not self.sample.drawn

    def index_chunk(self, shard: str, identity: str = "") -> Chunk:
        """The chunk that reads a shard's table of contents; with the identity of the shard, the one that has a part."""
        return Chunk("index", self.profile, self.fingerprints["index"], shard, identity)

    def chunks(self, summary: ShardSummary, group: str, numbers: Iterable[int] | None = None) -> Iterable[Chunk]:
        """The chunks of an indexed shard in a group, in order."""
        fingerprint = self.fingerprints[group]
        for number in range(summary.chunks(self.chunk_size)) if numbers is None else numbers:
            # the last chunk of a shard may be smaller
            images = min(self.chunk_size, summary.images - number * self.chunk_size)
            attempt = self.retries.get(f"{summary.identity}/{number:05d}", 0)
            yield Chunk(group, self.profile, fingerprint, summary.shard, summary.identity, number, images, attempt)
