"""`/healthz` and `/readyz`: probes for load balancers and container engines."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.dependencies import Services, ServicesDep
from app.http.security import find_access
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.addresses import without_secrets
from strata.core import GROUPS
from strata.errors import QueueUnavailable

router = APIRouter()


class Health(BaseModel):
    """`GET /healthz`."""

    status: str = "ok"


class Readiness(BaseModel):
    """`GET /readyz`: ready workers by group."""

    status: str = "ready"
    workers: dict[str, int]


@router.get("/healthz")
async def healthz() -> Health:
    """Succeeds whenever the process can respond, whatever its threads are busy with."""
    return Health()


@router.get("/readyz", responses={503: PROBLEM_RESPONSES["5XX"]})
async def readyz(request: Request, given: ServicesDep) -> Readiness:
    """Succeeds if jobs can be processed: Redis and the store are available, and each group has a ready worker.

    It needs no key. A call with a key tries to write to the store, at most every few seconds. A call without it only
    reads, unless a request has met a fault of the storage that may be over now.
    """
    try:
        await find_access(given.keys, request.headers)
        has_key = True
    except ProblemError:
        has_key = False
    return await run_in_threadpool(_readiness, given, has_key)


def _readiness(given: Services, has_key: bool) -> Readiness:
    # the reason of each component that is not ready; empty for one that is
    reasons = {"store": given.store_probe.reason(has_key)}
    workers: Counter[str] = Counter()
    try:
        workers = given.queue.heartbeats.ready_workers()
        reasons |= {f"workers/{group}": "" if workers[group] else f"no ready worker for {group}" for group in GROUPS}
    except QueueUnavailable as error:
        reasons["redis"] = f"Redis cannot be used: {without_secrets(str(error))}"
    # report everything that is not ready at once, by the component's name
    wrong = {component: reason for component, reason in reasons.items() if reason}
    if wrong:
        errors = [{"type": "not_ready", "location": [name], "message": reason} for name, reason in wrong.items()]
        raise ProblemError("not-ready", "; ".join(wrong.values()), errors)
    return Readiness(workers={group: workers[group] for group in GROUPS})
