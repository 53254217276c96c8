"""`POST /v1/captions`: create a job for one image, and wait for its record if the header `Prefer` says so."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from app.dependencies import AccessDep, Caller, PrefixDep, Services, ServicesDep
from app.http.document import named
from app.http.limits import MAX_WAITS
from app.http.prefix import linked
from app.http.quotas import UseDep
from app.http.request_limits import forget_body
from app.idempotency import IdempotentRoute
from app.images.uploads import read_upload
from app.jobs.prefer import wait_of
from app.problems import PROBLEM_RESPONSES
from strata.core import JobRequest, JobView, Record
from strata.errors import QueueUnavailable
from strata.keys import Access
from strata.quotas import KeyUse

router = APIRouter(route_class=IdempotentRoute)

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": named("CaptionForm")},
            "application/json": {"schema": named("CaptionBody")},
        },
    }
}


@router.post(
    "/captions",
    status_code=202,
    response_model=None,
    responses={
        200: {"model": Record, "description": "The record, if it is finished within the time of `Prefer: wait=N`"},
        202: {"model": JobView, "description": "The job; `Location` is its address"},
        **PROBLEM_RESPONSES,
    },
    openapi_extra=_BODY,
)
async def caption_image(
    request: Request,
    given: ServicesDep,
    access: AccessDep,
    caller: Caller,
    prefix: PrefixDep,
    use: UseDep,
    prefer: Annotated[str | None, Header(description="`wait=N`: up to N seconds (at most 120)")] = None,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Describe one image, sent as multipart `file`, as base64, or by URL."""
    job = await _created(request, given, access, caller, use)
    await forget_body(request)  # it need not stay in memory while the request waits
    # respond with the record if it is finished in time, else with the job
    wait = wait_of(request.headers.getlist("prefer")) if prefer else None  # a request may have several
    headers = {"Location": f"/v1/jobs/{job.id}"}
    if wait is not None and given.waits.count < MAX_WAITS:
        headers["Preference-Applied"] = f"wait={wait:g}"
        try:
            record = await given.waits.record(job, wait, given.stopping.is_set)
        except (OSError, QueueUnavailable):
            record = None  # the job is accepted and goes on, so the response must name it
        if record is not None:
            headers["Content-Location"] = f"/v1/records/{job.id}/{quote(record.key, safe='')}"
            return _json(record, 200, headers)
    return _json(linked(await run_in_threadpool(given.jobs.accepted, job), prefix), 202, headers)


async def _created(request: Request, given: Services, access: Access, caller: str, use: KeyUse | None) -> JobRequest:
    """Read, clean and decode the image, and create its job; may raise ProblemError, QueueFull and QuotaExceeded."""
    upload = await read_upload(request, given.settings)
    profile = await run_in_threadpool(given.profile, upload.profile, upload.texts)
    # an image that the queue or the key's quota does not take is not decoded
    own = access.quotas.chunks_queued
    new, limits = given.jobs.new, given.bounds.limits("image", caller, own_images=own)
    await run_in_threadpool(new.check, limits)
    if use is not None and access.quotas.images_a_day is not None:
        await run_in_threadpool(use.check_image)
    data = await given.decoder.checked(upload.data)
    return await run_in_threadpool(new.create_image, data, upload.alt_text, profile, caller, limits, access.tenant, use)


def _json(content: Record | JobView, status: int, headers: dict[str, str]) -> Response:
    return Response(content.model_dump_json(), status, headers, media_type="application/json")
