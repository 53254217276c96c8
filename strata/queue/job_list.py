"""The list of jobs in Redis: the ids of all jobs by status and kind, in the order of their creation.

It exists so that a page of a filtered list takes a bounded time among a million jobs. It is an index: the job files in
the store are the truth. When Redis has lost it, it is rebuilt from the store, and is not used until it is complete.

Each status and kind has a sorted set whose members all have the score 0, so that they are ordered as texts. A member is
`ID:PROFILE:IMAGE`, where ids sort by time; IMAGE is the upload of a job of one image. For a job of another tenant than
`default` it is `IMAGE@TENANT`, so that lists of earlier versions stay valid.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from strata.core import DEFAULT_TENANT, JobKind, JobRequest, JobStatus, created_at
from strata.queue import keys
from strata.queue.connection import Connection, translate_errors
from strata.queue.scripts import load_script

MAX_SCANNED = 5000  # entries that are looked at for one page: about 10 ms of the server's time
ANNOUNCED_SECONDS = 300  # after which a process that creates a job has died
USED_SECONDS = 3600  # more than a job needs from its id to its place in the list, with the clocks' differences
REMOVAL_SECONDS = 30  # after which a process that removes files of a refused request has died
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

    def announce(self, image: str, job_id: str, sent: bool = False) -> None:
        """Announce a job of one image that is being created: from now on its upload must not be removed.

        sent: no job is created, but the upload is stored for a batch to come. It waits while the files of a refused
        request for the same image are being removed.
        """
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.sadd(keys.ANNOUNCED + image, job_id)
            pipe.expire(keys.ANNOUNCED + image, ANNOUNCED_SECONDS)
            if sent:
                pipe.set(keys.SENT + image, job_id, ex=ANNOUNCED_SECONDS)
            pipe.exists(keys.REMOVING + image)
            removing = bool(pipe.execute()[-1])
        ends = time.monotonic() + REMOVAL_SECONDS
        while removing and time.monotonic() < ends:
            time.sleep(0.01)
            removing = bool(self._redis.exists(keys.REMOVING + image))

    def withdraw(self, image: str, job_id: str) -> None:
        """The job is listed now, or it was not created."""
        self._redis.srem(keys.ANNOUNCED + image, job_id)

    def begin_removal(self, image: str, job_id: str, created: Iterable[str], upload: str) -> set[str]:
        """Withdraw a job that was refused; the paths of files that nobody else needs, which must be removed now.

        created: the paths of files that did not exist when the job was announced. A request for the same image that is
        answered at the same time may need them: then they stay, and if that is refused too, it is the one that removes
        them. upload: the one of them that stays if it was sent for a batch. Nobody begins to use what is removed until
        `end_removal`, which must follow.
        """
        paths, (announced, sent) = list(created), (keys.ANNOUNCED + image, keys.SENT + image)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.srem(announced, job_id)
            if paths:
                pipe.sadd(keys.REFUSED + image, *paths)
                pipe.expire(keys.REFUSED + image, ANNOUNCED_SECONDS)
            pipe.sadd(keys.REMOVING + image, job_id)
            pipe.expire(keys.REMOVING + image, REMOVAL_SECONDS)
            pipe.exists(announced)
            pipe.exists(sent)
            pipe.exists(keys.LIST_COMPLETE)
            pipe.smembers(keys.REFUSED + image)
            *_, needed, for_batch, complete, refused = pipe.execute()
        gone = set(refused) - ({upload} if for_batch else set())
        if needed or not complete or not gone:
            return set()
        # who has used the files was accepted after they were created
        after = f"{int(max(0.0, created_at(job_id) - USED_SECONDS) * 1000):012x}"
        chosen = JobFilter(kind="image", image=image, after=after)
        cursor = None
        while True:
            ids, cursor = self.page(chosen, 1, cursor)
            if ids:
                return set()
            if cursor is None:
                return gone

    def end_removal(self, image: str, job_id: str, removed: bool) -> None:
        """The files of `begin_removal` were removed, or are not to be removed."""
        with self._redis.pipeline(transaction=True) as pipe:
            if removed:
                pipe.delete(keys.REFUSED + image)
            pipe.srem(keys.REMOVING + image, job_id)
            pipe.execute()

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
