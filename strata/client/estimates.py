"""Calls that tell what a submission would take before it is made."""

from __future__ import annotations

from collections.abc import Sequence

from strata.client.steps import Steps, call
from strata.client.submission import batch_of, idempotent, input_of
from strata.client.transport import Transport, quoted
from strata.core import SAMPLE, BatchPreview, Budget, Estimate, JobView, TextSettings


class EstimateCalls(Transport):
    """The calls of previews and estimates."""

    @call
    def preview(
        self,
        shards: Sequence[str] = (),
        profile: str | None = None,
        budget: Budget | None = None,
        texts: TextSettings | None = None,
        *,
        from_: Sequence[str] = (),
        where: str | None = None,
    ) -> Steps[BatchPreview]:
        """See in a few seconds what `submit` would compute. Nothing is described. Raises InvalidInput as `submit`."""
        body = batch_of(input_of(shards, from_, where), profile, budget=budget, texts=texts)
        return (yield from self._fetch(BatchPreview, "POST", "/v1/batches/preview", json=body))

    @call
    def submit_sample(
        self,
        shards: Sequence[str] = (),
        images: int = SAMPLE,
        seed: int = 0,
        profile: str | None = None,
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        budget: Budget | None = None,
        texts: TextSettings | None = None,
        *,
        from_: Sequence[str] = (),
        where: str | None = None,
    ) -> Steps[JobView]:
        """Describe a random sample of what `submit` would, as a job whose `estimate` tells what all would take.

        images: at most MAX_SAMPLE; seed: the same one draws the same images. The other arguments are those of `submit`.
        """
        body = batch_of(input_of(shards, from_, where), profile, metadata=metadata, budget=budget, texts=texts)
        body |= {"images": images, "seed": seed}
        headers = idempotent(idempotency_key)
        return (yield from self._fetch(JobView, "POST", "/v1/batches/estimate", json=body, headers=headers))

    @call
    def estimate(self, job_id: str) -> Steps[Estimate]:
        """Fetch what all images would take, by those of a job of a sample that are described so far."""
        return (yield from self._fetch(Estimate, "GET", f"/v1/jobs/{quoted(job_id)}/estimate"))
