"""Submissions: `/v1/batches`, and what one would compute."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from strata.core.parameters.texts import TextFields
from strata.core.schemas.fields import AltText, ProfileName, Text
from strata.core.schemas.uploads import MAX_UPLOADS
from strata.core.schemas.webhooks import WebhookTarget

Priority = Literal["hi", "lo"]
# the limits of the metadata of OpenAI's batch API: a page of jobs shows the metadata of each
MetadataKey = Annotated[Text, Field(max_length=64)]
MetadataValue = Annotated[Text, Field(max_length=512)]
SourceName = Annotated[Text, Field(min_length=1, max_length=100)]
Where = Annotated[Text, Field(min_length=1, max_length=10_000)]  # as long as a filter may be
UploadLine = Annotated[Text, Field(pattern=r"^[0-9a-f]{64}( [\s\S]{0,1000})?$")]


class BatchInput(BaseModel):
    """What is described: shards, images that were sent before (`POST /v1/uploads`), or rows of sources; one of these.

    shards: by URI or path; a brace range such as `{00000..00331}`, a glob or an `@FILE` stands for several. uploads: as
    `sha256sum` writes them, the SHA-256 of the file that was sent, a space, and a name, from which the key is made; at
    most MAX_UPLOADS. alt_texts: of the uploads, in the same order. sources: jobs, snapshots and data sets whose images
    are described once more, with the keys that they have there. where: which of their rows, as the filter of a snapshot
    (`match < 0.5`); null: all that succeeded. Rows that failed or were filtered are looked at if it names `status` or
    `failure`.
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


class Budget(BaseModel):
    """The limits of what a job may spend on model servers: tokens read and written, money in the profile's currency.

    Results that were computed before the job cost nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tokens: int | None = Field(default=None, ge=1, le=2**40)
    money: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)


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
    whose results exist, scaled to all shards if only some were looked at; null if none was, or if the time was over
    before it was known. failed: of chosen rows, those of `reused` that failed and are not computed again; null of
    shards. unread: some that cannot be read. seconds, money: estimated from the job `like`, the newest completed one of
    the profile; null if there is none, or if the profile has no prices. first: the first shards.
    """

    shards: int
    looked_at: int
    images: int | None
    reused: int | None
    failed: int | None = None
    unread: list[UnreadShard] = Field(default_factory=list)
    seconds: float | None = None
    money: float | None = None
    like: str | None = None
    first: list[str] = Field(default_factory=list)
