"""`/v1/backlog`: what is still to be computed, for whoever starts and stops workers."""

from __future__ import annotations

from fastapi import APIRouter

from app.dependencies import AccessDep, ServicesDep
from app.http.scopes import ScopedRoute
from app.problems import PROBLEM_RESPONSES
from strata.core import Backlog

router = APIRouter(route_class=ScopedRoute, prefix="/backlog", responses=PROBLEM_RESPONSES)


@router.get("")
def show_backlog(given: ServicesDep, access: AccessDep) -> Backlog:
    """What each group has still to compute for all unfinished jobs, and its ready workers. A tenant sees its own jobs.

    An autoscaler that reads the queue's streams would see the same few chunks whether a thousand images wait or three
    million: the scheduler keeps them short. `groups.vision.images` and `groups.llm.ready` are what it should read.
    """
    return given.jobs.backlog(access.only_tenant)
