"""`/healthz` and `/readyz`: probes for load balancers and container engines; `/metrics` for Prometheus."""

from __future__ import annotations

import ipaddress
from collections import Counter

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.dependencies import Services, ServicesDep
from app.http.security import access_by_headers
from app.metrics.page import loaded_workers
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.addresses import without_secrets
from strata.core import GROUPS
from strata.errors import QueueUnavailable
from strata.queue import Heartbeat

router = APIRouter()


class Health(BaseModel):
    """`GET /healthz`."""

    status: str = "ok"


class LoadedGroup(BaseModel):
    """How many ready workers have the models of a profile for a group in memory. fingerprint: of its stages."""

    fingerprint: str
    workers: int


class Readiness(BaseModel):
    """`GET /readyz`: ready workers by group; by profile and group, those that have its models in memory.

    profiles: the default profile. missing: a line for each of its groups without such a worker. That is no fault: a
    worker loads a profile for its first chunk, if its own file of the profile is the same.
    """

    status: str = "ready"
    workers: dict[str, int]
    profiles: dict[str, dict[str, LoadedGroup]]
    missing: list[str]


@router.get("/healthz")
async def healthz() -> Health:
    """Succeeds whenever the process can respond, whatever its threads are busy with."""
    return Health()


@router.get("/readyz", responses={503: PROBLEM_RESPONSES["5XX"]})
def readyz(given: ServicesDep) -> Readiness:
    """Succeeds if jobs can be processed: Redis and the store are available, and each group has a ready worker.

    It needs no key, and reads only, at most every few seconds; but after a request has met a fault of the storage a
    file is written, to learn whether that is over.
    """
    # the reason of each component that is not ready; empty for one that is
    reasons = {"store": given.store_probe.reason()}
    workers: Counter[str] = Counter()
    heartbeats: list[Heartbeat] = []
    try:
        heartbeats = given.queue.heartbeats.live()
        workers.update(group for one in heartbeats if one.ready for group in one.groups)
        reasons |= {f"workers/{group}": "" if workers[group] else f"no ready worker for {group}" for group in GROUPS}
    except QueueUnavailable as error:
        reasons["redis"] = f"Redis cannot be used: {without_secrets(str(error))}"
    # report everything that is not ready at once, by the component's name
    wrong = {component: reason for component, reason in reasons.items() if reason}
    if wrong:
        errors = [{"type": "not_ready", "location": [name], "message": reason} for name, reason in wrong.items()]
        raise ProblemError("not-ready", "; ".join(wrong.values()), errors)
    loaded = _loaded(given, heartbeats)
    missing = [
        f"no ready worker for {group} has loaded profile {name} ({one.fingerprint})"
        for name, groups in loaded.items()
        for group, one in groups.items()
        if not one.workers
    ]
    return Readiness(workers={group: workers[group] for group in GROUPS}, profiles=loaded, missing=missing)


def _loaded(given: Services, heartbeats: list[Heartbeat]) -> dict[str, dict[str, LoadedGroup]]:
    """Who has loaded the default profile; empty if its file is missing or has a fault, which a request is told."""
    try:
        profile = given.profile(None)
    except ProblemError:
        return {}
    found = loaded_workers(profile, heartbeats).items()
    return {profile.name: {group: LoadedGroup(fingerprint=one, workers=number) for group, (one, number) in found}}


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, given: ServicesDep) -> Response:
    """All metrics, for Prometheus. Who may read them is said by STRATA_METRICS."""
    wanted = given.settings.metrics
    if wanted == "off":
        raise ProblemError("not-found", "STRATA_METRICS is off")
    is_open = wanted == "open" or (wanted == "auto" and _is_local(request))
    # the sums are of all tenants
    if not is_open and not (await access_by_headers(given.keys, request.headers)).is_operator:
        raise ProblemError("missing-scope", "the metrics are of all tenants: they need an operator's key")
    content, media_type = await run_in_threadpool(given.metrics.page, request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


def _is_local(request: Request) -> bool:
    """Whether a program of this machine asks, and not a proxy of this machine for somebody else."""
    forwarded = {"forwarded", "x-forwarded-for", "x-real-ip", "via"} & set(request.headers.keys())
    try:
        return not forwarded and ipaddress.ip_address(request.client.host if request.client else "").is_loopback
    except ValueError:
        return False
