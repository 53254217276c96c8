"""Calls on webhooks: what was not delivered, and sending it again."""

from __future__ import annotations

from typing import Literal

from strata.client.steps import Steps, call
from strata.client.transport import Transport, quoted
from strata.core import DeliveryPage, DeliveryView


class WebhookCalls(Transport):
    """The calls on the webhooks of jobs."""

    @call
    def webhooks(
        self, state: Literal["failed", "pending"] = "failed", limit: int | None = None, cursor: str | None = None
    ) -> Steps[DeliveryPage]:
        """Fetch a page of the webhooks that were given up, or that are sent again later."""
        params = {"state": state, "limit": limit, "cursor": cursor}
        given = {name: value for name, value in params.items() if value is not None}
        return (yield from self._fetch(DeliveryPage, "GET", "/v1/webhooks", params=given))

    @call
    def webhook(self, job_id: str) -> Steps[DeliveryView]:
        """Fetch the delivery of a job's webhook."""
        return (yield from self._fetch(DeliveryView, "GET", f"/v1/jobs/{quoted(job_id)}/webhook"))

    @call
    def redeliver(self, job_id: str) -> Steps[DeliveryView]:
        """Send the webhook of a job that has ended again."""
        return (yield from self._fetch(DeliveryView, "POST", f"/v1/jobs/{quoted(job_id)}/webhook/redeliver"))
