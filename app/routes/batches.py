"""`POST /v1/batches`: create a job for many shards, or see before what it would compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, NoReturn

from fastapi import APIRouter, Header, Response
from starlette.concurrency import run_in_threadpool

from app.batch_preview import Preview
from app.chosen_rows import ChosenPreview, chosen_rows
from app.dependencies import AccessDep, Caller, PrefixDep, Services, ServicesDep
from app.http.prefix import linked
from app.http.quotas import UseDep
from app.idempotency import IdempotentRoute
from app.images.upload_lists import upload_list
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.core import (
    BatchPreview,
    BatchRequest,
    EstimateRequest,
    JobSample,
    JobView,
    Profile,
    Sample,
    ShardSummary,
    TextSettings,
    WebhookTarget,
)
from strata.egress import RefusedAddress, WebAddress
from strata.jobs import Chosen, sample_of
from strata.keys import Access
from strata.quotas import KeyUse

router = APIRouter(route_class=IdempotentRoute)


class _Owner(NamedTuple):
    """Whose a new job is: the caller whose turns it takes, the tenant, and the quotas of the key."""

    caller: str
    tenant: str
    use: KeyUse | None


@router.post("/batches", status_code=202, responses=PROBLEM_RESPONSES)
async def submit_shards(
    body: BatchRequest,
    given: ServicesDep,
    response: Response,
    access: AccessDep,
    caller: Caller,
    prefix: PrefixDep,
    use: UseDep,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Describe the images of shards. The response is immediate; the workers read the shards.

    A shard is a tar, a folder of images, or a Parquet or JSON Lines list of images. `{00000..00331}` expands to a
    range, `*` to the files that exist, and `@/folder/list.txt` to the lines of a file on the server. Images that were
    sent before (`/v1/uploads`) are named by the SHA-256 of their files. `sources` and `where` describe the images of
    other jobs, snapshots or data sets once more, those whose rows the filter chooses; what these rows are is fixed when
    the job is made.

    How many images shards have is known when they are indexed. Those that exceed the key's quota of a day wait until it
    has room (`waiting` in the job).
    """
    profile = await run_in_threadpool(_checked, given, body)
    whose = _Owner(caller, access.tenant, use)
    if body.input.uploads is not None:
        indexed = await run_in_threadpool(upload_list, given.store, body.input, profile, access.tenant)
        view = await run_in_threadpool(_create, given, body, [indexed.shard], profile, whose, [indexed])
    else:
        # expand the patterns and check local shards before a job is created, so that a typo creates no job
        async with given.shards.turn():
            shards, chosen = await _found(given, body, access)
            view = await run_in_threadpool(_create, given, body, shards, profile, whose, (), chosen)
    response.headers["Location"] = f"/v1/jobs/{view.id}"
    return linked(view, prefix)


@router.post("/batches/estimate", status_code=202, responses=PROBLEM_RESPONSES)
async def estimate_batch(
    body: EstimateRequest,
    given: ServicesDep,
    response: Response,
    access: AccessDep,
    caller: Caller,
    prefix: PrefixDep,
    use: UseDep,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Describe a random sample of the images of shards, to see what the same request to `/v1/batches` would take.

    It is a job: all shards are indexed, `images` of the images without results are drawn, each with the same chance,
    and described. With `sources` and `where` the sample is one of the chosen rows, which are found before.
    `/v1/jobs/{job_id}/estimate` gives the figures so far. Its priority is `lo`, whatever is asked for,
    because images of `hi` are computed together with those of other jobs. The whole job uses the index of the shards,
    and describes the sampled images once more.
    """
    if body.input.uploads is not None:
        detail = "a sample is drawn of shards, or of rows of sources; of uploads all images are here"
        raise ProblemError("invalid-request", detail, [])
    profile = await run_in_threadpool(_checked, given, body)
    sample = sample_of(JobSample(images=body.images, seed=body.seed), profile)
    body = body.model_copy(update={"priority": "lo"})
    whose = _Owner(caller, access.tenant, use)
    async with given.shards.turn():
        shards, chosen = await _found(given, body, access)
        view = await run_in_threadpool(_create, given, body, shards, profile, whose, (), chosen, sample)
    response.headers["Location"] = f"/v1/jobs/{view.id}"
    return linked(view, prefix)


@router.post("/batches/preview", responses=PROBLEM_RESPONSES)
async def preview_batch(body: BatchRequest, given: ServicesDep, access: AccessDep) -> BatchPreview:
    """What the same request to `/v1/batches` would compute: shards, images, reused results, time and money.

    It takes a few seconds at most; of many or large shards only some are looked at.
    """
    if body.input.uploads is not None:
        raise ProblemError("invalid-request", "a preview looks at shards; of uploads everything is known already", [])
    profile = await run_in_threadpool(_profile, given, body)
    async with given.shards.turn():
        shards, chosen = await _found(given, body, access)
        if chosen is not None:
            preview = ChosenPreview(given, profile, access.only_tenant, chosen.pin)
            return await run_in_threadpool(preview.of_pinned)
        return await run_in_threadpool(lambda: Preview(given, profile, access.only_tenant).of(shards))


async def _found(given: Services, body: BatchRequest, access: Access) -> tuple[list[str], Chosen | None]:
    """The shards of a request, or what its sources have now. Raises ProblemError, OSError and DamagedFile."""
    if body.input.sources is not None:
        return [], await run_in_threadpool(chosen_rows, given, body.input, access)
    return await given.shards.find(body.input.shards or []), None


def _checked(given: Services, body: BatchRequest) -> Profile:
    """The profile of a request for a new job, whose webhook is one that may be called. Raises ProblemError."""
    profile = _profile(given, body)
    if body.webhook is not None:
        _check_webhook(given, body.webhook)
    return profile


def _profile(given: Services, body: BatchRequest) -> Profile:
    """The profile of a request, with its texts. Raises ProblemError."""
    profile = given.profile(body.profile, TextSettings.of(body))
    # a budget in money needs the prices of all servers
    if body.budget and body.budget.money is not None and not profile.priced:
        _refuse_money(profile.name)
    return profile


def _check_webhook(given: Services, webhook: WebhookTarget) -> None:
    """What can be said of the address without the DNS. Raises ProblemError."""
    try:
        given.settings.webhook_rules.check(WebAddress.parse(webhook.url))
    except RefusedAddress as error:
        raise ProblemError("refused-url", f"webhook.url is refused: {error}") from error


def _create(
    given: Services,
    body: BatchRequest,
    shards: list[str],
    profile: Profile,
    whose: _Owner,
    indexed: Sequence[ShardSummary] = (),
    chosen: Chosen | None = None,
    sample: Sample | None = None,
) -> JobView:
    """Create the job."""
    job = given.jobs.new.create(
        "batch",
        shards,
        profile,
        body.priority,
        body.metadata,
        indexed,
        budget=body.budget,
        caller=whose.caller,
        bounds=given.bounds,
        webhook=body.webhook,
        tenant=whose.tenant,
        use=whose.use,
        chosen=chosen,
        sample=sample,
    )
    return given.jobs.accepted(job)


def _refuse_money(profile: str) -> NoReturn:
    detail = f"profile {profile!r} has no prices for some of its servers, so a budget in money cannot be applied"
    errors = [{"type": "value_error", "location": ["body", "budget", "money"], "message": detail}]
    raise ProblemError("invalid-request", detail, errors)
