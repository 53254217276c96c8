"""What a job would take, estimated from a random sample of its images that is described."""

from __future__ import annotations

from pydantic import BaseModel, Field

from strata.core.schemas.batches import BatchRequest
from strata.core.schemas.jobs import JobStatus

MAX_SAMPLE = 10_000  # images of one sample
SAMPLE = 200  # images, if nothing else is asked for


class EstimateRequest(BatchRequest):
    """`POST /v1/batches/estimate`: the request to `/v1/batches`, and of how many images a sample is described.

    images: at most MAX_SAMPLE; of fewer images all are taken. seed: the same one takes the same images.
    """

    images: int = Field(default=SAMPLE, ge=1, le=MAX_SAMPLE)
    seed: int = Field(default=0, ge=0, le=2**53 - 1)


class Figure(BaseModel):
    """A figure of the whole job with its interval of 95 %; low and high are null if the sample is too small for one."""

    value: float
    low: float | None = None
    high: float | None = None


class ReasonEstimate(BaseModel):
    """How many images are expected to fail, or to be filtered by a rule, for one reason."""

    status: str
    stage: str
    error_type: str
    images: Figure


class GroupEstimate(BaseModel):
    """What one group would take.

    images: that it has to compute; measured: of how many its time is known; images_per_second: of one worker, hours: of
    all workers together. device: the GPU by its name, or `cpu`. workers: ready ones now, null if that is not known.
    loading_seconds: of the models, which is in no other figure. Tokens and money: null of a group that asks no server,
    or has no prices.
    """

    images: Figure
    measured: int = 0
    images_per_second: Figure | None = None
    hours: Figure | None = None
    device: str | None = None
    workers: int | None = None
    loading_seconds: float | None = None
    prompt_tokens: Figure | None = None
    completion_tokens: Figure | None = None
    money: Figure | None = None


class Estimate(BaseModel):
    """`GET /v1/jobs/{id}/estimate`: what all images would take, by those of the sample that are described so far.

    job, status: of the sample. sampled: how many images it has, described: how many of them have their result. shards,
    unread: of the whole, images: that they have, to_compute: those without results of this version of the profile;
    null until all shards are indexed. All figures are of the images to be computed. seconds: with the workers that are
    ready now, if they do nothing else; gpu_hours, cpu_hours: of workers with a GPU and without. money: in the currency
    of the profile's prices. store_bytes: of the parts, before they are bundled. notes: what limits the figures.
    """

    job: str
    status: JobStatus
    profile: str
    seed: int
    sampled: int
    described: int = 0
    shards: int | None = None
    unread: int | None = None
    images: int | None = None
    to_compute: int | None = None
    groups: dict[str, GroupEstimate] = Field(default_factory=dict)
    seconds: Figure | None = None
    gpu_hours: Figure | None = None
    cpu_hours: Figure | None = None
    prompt_tokens: Figure | None = None
    completion_tokens: Figure | None = None
    money: Figure | None = None
    succeeded: Figure | None = None
    filtered: Figure | None = None
    failed: Figure | None = None
    reasons: list[ReasonEstimate] = Field(default_factory=list)
    store_bytes: Figure | None = None
    notes: list[str] = Field(default_factory=list)
