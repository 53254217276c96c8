"""The list of jobs in Redis: the ids of all jobs by status and kind, in the order of their creation.

It exists so that a page of a filtered list takes a bounded time among a million jobs. It is an index: the job files in
the store are the truth. When Redis has lost it, it is rebuilt from the store, and is not used until it is complete.

Each status and kind has a sorted set whose members all have the score 0, so that they are ordered as texts. A member is
`ID:PROFILE:IMAGE`, where ids sort by time; IMAGE is the upload of a job of one image. For a job of another tenant than
`default` it is `IMAGE@TENANT`, so that lists of earlier versions stay valid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from strata.core import DEFAULT_TENANT, JobKind, JobRequest, JobStatus
from strata.queue import keys
from strata.queue.connection import Connection, translate_errors
from strata.queue.scripts import load_script

MAX_SCANNED = 5000  # entries that are looked at for one page: about 10 ms of the server's time
ANNOUNCED_SECONDS = 300  # after which a process that creates a job has died
KINDS: tuple[JobKind, ...] = ("image", "batch")


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a list has; None: all. image: an upload, as `image_of` gives it; tenant: to whom they belong.

    after, before: the ids must be at least the one, and below the other; a prefix of an id is a time.
    """

    status: JobStatus | None = None
    kind: JobKind | None = None
    profile: str | None = None
    image: str | None = None
    after: str | None = None
    before: str | None = None
    tenant: str | None = None


class ListedJob(NamedTuple):
    """An entry of the list, as the store's files have it."""

    id: str
    kind: JobKind
    status: JobStatus
    text: str


def image_of(shard: str) -> str:
    """The name by which the list knows an upload: the first 16 digits of its SHA-256."""
    return shard[-64:][:16]


def entry_of(request: JobRequest) -> str:
    """What the list has of a job besides id and status, as `KIND:PROFILE:IMAGE` or `KIND:PROFILE:IMAGE@TENANT`."""
    image = image_of(request.shards[0]) if request.kind == "image" else ""
    tenant = "" if request.tenant == DEFAULT_TENANT else f"@{request.tenant}"
    return f"{request.kind}:{request.profile}:{image}{tenant}"


def image_in(entry: str) -> str:
    """The image of an entry, as `image_of` names it; empty for a job of shards."""
    return entry.rpartition(":")[2].partition("@")[0]


def kind_of(entry: str) -> JobKind:
    """The kind of a job by its entry."""
    return "image" if entry.startswith("image:") else "batch"


def tenant_of(entry: str) -> str:
    """The tenant of a job by its entry."""
    return entry.rpartition(":")[2].partition("@")[2] or DEFAULT_TENANT


def list_job_script() -> str:
    """The Lua function `list_job(job_key, job_id)`, for scripts that change a job's status."""
    statuses = ", ".join(f"'{status.value}'" for status in JobStatus)
    return load_script("list_job", LISTED=keys.LISTED, STATUSES=statuses)


@translate_errors
class JobList:
    """The ids of all jobs. Every method raises QueueUnavailable. `JobStates` moves a job when its status changes."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._page = connection.register_script(load_script("list_page"))
        self._add = connection.register_script(load_script("list_add", LIST_JOB=list_job_script()))
        self._complete = connection.register_script(load_script("list_complete"))

    def page(self, chosen: JobFilter, limit: int, cursor: str | None = None) -> tuple[list[str], str | None]:
        """At most limit ids, the newest first, and the cursor of the next page; None on the last one.

        At most MAX_SCANNED entries are looked at, so that a page may have fewer ids, or none, and yet a cursor.
        """
        statuses = [chosen.status] if chosen.status else list(JobStatus)
        kinds = [chosen.kind] if chosen.kind else KINDS
        tops = [bound for bound in (cursor, chosen.before) if bound is not None]
        top, bottom = f"({min(tops)}" if tops else "+", f"[{chosen.after}" if chosen.after else "-"
        where = [keys.listed(status.value, kind) for status in statuses for kind in kinds]
        filters = [chosen.profile or "", chosen.image or "", chosen.tenant or ""]
        args: list[Any] = [top, bottom, *filters, limit, MAX_SCANNED, DEFAULT_TENANT]
        ids, following = cast("tuple[list[str], str]", self._page(keys=where, args=args))
        return list(ids), following or None

    def announce(self, image: str, job_id: str) -> None:
        """Announce a job of one image that is being created: from now on its upload must not be removed."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.sadd(keys.ANNOUNCED + image, job_id)
            pipe.expire(keys.ANNOUNCED + image, ANNOUNCED_SECONDS)
            pipe.execute()

    def withdraw(self, image: str, job_id: str) -> None:
        """The job is listed now, or it was not created."""
        self._redis.srem(keys.ANNOUNCED + image, job_id)

    def is_announced(self, image: str) -> bool:
        """Whether a job with this upload is being created."""
        return bool(self._redis.exists(keys.ANNOUNCED + image))

    def is_complete(self) -> bool:
        """Whether the list has all jobs of the store. False after Redis was emptied."""
        return bool(self._redis.exists(keys.LIST_COMPLETE))

    def begin(self, token: str) -> None:
        """Begin to rebuild the list. token: a new text, which `finish` must have too."""
        self._redis.set(keys.LIST_REBUILD, token)

    def add_missing(self, jobs: Iterable[ListedJob]) -> None:
        """Add jobs of the store that the list does not have. The status of a working copy in Redis counts first."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                where = [keys.job(job.id), keys.listed(job.status.value, job.kind)]
                self._add(keys=where, args=[job.id, job.text, job.status.value], client=pipe)
            pipe.execute()

    def finish(self, token: str) -> bool:
        """Mark the list as complete; False if Redis was emptied since `begin`, or another process has begun."""
        return bool(self._complete(keys=[keys.LIST_REBUILD, keys.LIST_COMPLETE], args=[token]))

    def remove(self, job_id: str) -> None:
        """Remove a job from the list."""
        for key in [keys.listed(status.value, kind) for status in JobStatus for kind in KINDS]:
            # the members that begin with the id; a semicolon follows the colon after it
            found: Any = self._redis.zrangebylex(key, f"[{job_id}:", f"({job_id};")
            if found:
                self._redis.zrem(key, *found)
