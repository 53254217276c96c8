"""The calls of the service that both clients have: on images, jobs and webhooks (modules of their own), and others."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from strata.client.estimates import EstimateCalls
from strata.client.images import ImageCalls
from strata.client.jobs import JobCalls
from strata.client.steps import Request, Steps, call
from strata.client.submission import SubmissionCalls
from strata.client.webhooks import WebhookCalls
from strata.core import Backlog, SearchPage, WorkerList
from strata.errors import InvalidInput
from strata.profiles import ProfileList, ProfileView


class Calls(ImageCalls, SubmissionCalls, EstimateCalls, JobCalls, WebhookCalls):
    """The calls of the service. Every one raises ApiError for an error response, and httpx.TransportError if the
    service cannot be reached. A `Client` returns their results, an `AsyncClient` awaitables and asynchronous iterators.
    """

    @call
    def ready(self) -> Steps[bool]:
        """Whether the service responds and reports Redis, store and workers as reachable."""
        try:
            response: httpx.Response = yield Request("GET", "/readyz")
            return response.is_success
        except httpx.TransportError:
            return False

    @call
    def profiles(self) -> Steps[list[ProfileView]]:
        """Fetch what each profile of the service is, needs, computes and warns of, with its proof."""
        return (yield from self._fetch(ProfileList, "GET", "/v1/profiles")).profiles

    @call
    def search(
        self,
        /,
        words: str = "",
        order: str = "store",
        limit: int | None = None,
        cursor: str | None = None,
        **filters: str | float | bool | Sequence[str],
    ) -> Steps[SearchPage]:
        """Fetch a page of the rows that have these words, and all that the filters ask for.

        filters: parameters of `GET /v1/search`, such as job, snapshot, thing, status and score_min.
        """
        params = {"q": words, "order": order, "limit": limit, "cursor": cursor, **filters}
        if empty := [name for name, value in filters.items() if value == ""]:
            raise InvalidInput(f"the filter {empty[0]} is empty")
        given = {name: value for name, value in params.items() if value not in (None, "")}
        return (yield from self._fetch(SearchPage, "GET", "/v1/search", params=given))

    @call
    def backlog(self) -> Steps[Backlog]:
        """What each group has still to compute for all unfinished jobs, and its ready workers."""
        return (yield from self._fetch(Backlog, "GET", "/v1/backlog"))

    @call
    def workers(self) -> Steps[WorkerList]:
        """The workers that report now."""
        return (yield from self._fetch(WorkerList, "GET", "/v1/workers"))
