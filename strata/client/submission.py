"""Calls that submit jobs: of shards, and of images of this machine, which are sent first."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from strata.client.steps import Steps, call
from strata.client.transport import Transport
from strata.core import BatchInput, Budget, JobView, Priority, TextSettings, UploadsView, UploadView, WebhookTarget
from strata.errors import InvalidInput, fault_line


class SubmissionCalls(Transport):
    """The calls that submit jobs."""

    @call
    def submit(
        self,
        shards: Sequence[str] = (),
        profile: str | None = None,
        priority: Priority = "lo",
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        budget: Budget | None = None,
        texts: TextSettings | None = None,
        webhook: WebhookTarget | None = None,
        *,
        from_: Sequence[str] = (),
        where: str | None = None,
    ) -> Steps[JobView]:
        """Submit shards as a job. Without an `idempotency_key`, every call makes a new job.

        texts: as in `caption`; webhook: whom the job's end is told. from_: jobs, snapshots and data sets whose images
        are described once more, instead of shards; where: which of their rows, as a filter such as `match < 0.5`.
        Raises InvalidInput unless there are shards or sources, and not both.
        """
        given = input_of(shards, from_, where)
        return (yield from self._submit(given, profile, priority, metadata, idempotency_key, budget, texts, webhook))

    @call
    def missing_uploads(self, sizes: Mapping[str, int]) -> Steps[UploadsView]:
        """Which files the service has not got yet. sizes: their bytes, by the SHA-256 of each; at most MAX_UPLOADS."""
        body = {"sha256": list(sizes), "sizes": list(sizes.values())}
        return (yield from self._fetch(UploadsView, "POST", "/v1/uploads", json=body))

    @call
    def upload(self, data: bytes) -> Steps[UploadView]:
        """Send the bytes of an image's file, for `submit_uploads`. Sent twice it is stored once."""
        digest = hashlib.sha256(data).hexdigest()
        headers = {"Content-Type": "application/octet-stream"}
        return (yield from self._fetch(UploadView, "PUT", f"/v1/uploads/{digest}", content=data, headers=headers))

    @call
    def submit_uploads(
        self,
        images: Sequence[tuple[str, str]],
        alt_texts: Sequence[str | None] | None = None,
        profile: str | None = None,
        priority: Priority = "lo",
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        budget: Budget | None = None,
        texts: TextSettings | None = None,
        webhook: WebhookTarget | None = None,
    ) -> Steps[JobView]:
        """Submit images that were sent before, as a job. images: of each the SHA-256 of its file, and a name.

        At most MAX_UPLOADS. The other arguments are those of `submit`.
        """
        lines = [f"{digest} {name[:1000]}" for digest, name in images]
        given = BatchInput(uploads=lines, alt_texts=None if alt_texts is None else list(alt_texts))
        return (yield from self._submit(given, profile, priority, metadata, idempotency_key, budget, texts, webhook))

    def _submit(
        self,
        given: BatchInput,
        profile: str | None,
        priority: Priority,
        metadata: dict[str, str] | None,
        idempotency_key: str | None,
        budget: Budget | None,
        texts: TextSettings | None,
        webhook: WebhookTarget | None,
    ) -> Steps[JobView]:
        body = batch_of(given, profile, priority, metadata, budget, texts, webhook)
        headers = idempotent(idempotency_key)
        return (yield from self._fetch(JobView, "POST", "/v1/batches", json=body, headers=headers))


def input_of(shards: Sequence[str], sources: Sequence[str], where: str | None) -> BatchInput:
    """What is described: shards, or those rows of sources that a filter chooses. Raises InvalidInput."""
    if bool(shards) == bool(sources) or (where is not None and not sources):
        raise InvalidInput("a submission needs shards, or the sources of rows (from_) with a filter (where)")
    try:
        return BatchInput(sources=list(sources), where=where) if sources else BatchInput(shards=list(shards))
    except ValidationError as error:
        first = error.errors()[0]
        field = {"sources": "from_"}.get(str(first["loc"][0]), first["loc"][0])
        given = "it is empty" if first["input"] == "" else fault_line(first)
        raise InvalidInput(f"{field}: {given}") from error


def idempotent(key: str | None) -> dict[str, str]:
    """The header with a key, by default a new one: a request that is sent twice by a proxy makes one job."""
    return {"Idempotency-Key": key or uuid.uuid4().hex}


def batch_of(
    given: BatchInput,
    profile: str | None = None,
    priority: Priority = "lo",
    metadata: dict[str, str] | None = None,
    budget: Budget | None = None,
    texts: TextSettings | None = None,
    webhook: WebhookTarget | None = None,
) -> dict[str, object]:
    """The body of a request for a job of many images."""
    body: dict[str, object] = {
        "input": given.model_dump(exclude_none=True),
        "priority": priority,
        "metadata": metadata or {},
    }
    if profile is not None:
        body["profile"] = profile
    if budget is not None:
        body["budget"] = budget.model_dump()
    if texts is not None:
        body |= texts.model_dump(exclude_none=True)
    if webhook is not None:
        body["webhook"] = {"url": webhook.url, "secret": webhook.secret.get_secret_value()}
    return body
