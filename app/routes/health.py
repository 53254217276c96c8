"""`/healthz` and `/readyz`."""

from __future__ import annotations

from collections import Counter

import redis
from fastapi import APIRouter
from pydantic import BaseModel

from app.dependencies import Services, ServicesDep
from app.problems import PROBLEM_RESPONSES, ProblemError
from strata.core.profiles import GROUPS
from strata.queue.broker import Broker
from strata.queue.heartbeats import Heartbeats

router = APIRouter()


class Health(BaseModel):
    """`GET /healthz`."""

    status: str = "ok"


class Readiness(BaseModel):
    """`GET /readyz`: ready workers by group."""

    status: str = "ready"
    workers: dict[str, int]


@router.get("/healthz")
def healthz() -> Health:
    """Whether the process answers."""
    return Health()


@router.get("/readyz", responses={503: PROBLEM_RESPONSES["5XX"]})
def readyz(given: ServicesDep) -> Readiness:
    """Whether work would be done: Redis, a store that can be written, and a ready worker of each group."""
    reasons = {"store": _store_reason(given)}
    workers: Counter[str] = Counter()
    try:
        workers = ready_workers(given.broker)
        reasons |= {f"workers/{group}": "" if workers[group] else f"no ready worker for {group}" for group in GROUPS}
    except redis.RedisError as error:
        reasons["redis"] = f"Redis cannot be reached: {error}"
    wrong = {place: reason for place, reason in reasons.items() if reason}
    if wrong:
        errors = [{"type": "not_ready", "location": [place], "message": reason} for place, reason in wrong.items()]
        raise ProblemError("not-ready", "; ".join(wrong.values()), errors)
    return Readiness(workers={group: workers[group] for group in GROUPS})


def ready_workers(broker: Broker) -> Counter[str]:
    """How many workers are ready for each group, as their heartbeats tell. Raises redis.RedisError."""
    beats = Heartbeats(broker.redis).all()
    return Counter(group for beat in beats if beat.ready for group in beat.groups)


def _store_reason(given: Services) -> str:
    try:
        given.store.put(given.store.path("health", "api"), b"ok")
    except Exception as error:  # every kind of storage has errors of its own, and all of them mean the same here
        return f"the store cannot be written: {' '.join(str(error).split())[:300]}"
    return ""
