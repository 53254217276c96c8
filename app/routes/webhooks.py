"""`/v1/webhooks`: the messages that tell the ends of jobs, and whether their receivers have them."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from app.dependencies import AccessDep, KnownJob, ServicesDep
from app.http.scopes import ScopedRoute
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.core import DeliveryPage, DeliveryState, DeliveryView, JobView

router = APIRouter(route_class=ScopedRoute, responses=PROBLEM_RESPONSES)


@router.get("/webhooks")
def list_webhooks(
    given: ServicesDep,
    access: AccessDep,
    state: Annotated[
        Literal["failed", "pending"], Query(description="failed: given up; pending: sent again later")
    ] = "failed",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="where the page begins; `next` of the last")] = None,
) -> DeliveryPage:
    """The deliveries that were given up, or those that are not done yet; of the key's tenant."""
    outbox, owns = given.jobs.outbox, given.tenants.owns(access)
    marked = outbox.marked(DeliveryState(state))
    # to whom a job belongs is read from the store: no more of them are looked at than the page needs
    ids = list(islice((one for one in marked if (cursor is None or one > cursor) and owns(one)), limit + 1))
    found = [(job_id, outbox.find(job_id)) for job_id in ids[:limit]]
    views = [delivery.view(job_id) for job_id, delivery in found if delivery is not None and delivery.state == state]
    return DeliveryPage(webhooks=views, next=ids[limit - 1] if len(ids) > limit else None)


@router.get("/jobs/{job_id}/webhook")
def show_webhook(job: KnownJob, given: ServicesDep) -> DeliveryView:
    """The delivery of a job's end, with its last attempts."""
    found = given.jobs.outbox.find(job.id)
    return found.view(job.id) if found is not None else _without(job)


@router.post("/jobs/{job_id}/webhook/redeliver", status_code=202)
def redeliver_webhook(job: KnownJob, given: ServicesDep) -> DeliveryView:
    """Send the message of a job that has ended again, within half a minute: the same message with the same id."""
    found = given.jobs.outbox.find(job.id)
    if found is None:
        _without(job)
    elif found.state is DeliveryState.WAITING or not job.status.final:
        raise ProblemError("job-not-ended", f"the job is {job.status.value}; its end is told when it has ended")
    sent = given.jobs.outbox.send_again(job.id)
    return sent.view(job.id) if sent is not None else _without(job)


def _without(job: JobView) -> DeliveryView:
    raise ProblemError("no-webhook", f"the job {job.id} was submitted without a webhook")
