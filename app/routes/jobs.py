"""`/v1/jobs`: the state of jobs, their results, cancelling and retrying them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from app.dependencies import AccessDep, KnownJob, PrefixDep, Services, ServicesDep, ShownJob, repairs
from app.estimates import estimate_of
from app.http.document import lines_of
from app.http.limits import LIST_BYTES, LISTED_METADATA
from app.http.prefix import linked
from app.http.scopes import ScopedRoute
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.core import Estimate, JobKind, JobPage, JobStatus, JobView
from strata.jobs import BadCursor, ImageRemoved, NotFinished, Rejected, Results, id_of
from strata.queue import JobFilter

router = APIRouter(route_class=ScopedRoute, prefix="/jobs", responses=PROBLEM_RESPONSES)

NDJSON = "application/x-ndjson"

CursorQuery = Annotated[str | None, Query(max_length=200, description="where the page begins; from the link `next`")]
LimitQuery = Annotated[int, Query(ge=1, le=2000, description="rows in one response")]


@router.get("")
def list_jobs(
    given: ServicesDep,
    access: AccessDep,
    prefix: PrefixDep,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    cursor: CursorQuery = None,
    status: JobStatus | None = None,
    kind: JobKind | None = None,
    profile: Annotated[str | None, Query(max_length=200)] = None,
    created_after: Annotated[datetime | None, Query(description="this time or later; UTC without a zone")] = None,
    created_before: Annotated[datetime | None, Query(description="before this time")] = None,
) -> JobPage:
    """All jobs of the key's tenant, newest first, or those that pass the filters; the operator sees all tenants.

    A page may have fewer jobs than `limit`, or none, and yet a `next`: each page looks at a bounded number of jobs, and
    its size is bounded too. A job with more than 16 KiB of metadata is listed without it.
    """
    chosen = JobFilter(
        status=status,
        kind=kind,
        profile=profile,
        after=id_of(created_after) if created_after else None,
        before=id_of(created_before) if created_before else None,
        tenant=access.only_tenant,
    )
    try:
        views, following = _bounded(*given.listing.page(chosen, limit, cursor))
    except BadCursor as error:
        raise _bad_cursor(error) from error
    if following:
        # the next page has the same filters
        filters = {"status": status, "kind": kind, "profile": profile}
        times = {"created_after": created_after, "created_before": created_before}
        also = {name: value for name, value in filters.items() if value is not None}
        also |= {name: time.isoformat() for name, time in times.items() if time is not None}
        response.headers["Link"] = _next_link("/v1/jobs", following, limit, **also)
    return JobPage(jobs=[linked(view, prefix) for view in views], next=following)


def _bounded(views: list[JobView], following: str | None) -> tuple[list[JobView], str | None]:
    """A page that ends before it has more than LIST_BYTES, and its cursor. Large metadata is left out."""
    kept: list[JobView] = []
    size = 0
    for view in views:
        # stores of earlier versions have jobs with megabytes of it
        if sum(len(name) + len(text) for name, text in view.metadata.items()) > LISTED_METADATA:
            view = view.model_copy(update={"metadata": {}})
        size += len(view.model_dump_json())
        if kept and size > LIST_BYTES:
            return kept, kept[-1].id
        kept.append(view)
    return kept, following


@router.get("/{job_id}", response_model=JobView)
async def show_job(shown: ShownJob, prefix: PrefixDep) -> Response:
    """The job's envelope: its status, counts and links."""
    text = linked(shown.view, prefix).model_dump_json() if prefix else shown.json
    return Response(text, media_type="application/json")


@router.get("/{job_id}/estimate")
def show_estimate(job: KnownJob, given: ServicesDep) -> Estimate:
    """What all images would take, by those of a sample that are described so far (`POST /v1/batches/estimate`)."""
    return estimate_of(given, job)


@router.delete("/{job_id}", status_code=204)
def delete_job(job: KnownJob, given: ServicesDep) -> None:
    """Delete a job that has ended, for good: its record or rows, its image and its files.

    What another job or a snapshot uses too stays.
    """
    if not job.status.final:
        raise ProblemError("job-not-ended", f"the job is {job.status.value}; cancel it first")
    given.deletion.delete(job.id)


@router.post("/{job_id}/cancel")
def cancel_job(job: KnownJob, given: ServicesDep, prefix: PrefixDep) -> JobView:
    """Cancel a job. Computed results are kept; a job that has ended is left as it is."""
    return linked(given.jobs.cancel(job.id), prefix)


@router.post("/{job_id}/retry")
def retry_job(job: KnownJob, given: ServicesDep, prefix: PrefixDep) -> JobView:
    """Retry the failed images of a finished job, and the shards that could not be read. Results are kept."""
    try:
        return linked(given.jobs.retry(job.id), prefix)
    except NotFinished as error:
        raise ProblemError("job-not-finished", str(error)) from error
    except ImageRemoved as error:
        raise ProblemError("image-removed", str(error)) from error


@router.get("/{job_id}/results", response_class=Response, responses=lines_of("Record"))
async def list_results(
    job: KnownJob, given: ServicesDep, limit: LimitQuery = 500, cursor: CursorQuery = None
) -> Response:
    """The job's records as JSON Lines, in the order of its shards and of the images in them.

    While the job runs, the last link `next` leads to the end of the rows so far: its page may be empty, and gets rows
    later. There is no link `next` if no more rows can follow.
    """
    async with given.large_answers:
        return await run_in_threadpool(_lines, given, job, limit, cursor)


@router.get("/{job_id}/failures", response_class=Response, responses=lines_of("FailureRow"))
async def list_failures(
    job: KnownJob,
    given: ServicesDep,
    limit: LimitQuery = 500,
    cursor: CursorQuery = None,
    status: Annotated[Rejected, Query(description="failed, or filtered: rejected by a rule of the profile")] = "failed",
) -> Response:
    """The job's failed images and shards with their reasons, in pages like the results.

    With `status=filtered`: the images that a rule of the profile rejected, with the rule's name and the image's value.
    """
    async with given.large_answers:
        return await run_in_threadpool(_lines, given, job, limit, cursor, status)


def _lines(given: Services, job: JobView, limit: int, cursor: str | None, rejected: Rejected | None = None) -> Response:
    # the status was read before the summaries and parts: if it is final, they are complete
    request, summaries = given.jobs.request(job.id), given.jobs.summaries(job.id)
    written = given.jobs.written(job)
    try:
        with repairs(given, job):
            page = Results(request, summaries, given.store, job.status, written).page(cursor, limit, rejected)
    except BadCursor as error:
        raise _bad_cursor(error) from error
    # one JSON object for each line, and the next page's address in the header `Link` (RFC 8288)
    path = f"/v1/jobs/{job.id}/{'failures' if rejected else 'results'}"
    also = {"status": rejected} if rejected == "filtered" else {}
    headers = {"Link": _next_link(path, page.next, limit, **also)} if page.next else {}
    return Response("".join(page.lines), headers=headers, media_type=NDJSON)


def _bad_cursor(error: BadCursor) -> ProblemError:
    errors = [{"type": "value_error", "location": ["query", "cursor"], "message": str(error)}]
    return ProblemError("invalid-request", str(error), errors)


def _next_link(path: str, cursor: str, limit: int, **also: str) -> str:
    return f'<{path}?{urlencode({"limit": limit, "cursor": cursor, **also})}>; rel="next"'
