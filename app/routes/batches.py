"""`POST /v1/batches`: create a job for many shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

from fastapi import APIRouter, Header, Response

from app.dependencies import Services, ServicesDep
from app.idempotency import IdempotentRoute
from app.problems import PROBLEM_RESPONSES, ProblemError
from app.security import Caller
from strata.core import BatchRequest, JobView
from strata.shards import OutsideRoots, ShardMissing, SourceError, find_shards

router = APIRouter(route_class=IdempotentRoute)

MAX_LISTED = 20  # missing shards that the problem lists


@router.post("/batches", status_code=202, responses=PROBLEM_RESPONSES)
def submit_shards(
    body: BatchRequest,
    given: ServicesDep,
    response: Response,
    caller: Caller,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Describe the images of shards. The response is immediate; the workers read the shards.

    A shard is a tar, a folder of images, or a Parquet or JSON Lines list of images. `{00000..00331}` expands to a
    range, `*` to the files that exist, and `@/folder/list.txt` to the lines of a file on the server.
    """
    # a budget in money needs the prices of all servers
    profile = given.profile(body.profile)
    if body.budget and body.budget.money is not None and not profile.priced:
        _refuse_money(profile.name)
    # expand the patterns and check local shards before a job is created, so that a typo creates no job
    shards = _shards(body.input.shards, given)
    _refuse_missing(shards)
    job = given.jobs.new.create(
        "batch", shards, profile, body.priority, body.metadata, budget=body.budget, caller=caller
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return given.jobs.accepted(job)


def _shards(patterns: list[str], given: Services) -> list[str]:
    try:
        return find_shards(patterns, given.settings.shard_roots)
    except ShardMissing as error:
        entry = {"type": "missing", "location": ["input", "shards"], "message": str(error)}
        raise ProblemError("shard-not-found", str(error), [entry]) from error
    except OutsideRoots as error:
        raise ProblemError("shard-outside-roots", str(error)) from error
    except SourceError as error:
        raise ProblemError("invalid-shards", str(error)) from error


def _refuse_money(profile: str) -> NoReturn:
    detail = f"profile {profile!r} has no prices for some of its servers, so a budget in money cannot be applied"
    errors = [{"type": "value_error", "location": ["body", "budget", "money"], "message": detail}]
    raise ProblemError("invalid-request", detail, errors)


def _refuse_missing(shards: list[str]) -> None:
    """Raise ProblemError for local shards that do not exist. Buckets are not checked, because that takes too long."""
    missing = [shard for shard in shards if "://" not in shard and not Path(shard).exists()]
    if missing:
        errors = [
            {"type": "missing", "location": [shard], "message": "the shard does not exist"}
            for shard in missing[:MAX_LISTED]
        ]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ProblemError("shard-not-found", f"the shard {missing[0]} does not exist{more}", errors)
