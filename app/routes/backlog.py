"""`/v1/backlog` and `/v1/workers`: what is still to be computed, and by whom."""

from __future__ import annotations

from fastapi import APIRouter

from app.dependencies import AccessDep, ServicesDep
from app.http.scopes import ScopedRoute
from app.problems import PROBLEM_RESPONSES
from strata.core import Backlog, WorkerList, WorkerView

router = APIRouter(route_class=ScopedRoute, responses=PROBLEM_RESPONSES)


@router.get("/backlog")
def show_backlog(given: ServicesDep, access: AccessDep) -> Backlog:
    """What each group has still to compute for all unfinished jobs, and its ready workers. A tenant sees its own jobs.

    An autoscaler that reads the queue's streams would see the same few chunks whether a thousand images wait or three
    million: the scheduler keeps them short. `groups.vision.images` and `groups.llm.ready` are what it should read.
    """
    return given.jobs.backlog(access.only_tenant)


@router.get("/workers")
def list_workers(given: ServicesDep) -> WorkerList:
    """The workers that report now, by their names. They work for all tenants."""
    return WorkerList(
        workers=[
            WorkerView(
                name=one.name,
                host=one.host,
                groups=one.groups,
                ready=one.ready,
                chunks=len(one.chunks),
                images=sum(chunk.images for chunk in one.chunks),
                held_up=sorted({wait.stage for wait in one.held_up}),
                profiles=sorted({loaded.profile for loaded in one.loaded}),
                resident_bytes=one.resident_bytes,
                gpu_reserved_bytes=sum(gpu.reserved_bytes for gpu in one.gpus),
            )
            for one in given.queue.heartbeats.live()
        ]
    )
