"""The dependencies of routes: the services, the settings, and the job of the path parameter `job_id`."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Path, Request

from app.http.access.attempts import Attempts
from app.http.access.links import Links
from app.http.access.sessions import Sessions
from app.http.limits import LARGE_ANSWERS, MAX_STREAMS, MAX_STREAMS_OF_CALLER
from app.http.networks import network_of
from app.http.security import access_of
from app.http.slots import Slots
from app.images.decoding import Decoder
from app.images.originals import Originals
from app.jobs.deletion import JobDeletion
from app.jobs.prefer import Waits
from app.jobs.shard_finder import ShardFinder
from app.jobs.views import JobViews, Shown
from app.metrics.page import Metrics
from app.problems import ProblemError
from app.reviews import Reviews
from app.searches import Searches
from app.store_probe import StoreProbe
from app.tenants import Tenants
from strata.core import InvalidProfile, JobView, Profile, ProfileError, Settings, TextSettings, load_profile
from strata.jobs import Jobs, Listing, UnknownJob
from strata.keys import Access, KeyRing
from strata.queue import Bounds, Queue
from strata.shards import ImageReader
from strata.store import BrokenPart, Store


@dataclass(frozen=True)
class Services:
    """The objects that routes use, built once at the start of the application.

    streams: the answers that send events; large_answers: those that are made at a time of results and images.
    stopping: set when the server shuts down; requests that wait for something return then.
    """

    settings: Settings
    keys: KeyRing
    sessions: Sessions
    links: Links
    queue: Queue
    store: Store
    jobs: Jobs
    listing: Listing
    decoder: Decoder
    shards: ShardFinder
    images: ImageReader
    originals: Originals
    searches: Searches
    store_probe: StoreProbe
    waits: Waits
    deletion: JobDeletion
    views: JobViews
    reviews: Reviews
    metrics: Metrics
    tenants: Tenants
    streams: Slots = field(default_factory=lambda: Slots(MAX_STREAMS, MAX_STREAMS_OF_CALLER))
    large_answers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_ANSWERS))
    attempts: Attempts = field(default_factory=Attempts)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def bounds(self) -> Bounds:
        """How many unfinished jobs the queue takes."""
        given = self.settings
        return Bounds(given.queue_images, given.queue_jobs, given.queue_shards, given.caller_share)

    def profile(self, name: str | None, texts: TextSettings | None = None) -> Profile:
        """The profile with this name (None: the default profile), with a job's texts. Raises ProblemError."""
        # profiles are read for each request, so that a changed file takes effect without a restart
        try:
            found = load_profile(name or self.settings.profile, self.settings.profiles_dir)
        except InvalidProfile as error:
            # one entry for each fault, in the same form as a validation error
            errors = [
                {"type": fault.kind, "location": [str(part) for part in fault.key], "message": fault.message}
                for fault in error.faults
            ]
            raise ProblemError("invalid-profile", str(error), errors) from error
        except ProfileError as error:
            raise ProblemError("unknown-profile", str(error)) from error
        try:
            return found.with_texts(texts) if texts else found
        except ProfileError as error:
            raise ProblemError("invalid-request", str(error), []) from error


@contextmanager
def repairs(given: Services, job: JobView) -> Iterator[None]:
    """Convert BrokenPart to a problem, after the part was set aside and a completed job was run again."""
    try:
        yield
    except BrokenPart as error:
        if given.jobs.repair(job.id, error):
            raise ProblemError("part-broken", f"{error}; it is computed again") from error
        detail = f"{error}; the job is {job.status.value}, so that it is not computed again"
        raise ProblemError("part-lost", detail) from error


def services(request: Request) -> Services:
    """The application's services."""
    return cast(Services, request.app.state.services)


# dependencies that do not wait are asynchronous: FastAPI runs any other in a thread, which takes longer than they do
async def _services(request: Request) -> Services:
    return services(request)


ServicesDep = Annotated[Services, Depends(_services)]


async def caller_of(request: Request) -> str:
    """Whose turns a request takes in the queue: an opaque text for its API key and its client's network.

    A key that may have so many chunks queued only is one caller, whatever its addresses.
    """
    # the key is one that was checked: any other text would let a client be as many callers as it likes
    access = access_of(request)
    host = request.client.host if request.client and access.quotas.chunks_queued is None else ""
    return hashlib.sha256(f"{access.key_id}\0{network_of(host)}".encode()).hexdigest()[:16]


async def _settings(given: ServicesDep) -> Settings:
    return given.settings


async def _access(request: Request) -> Access:
    return access_of(request)


AccessDep = Annotated[Access, Depends(_access)]


async def _prefix(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


PrefixDep = Annotated[str, Depends(_prefix)]  # what a proxy has put before the paths, "" without one


async def shown_job(given: Services, access: Access, job_id: str) -> Shown:
    """A job's envelope. Raises UnknownJob also for the job of a tenant that does not exist for this access."""
    shown = await given.views.find(job_id)
    if not access.sees(shown.view.tenant):
        raise UnknownJob(job_id)
    return shown


async def _shown_job(given: ServicesDep, access: AccessDep, job_id: Annotated[str, Path(max_length=64)]) -> Shown:
    return await shown_job(given, access, job_id)


async def _known_job(shown: Annotated[Shown, Depends(_shown_job)]) -> JobView:
    return shown.view


Caller = Annotated[str, Depends(caller_of)]
SettingsDep = Annotated[Settings, Depends(_settings)]
ShownJob = Annotated[Shown, Depends(_shown_job)]
KnownJob = Annotated[JobView, Depends(_known_job)]
