"""The composition root of the REST service."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI

import strata
from app import problems
from app.body_limit import BodyLimit
from app.dependencies import Services
from app.routes import api_docs, batches, captions, events, health, jobs, pages, records
from app.security import require_key
from strata.core.settings import Settings
from strata.jobs.jobs import Jobs
from strata.jobs.scheduler import Scheduler
from strata.queue.broker import Broker
from strata.store.store import Store

STOP_SECONDS = 10.0


def create_app(settings: Settings, broker: Broker, store: Store) -> FastAPI:
    """The service over a broker and a store; its scheduler runs as long as it does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        scheduler = Scheduler(broker, store, settings.high_water)
        thread = threading.Thread(target=scheduler.run, args=(stop,), name="scheduler", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(STOP_SECONDS)

    app = FastAPI(
        title="Strata",
        version=strata.__version__,
        summary="Images into layered descriptions.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages need a CDN; app/routes/api_docs.py serves them from here
        redoc_url=None,
    )
    app.state.services = Services(settings, broker, store, Jobs(broker, store))
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    problems.install(app)
    api_docs.install(app)
    v1 = APIRouter(prefix="/v1", dependencies=[Depends(require_key)])
    for resource in (captions, batches, events, jobs, records):
        v1.include_router(resource.router)
    for router in (health.router, pages.router, v1):
        app.include_router(router)
    return app
