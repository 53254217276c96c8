"""The composition root of the REST service: it builds the application from its services and routes."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

import strata
from app import problems
from app.answers.compression import Compression
from app.answers.heads import Heads
from app.dependencies import Services
from app.http.access.links import Links
from app.http.access.sessions import Sessions
from app.http.audit import AuditTrail
from app.http.browsers import BrowserGuard
from app.http.document import complete, operation_id
from app.http.networks import is_loopback
from app.http.parameters import known_parameters
from app.http.prefix import V1, enter_prefix
from app.http.quotas import QuotaCheck
from app.http.request_limits import RequestLimits
from app.http.security import KeyCheck
from app.images.decoding import Decoder
from app.images.originals import Originals
from app.jobs.deletion import JobDeletion
from app.jobs.prefer import Waits
from app.jobs.shard_finder import ShardFinder
from app.jobs.views import JobViews
from app.metrics.page import Metrics, tell_counts
from app.metrics.requests import RequestLog
from app.reviews import Reviews
from app.routes import (
    api_docs,
    backlog,
    batches,
    captions,
    events,
    health,
    jobs,
    judgments,
    profiles,
    records,
    rows,
    search,
    uploads,
    webhooks,
)
from app.routes.studio import pages, session
from app.searches import Searches
from app.store_probe import StoreProbe
from app.tenants import Tenants
from strata.core import Settings, load_profile
from strata.errors import InvalidInput
from strata.jobs import Jobs, Listing, Scheduler
from strata.keys import KeyRing, StoredKeys, StoredSessions
from strata.lineage import told_jobs
from strata.queue import Queue
from strata.search import SearchIndex
from strata.shards import ImageReader
from strata.store import Store
from strata.webhooks.posts import post as send_webhook

log = logging.getLogger(__name__)

COUNT_SECONDS = 5.0  # between two additions of what this process has counted to the sums in Redis
STOP_SECONDS = 10.0  # to wait at shutdown for the scheduler's current tick
# what pages of the origins in STRATA_CORS_ORIGINS may send and read
_SENT = (
    *("Authorization", "X-API-Key", "Content-Type", "Prefer", "Idempotency-Key", "Last-Event-ID"),
    *("If-None-Match", "If-Range", "Range"),
)
_READ = (
    *("Link", "Location", "Content-Location", "Preference-Applied", "Idempotency-Replayed", "Retry-After"),
    *("ETag", "Accept-Ranges", "Content-Range", "X-Request-ID", "RateLimit", "RateLimit-Policy"),
)


class _Application(FastAPI):
    """FastAPI within a guard that also sees the answers that FastAPI makes outside of all its middleware."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        await super().__call__(scope, receive, enter_prefix(scope, self.state.services.settings.root_path, send))

    def build_middleware_stack(self) -> ASGIApp:
        """The application as it is called."""
        settings: Settings = self.state.services.settings
        metrics: Metrics = self.state.services.metrics
        guarded = BrowserGuard(super().build_middleware_stack(), settings.served_hosts, settings.cors_origins)
        return RequestLog(guarded, metrics.observe, metrics.in_flight)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, which is made once."""
        return self.openapi_schema or complete(super().openapi())


def create_app(settings: Settings, queue: Queue, store: Store) -> FastAPI:
    """Build the application on a queue and a store. A scheduler thread runs while the application does."""
    app = _Application(
        title="Strata",
        version=strata.__version__,
        summary="Images into layered descriptions.",
        lifespan=_lifespan,
        generate_unique_id_function=operation_id,
        openapi_url=None,  # FastAPI dumps the document anew for each request
        docs_url=None,  # its pages need a CDN; app/routes/api_docs.py replaces them
        redoc_url=None,
    )
    app.state.services = _services(settings, queue, store)
    _add_layers(app, app.state.services)
    # convert every error to a problem
    problems.install(app)
    api_docs.install(app)
    # only routes below /v1 require the API key: probes and pages must work without one
    v1 = APIRouter(prefix=V1, dependencies=[Depends(known_parameters)])
    # the routes are tried in this order, so that those that are asked for most come first
    resources = (jobs, captions, batches, uploads, events, records, profiles, judgments, search, rows)
    for resource in (*resources, webhooks, backlog, session):
        v1.include_router(resource.router, tags=[resource.__name__.rpartition(".")[2]])
    app.include_router(v1)
    app.include_router(health.router, tags=["health"])
    app.include_router(pages.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the scheduler's thread. Each API process has one; a lock in Redis makes only one of them schedule."""
    given: Services = app.state.services
    stop = threading.Event()
    settings = given.settings
    post = functools.partial(send_webhook, rules=settings.webhook_rules)
    lineage = ExitStack()
    watch = lineage.enter_context(told_jobs(None, log.warning))
    scheduler = Scheduler(given.queue, given.store, settings.high_water, settings.upload_days, post, watch)
    thread = threading.Thread(target=scheduler.run, args=(stop,), name="scheduler", daemon=True)
    thread.start()
    telling = threading.Thread(target=_tell_counts, args=(given.jobs, stop), name="counts", daemon=True)
    telling.start()
    given.searches.index.start_if_used()
    try:
        yield
    finally:
        stop.set()
        thread.join(STOP_SECONDS)
        telling.join(STOP_SECONDS)
        lineage.close()
        given.decoder.close()
        given.searches.index.close()


def _tell_counts(jobs: Jobs, stop: threading.Event) -> None:
    """Add what this process has counted to the sums in Redis until stop is set, and once more then."""
    while not stop.wait(COUNT_SECONDS):
        tell_counts(jobs)
    tell_counts(jobs)


def _services(settings: Settings, queue: Queue, store: Store) -> Services:
    """What routes and dependencies use."""
    all_jobs, images, probe = Jobs(queue, store), ImageReader(store), StoreProbe(store)
    tenants, keys = Tenants(all_jobs), _keys(settings, store)
    searches = Searches(all_jobs, SearchIndex(store, settings.data_dir / "search"), tenants)
    return Services(
        settings=settings,
        keys=keys,
        sessions=Sessions(keys, StoredSessions(store, keys.keys.signing_secret)),
        links=Links(keys),
        queue=queue,
        store=store,
        jobs=all_jobs,
        listing=Listing(all_jobs),
        decoder=Decoder(settings.max_pixels, settings.keep_metadata),
        shards=ShardFinder(settings.shard_roots),
        images=images,
        originals=Originals(store, images, settings.max_body_bytes),
        searches=searches,
        store_probe=probe,
        waits=Waits(all_jobs),
        deletion=JobDeletion(all_jobs, searches.index),
        views=JobViews(all_jobs),
        reviews=Reviews(all_jobs, tenants),
        metrics=Metrics(all_jobs, probe, lambda: load_profile(settings.profile, settings.profiles_dir)),
        tenants=tenants,
    )


def _keys(settings: Settings, store: Store) -> KeyRing:
    """The keys of requests. Beyond loopback one is needed, even if there is none."""
    own = settings.api_key.get_secret_value() if settings.api_key is not None else None
    try:
        closed = own is None and not is_loopback(settings.host)
    except InvalidInput:  # a name without an address: `strata serve` does not listen on it
        closed = True
    return KeyRing(StoredKeys(store), own, closed)


def _add_layers(app: FastAPI, given: Services) -> None:
    """Add what a request passes before its route, from the inside out.

    Bodies are limited before they are parsed, and the key and its quota of requests are checked before that. A
    browser's question whether a page of another origin may send a request has no key.
    """
    app.add_middleware(Compression)
    app.add_middleware(Heads)
    app.add_middleware(RequestLimits, most=given.settings.max_body_bytes)
    app.add_middleware(QuotaCheck, windows=given.queue.windows, upload_days=given.settings.upload_days)
    app.add_middleware(KeyCheck, keys=given.keys, sessions=given.sessions, links=given.links)
    app.add_middleware(AuditTrail, reads=given.settings.audit_reads)
    if given.settings.cors_origins:
        methods, origins = ("GET", "POST", "PUT", "DELETE"), given.settings.cors_origins
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=_SENT,
            expose_headers=_READ,
        )
