"""The models of the REST API's requests and responses, shared by the service and the client."""

from __future__ import annotations

import base64
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from strata.addresses import is_data_url
from strata.core.ids import DEFAULT_TENANT
from strata.core.parameters.texts import TextFields
from strata.core.records import FailureNote, Status

Priority = Literal["hi", "lo"]
JobKind = Literal["image", "batch"]


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains an unpaired surrogate, which is not a character") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]  # JSON allows texts that cannot be encoded for Redis and the store
# the limits of the metadata of OpenAI's batch API: a page of jobs shows the metadata of each
MetadataKey = Annotated[Text, Field(max_length=64)]
MetadataValue = Annotated[Text, Field(max_length=512)]
ProfileName = Annotated[Text, Field(max_length=255)]
MAX_UPLOADS = 50_000  # images of one batch that were sent before; with their alt texts as many values as JSON may have
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
UploadLine = Annotated[Text, Field(pattern=r"^[0-9a-f]{64}( [\s\S]{0,1000})?$")]
SourceName = Annotated[Text, Field(min_length=1, max_length=100)]
Where = Annotated[Text, Field(min_length=1, max_length=10_000)]  # as long as a filter may be
MAX_URL = 4096  # characters of an address that is fetched
AltText = Annotated[Text, Field(max_length=4096)]


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


class BatchInput(BaseModel):
    """What is described: shards, images that were sent before (`POST /v1/uploads`), or rows of sources; one of these.

    shards: by URI or path; a brace range such as `{00000..00331}`, a glob or an `@FILE` stands for several. uploads: as
    `sha256sum` writes them, the SHA-256 of the file that was sent, a space, and a name, from which the key is made; at
    most MAX_UPLOADS. alt_texts: of the uploads, in the same order. sources: jobs, snapshots and data sets whose images
    are described once more, with the keys that they have there. where: which of their rows, as the filter of a snapshot
    (`match < 0.5`); null: all that succeeded. Rows that failed or were filtered are looked at if it names `status`.
    """

    model_config = ConfigDict(extra="forbid")
    # the first wrong one is told: an error for each needs more memory than the request
    shards: list[Text] | None = Field(default=None, min_length=1, max_length=100_000, fail_fast=True)
    uploads: list[UploadLine] | None = Field(default=None, min_length=1, max_length=MAX_UPLOADS, fail_fast=True)
    alt_texts: list[AltText | None] | None = Field(default=None, max_length=MAX_UPLOADS, fail_fast=True)
    sources: list[SourceName] | None = Field(default=None, min_length=1, max_length=100, fail_fast=True)
    where: Where | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> BatchInput:
        if sum(kind is not None for kind in (self.shards, self.uploads, self.sources)) != 1:
            raise ValueError("exactly one of shards, uploads and sources must be given")
        if self.where is not None and self.sources is None:
            raise ValueError("where chooses rows of sources, which are not given")
        if self.alt_texts is not None and len(self.alt_texts) != len(self.uploads or ()):
            raise ValueError(f"{len(self.alt_texts)} alt_texts for {len(self.uploads or ())} uploads")
        return self


class UploadsBody(BaseModel):
    """`POST /v1/uploads`: files that are to be sent, by their SHA-256 and their sizes in bytes, in the same order."""

    model_config = ConfigDict(extra="forbid")
    sha256: list[Sha256] = Field(min_length=1, max_length=MAX_UPLOADS, fail_fast=True)
    sizes: list[Annotated[int, Field(ge=0, le=2**62)]] = Field(min_length=1, max_length=MAX_UPLOADS, fail_fast=True)

    @model_validator(mode="after")
    def _as_many(self) -> UploadsBody:
        if len(self.sha256) != len(self.sizes):
            raise ValueError(f"{len(self.sizes)} sizes for {len(self.sha256)} files")
        return self


class ImageLinks(BaseModel):
    """Signed links to a record's image: paths at the host of the service. They need no key until they expire."""

    image: str
    preview: str
    overlay: str
    expires_at: datetime


class UploadsView(BaseModel):
    """Which files are to be sent (`missing`), and which are refused because they are too large; each once."""

    missing: list[str]
    too_large: list[str]


class UploadView(BaseModel):
    """An image that was sent. stored_sha256, size: of what is stored, which has no metadata."""

    sha256: str
    stored_sha256: str
    size: int


class Budget(BaseModel):
    """The limits of what a job may spend on model servers: tokens read and written, money in the profile's currency.

    Results that were computed before the job cost nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tokens: int | None = Field(default=None, ge=1, le=2**40)
    money: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)


def _signing_secret(secret: SecretStr) -> SecretStr:
    encoded = secret.get_secret_value().removeprefix("whsec_")
    try:
        size = len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except ValueError:  # also of characters that are not ASCII
        size = 0
    if not secret.get_secret_value().startswith("whsec_") or not 24 <= size <= 64:
        raise ValueError("right is whsec_ and the base64 of 24 to 64 random bytes")
    return secret


class WebhookTarget(BaseModel):
    """Whom a job's end is told, as https://www.standardwebhooks.com has it.

    secret: `whsec_` and the base64 of 24 to 64 random bytes, which the receiver knows; it signs each message.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    url: Text = Field(min_length=1, max_length=2048)
    secret: Annotated[SecretStr, AfterValidator(_signing_secret)]


class DeliveryState(StrEnum):
    """The state of a webhook's delivery.

    waiting: the job has not ended; failed: no attempt is made any more, unless somebody asks for it.
    """

    WAITING = "waiting"
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DeliveryAttempt(BaseModel):
    """One attempt to deliver a webhook, and the seconds that it took.

    status: the HTTP status of the receiver; error: why there is none.
    """

    at: datetime
    seconds: float
    status: int | None = None
    error: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the receiver has taken the message."""
        return self.status is not None and 200 <= self.status < 300


class DeliveryView(BaseModel):
    """The delivery of a job's webhook: neither the secret nor the path and query of the address, which may hold one.

    message: the id in the header `webhook-id`, the same for all attempts; null until the job has ended.
    """

    job: str
    receiver: str
    state: DeliveryState
    message: str | None
    next_attempt_at: datetime | None
    attempts: list[DeliveryAttempt]


class DeliveryPage(BaseModel):
    """`GET /v1/webhooks`: deliveries, the oldest job first. next: where the next page begins; null on the last one."""

    webhooks: list[DeliveryView]
    next: str | None = None


class BatchRequest(TextFields):
    """`POST /v1/batches`. webhook: whom the job's end is told."""

    model_config = ConfigDict(extra="forbid")
    input: BatchInput
    profile: ProfileName | None = None
    priority: Priority = "lo"
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16)
    budget: Budget | None = None
    webhook: WebhookTarget | None = None


class UnreadShard(BaseModel):
    """A shard that cannot be read, and why."""

    shard: str
    reason: str


class BatchPreview(BaseModel):
    """`POST /v1/batches/preview`: what the same request to `/v1/batches` would compute. Nothing is created.

    shards: how many the patterns name; looked_at: of how many images were counted; images, reused: images, and those
    whose results exist, scaled to all shards if only some were looked at; null if none was. unread: some that cannot be
    read. seconds, money: estimated from the job `like`, the newest completed one of the profile; null if there is none,
    or if the profile has no prices. first: the first shards.
    """

    shards: int
    looked_at: int
    images: int | None
    reused: int | None
    unread: list[UnreadShard] = Field(default_factory=list)
    seconds: float | None = None
    money: float | None = None
    like: str | None = None
    first: list[str] = Field(default_factory=list)


def _short_url(url: str) -> str:
    if len(url) > MAX_URL and not is_data_url(url):
        raise ValueError(f"a URL has at most {MAX_URL} characters, if it is no data: URL")
    return url


class CaptionBody(TextFields):
    """`POST /v1/captions` as JSON: exactly one of image_url and image_base64.

    image_url: http or https, which the service fetches, or `data:`. image_base64: in the plain or the URL-safe
    alphabet, with or without padding; a `data:` URL too.
    """

    model_config = ConfigDict(extra="forbid")
    image_url: Annotated[str, AfterValidator(_short_url)] | None = None
    image_base64: str | None = None
    alt_text: str | None = Field(default=None, max_length=4096)
    profile: ProfileName | None = None


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


class GroupBacklog(BaseModel):
    """What a group has still to compute for all unfinished jobs.

    images: of all indexed shards; ready: those of them for which the group before has computed its layers; shards: that
    wait to be indexed (group `index` only); oldest_seconds: since the oldest of these jobs was created, null if none.
    """

    images: int = 0
    ready: int = 0
    shards: int = 0
    oldest_seconds: float | None = None


class Backlog(BaseModel):
    """`GET /v1/backlog`: the whole plan of all unfinished jobs by group. The queue's streams have only its beginning.

    jobs: how many are unfinished; workers: ready workers by group.
    """

    jobs: int
    groups: dict[str, GroupBacklog]
    workers: dict[str, int]


class WorkerView(BaseModel):
    """A worker that reports. chunks, images: in its hands now; held_up: what it waits for, as the store.

    profiles: whose models it has in memory; resident_bytes: its memory; gpu_reserved_bytes: of all its GPUs.
    """

    name: str
    host: str = ""
    groups: list[str]
    ready: bool
    chunks: int = 0
    images: int = 0
    held_up: list[str] = []
    profiles: list[str] = []
    resident_bytes: int = 0
    gpu_reserved_bytes: int = 0


class WorkerList(BaseModel):
    """`GET /v1/workers`."""

    workers: list[WorkerView]


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


class JobView(BaseModel):
    """A job, of one image or of many shards. Times are in RFC 3339, UTC.

    waiting: what the job waits for now; null if nothing is in its way. tenant: to whom it belongs; empty if that is not
    known, because its request is damaged. chosen: which rows of other jobs it describes; null: shards or an image.
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


class JobPage(BaseModel):
    """`GET /v1/jobs`, newest first. next: the cursor of the following page, null on the last one."""

    jobs: list[JobView]
    next: str | None = None


class FailureRow(BaseModel):
    """One line of `/failures`: a shard (key null) or one of its images, and why it failed or which rule rejected it."""

    shard: str
    key: str | None
    failure: FailureNote


class SearchHit(BaseModel):
    """A row that a search has found. id: its place in the store, with which `/v1/rows/ID` gives its whole record.

    title: the beginning of its description, or without one of its caption or alt text. words: of its description.
    score: the mean of the matcher's probabilities of its kept entries; null without any. has_text: whether a line of
    text is kept.
    """

    id: str
    key: str
    status: Status
    title: str | None = None
    words: int
    score: float | None = None
    has_text: bool
    width: int | None = None
    height: int | None = None


class FacetValue(BaseModel):
    """How many rows have a value. Of a histogram, value is the least one of the bar."""

    value: str
    count: int


class Facets(BaseModel):
    """How many of the rows of a search have which figures and labels; of labels the commonest.

    thing: nouns of kept regions and masks. tag: kept tags. dropped: why entries were dropped; cut: why the verifier cut
    sentences; failure: error types of failed rows, and the rules that rejected filtered ones. words: of descriptions.
    """

    total: int
    status: list[FacetValue]
    has_text: list[FacetValue]
    words: list[FacetValue]
    score: list[FacetValue]
    thing: list[FacetValue]
    tag: list[FacetValue]
    dropped: list[FacetValue]
    cut: list[FacetValue]
    failure: list[FacetValue]


class SearchPage(BaseModel):
    """`GET /v1/search`. total: rows of the whole search. next: the cursor of the following page, null on the last one.

    indexed, waiting: how many parts of the job, the snapshot or the store the index has, and how many it does not have
    yet, whose rows are not found until then. broken: parts that cannot be read and are passed over, with the reason.
    note: why the index does not grow now, if it does not. hints: words and labels of the search that no row of the
    whole index has, each with the most similar label.
    """

    rows: list[SearchHit]
    total: int
    next: str | None = None
    indexed: int
    waiting: int
    broken: list[str] = []
    note: str | None = None
    hints: list[str] = []


class ProblemEntry(BaseModel):
    """One fault of a request: its kind, where it is, as `["body", "input", "shards"]`, and what is wrong."""

    model_config = ConfigDict(extra="allow")
    type: str = ""
    location: list[str] = []
    message: str = ""


class Problem(BaseModel):
    """RFC 9457 problem details; `type` is stable and documented in docs/problems.md."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemEntry] | None = None
