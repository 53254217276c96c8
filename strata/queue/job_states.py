"""The working copy of each job in Redis: request, status, counts, and which chunks it has counted."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from strata.core import (
    FINAL_GROUP,
    GROUPS,
    Chunk,
    JobKind,
    JobRequest,
    JobStatus,
    ShardSummary,
    created_at,
    is_job_id,
    origins,
)
from strata.errors import QueueFull
from strata.queue import keys
from strata.queue.connection import Connection, translate_errors
from strata.queue.job_events import MAX_EVENTS
from strata.queue.job_list import entry_of, image_in, kind_of, list_job_script, tenant_of
from strata.queue.scripts import STOPPED_TABLE, load_script, open_jobs_script

CHANGED_JOBS = 10_000  # that are read in one call
READ_AT_ONCE = 1000  # jobs whose counts are read in one call
LONGEST_RETRY = 30  # seconds after which a refused request is to be sent again at the latest
WHAT = {"image": "single images", "batch": "jobs of shards", "shards": "shards"}  # by the names of sums
ENDED_SECONDS = 86_400  # the working copy of a job that has ended is kept for this long
_STATUSES = frozenset(status.value for status in JobStatus)


class JobProgress(NamedTuple):
    """A job's kind and status, and how many of its images have a final result."""

    kind: JobKind
    status: JobStatus
    images: int


# the counts of an unfinished job that say what is still to be computed
OPEN_COUNTS = ("index:chunks", *(f"{group}:images" for group in GROUPS))


class OpenCounts(NamedTuple):
    """How far an unfinished job is.

    created_at: seconds since 1970; counts: those of OPEN_COUNTS, by their names; draws: whether its shards are only
    indexed, because a sample of their images is to be drawn.
    """

    created_at: float
    status: JobStatus
    shards: int
    tenant: str
    priority: str
    counts: Mapping[str, int]
    draws: bool = False


class Limit(NamedTuple):
    """How much one of the sums of unfinished jobs may be, and by how much a new job adds to it."""

    sum: str
    most: int
    number: int


@dataclass(frozen=True)
class Bounds:
    """How many unfinished jobs the queue takes: single images, jobs of shards, and the shards of those.

    share: the part of each that one caller may use.
    """

    images: int
    jobs: int
    shards: int
    share: float

    def limits(self, kind: JobKind, caller: str, shards: int = 1, own_images: int | None = None) -> list[Limit]:
        """The limits for a new job of a caller, its own before those of all callers.

        own_images: how many single images the caller may have at most, if that is less than its share.
        """
        numbers = {"image": (self.images, 1)} if kind == "image" else {"batch": (self.jobs, 1)}
        if kind == "batch":
            numbers["shards"] = self.shards, shards
        shares = {name: max(1, int(most * self.share)) for name, (most, _) in numbers.items()}
        if kind == "image" and own_images is not None:
            shares["image"] = min(shares["image"], own_images)
        own = [Limit(f"{name}:{caller}", shares[name], number) for name, (_, number) in numbers.items()]
        return own + [Limit(name, most, number) for name, (most, number) in numbers.items()]


class WorkingCopy(NamedTuple):
    """A job's fields in Redis, and whether the scheduler works on it."""

    fields: dict[str, str]
    active: bool


NO_COPY = WorkingCopy({}, active=False)


@translate_errors
class JobStates:
    """The working copies of all jobs. Every method raises QueueUnavailable.

    A copy can be rebuilt at any time from the job's files and the parts in the store.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        events, list_job, open_jobs = {"MAX_EVENTS": str(MAX_EVENTS)}, list_job_script(), open_jobs_script()
        news = {"STOPPED": STOPPED_TABLE, "OPEN_JOBS": open_jobs, **events}
        self._create = connection.register_script(load_script("create", LIST_JOB=list_job))
        self._record = connection.register_script(load_script("record", FINAL_GROUP=FINAL_GROUP, **news))
        self._transition = connection.register_script(load_script("transition", LIST_JOB=list_job, **news))
        self._close_job = connection.register_script(load_script("close_job", **news))
        self._activate = connection.register_script(load_script("activate", OPEN_JOBS=open_jobs, OPEN=keys.OPEN))

    # the unfinished jobs

    def active(self) -> set[str]:
        """The ids of the jobs that the scheduler works on."""
        return {job_id for job_id in cast("list[str]", self._redis.hkeys(keys.ACTIVE)) if is_job_id(job_id)}

    def changed(self) -> dict[str, bool]:
        """The jobs that have changed since the last call, a bounded number, and whether the scheduler works on each."""
        popped = cast("list[str]", self._redis.spop(keys.CHANGED, CHANGED_JOBS))
        ids = [job_id for job_id in popped if is_job_id(job_id)]
        found = cast("list[str | None]", self._redis.hmget(keys.ACTIVE, ids)) if ids else []
        return {job_id: entry is not None for job_id, entry in zip(ids, found, strict=True)}

    def activate(self, job_id: str, limits: Sequence[Limit] = ()) -> None:
        """Add a job, of which there is a working copy, to those that the scheduler works on.

        limits: those of a new job. Raises QueueFull, with nothing changed, if one of them is reached.
        """
        flat = [value for limit in limits for value in limit]
        reached = self._activate(args=["enter", job_id, *flat])
        if reached:
            raise self._full(next(limit for limit in limits if limit.sum == reached))

    def check(self, limits: Sequence[Limit]) -> None:
        """Check before the work on a new job whether it will be taken. Raises QueueFull."""
        sums = cast("list[str | None]", self._redis.hmget(keys.OPEN, [limit.sum for limit in limits]))
        for limit, text in zip(limits, sums, strict=True):
            if text is not None and int(text) + limit.number > limit.most:
                raise self._full(limit)

    def _full(self, limit: Limit) -> QueueFull:
        """The error for a limit that is reached. When there is room again follows from what has ended lately."""
        name, _, caller = limit.sum.partition(":")
        now = int(self._redis.time()[0])
        periods = [keys.closed(name, now // 10 - back) for back in range(7)]
        ended = sum(int(text or 0) for text in cast("list[str | None]", self._redis.mget(periods)))
        sums = cast("list[str | None]", self._redis.hmget(keys.OPEN, [limit.sum, name]))
        own, total = (int(text or 0) for text in sums)
        # callers take turns, so that a caller's part of the rate is about its part of what is queued
        rate = ended / (60 + now % 10) * own / max(1, total)
        # until there is room for some more requests than this one, as others wait too
        wanted = max(own + limit.number - limit.most, limit.most / 50)
        seconds = math.ceil(wanted / rate) if rate else LONGEST_RETRY
        return QueueFull(WHAT[name], own, limit.most, bool(caller), max(1, min(seconds, LONGEST_RETRY)))

    def is_active(self, job_id: str) -> bool:
        """Whether the scheduler works on a job. It also does on a job that has ended until its end is written."""
        return bool(self._redis.hexists(keys.ACTIVE, job_id))

    def deactivate(self, job_id: str) -> None:
        """Remove a job from those that the scheduler works on."""
        self._activate(args=["leave", job_id])

    # a job's hash

    def create(self, request: JobRequest, **fields: str) -> None:
        """Create a job's working copy with these fields, and list the job. Fields that exist are left as they are."""
        values = _fields_of(request) | fields
        flat = [text for pair in values.items() for text in pair]
        self._create(keys=[keys.job(request.id)], args=[request.id, *flat])

    def fields(self, job_id: str) -> dict[str, str]:
        """All fields of a job: `request`, `status`, times, `error`, `rate`, `waiting`, and counts as `GROUP:NAME`."""
        return cast("dict[str, str]", self._redis.hgetall(keys.job(job_id)))

    def copies(self, job_ids: Sequence[str]) -> list[WorkingCopy]:
        """The working copies of several jobs, in order, in one round trip; without fields where there is none."""
        if not job_ids:
            return []
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(keys.job(job_id))
                pipe.hexists(keys.ACTIVE, job_id)
            found = iter(pipe.execute())
        return [WorkingCopy(fields, bool(active)) for fields, active in zip(found, found, strict=True)]

    def request(self, job_id: str) -> JobRequest | None:
        """A job's request; None if Redis has no copy of the job."""
        text = cast("str | None", self._redis.hget(keys.job(job_id), "request"))
        return JobRequest.model_validate_json(text) if text else None

    def set_request(self, request: JobRequest) -> None:
        """Replace the request in a job's working copy, if there is one."""
        if self._redis.exists(keys.job(request.id)):
            self._redis.hset(keys.job(request.id), "request", request.model_dump_json())

    def status(self, job_id: str) -> JobStatus | None:
        """A job's status; None if Redis has no copy of the job."""
        text = cast("str | None", self._redis.hget(keys.job(job_id), "status"))
        return JobStatus(text) if text else None

    def progress(self, job_ids: Collection[str]) -> dict[str, JobProgress]:
        """How far jobs are, in one round trip, without those of which Redis has no copy."""
        ids, names = list(job_ids), ["listed", "status", f"{FINAL_GROUP}:images"]
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(keys.job(job_id), names)
            found: Any = pipe.execute()
        return {
            job_id: JobProgress(kind_of(listed), JobStatus(status), int(images or 0))
            for job_id, (listed, status, images) in zip(ids, found, strict=True)
            if listed and status in _STATUSES
        }

    def open_counts(self, job_ids: Sequence[str]) -> list[OpenCounts]:
        """What a backlog needs of jobs, without those of which Redis has no copy, READ_AT_ONCE in one round trip.

        A request may name 100,000 shards, so that it is not read.
        """
        read: list[OpenCounts] = []
        for start in range(0, len(job_ids), READ_AT_ONCE):
            some = job_ids[start : start + READ_AT_ONCE]
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in some:
                    pipe.hmget(keys.job(job_id), ["status", "shards", "listed", "priority", "draws", *OPEN_COUNTS])
                found: Any = pipe.execute()
            for job_id, (status, shards, listed, priority, draws, *texts) in zip(some, found, strict=True):
                if status in _STATUSES:
                    counts = {name: int(text or 0) for name, text in zip(OPEN_COUNTS, texts, strict=True)}
                    # a copy of an earlier version has no priority
                    who = tenant_of(listed or ""), priority or "lo"
                    job = OpenCounts(created_at(job_id), JobStatus(status), int(shards or 0), *who, counts, bool(draws))
                    read.append(job)
        return read

    def traces(self, job_ids: Collection[str]) -> list[str]:
        """The traces of the requests that made jobs, of those that have one, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(keys.job(job_id), "trace")
            found: Any = pipe.execute()
        return [text for text in found if text]

    def images(self, job_ids: Collection[str]) -> set[str]:
        """The uploads of jobs of one image, as `image_of` names them, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(keys.job(job_id), "listed")
            entries: Any = pipe.execute()
        return {image_in(entry) for entry in entries if entry and kind_of(entry) == "image"}

    def set_status(self, job_id: str, status: JobStatus, **fields: str) -> JobStatus | None:
        """Change a job's status and other fields, and add an event, in one step, if the present status allows it.

        Returns the status that stands afterwards. If it is another one, a different process has changed the status
        before, and nothing was changed here. None if Redis has no copy of the job.
        """
        return self._change(job_id, status, origins(status), [], fields)

    def set_fields(self, job_id: str, status: JobStatus, **fields: str) -> JobStatus | None:
        """Set other fields of a job if it has this status. Returns the status that stands."""
        return self._change(job_id, status, [status], [], fields)

    def run_again(self, request: JobRequest, status: JobStatus, **fields: str) -> JobStatus | None:
        """Change the status as `set_status`, and delete what the job has counted, so that it is counted anew.

        status: `validating` for the retry of a job whose end is written and which Redis may have lost; `in_progress`
        for a job that lacks parts at its end. Of all keys of the job the expiry is removed.
        """
        # the working copy of a job that is retried may have expired
        before = [*origins(status), *([""] if status is JobStatus.VALIDATING else [])]
        done = [keys.done(request.id, group) for group in GROUPS]
        values = _fields_of(request) | fields
        return self._change(request.id, status, before, done, values)

    def _change(
        self, job_id: str, status: JobStatus, before: Sequence[str], done: Sequence[str], fields: Mapping[str, str]
    ) -> JobStatus | None:
        where = [keys.job(job_id), keys.events(job_id), keys.ACTIVE, *done]
        flat = [text for pair in fields.items() for text in pair]
        stands: Any = self._transition(keys=where, args=[job_id, status.value, json.dumps(before), *flat])
        return JobStatus(stands) if stands else None

    def counts(self, job_id: str, *names: str) -> list[int]:
        """Some of a job's counts by their names `GROUP:NAME`; 0 for a count that does not exist."""
        values = cast("list[str | None]", self._redis.hmget(keys.job(job_id), list(names)))
        return [int(value or 0) for value in values]

    def close_job(self, job_id: str, status: JobStatus) -> bool:
        """Deactivate a job whose end is written, and let all its keys expire after ENDED_SECONDS.

        False, with nothing changed, if the job no longer has this status.
        """
        return bool(self._close_job(keys=_keys_of(job_id), args=[job_id, status.value, ENDED_SECONDS]))

    def delete(self, job_id: str) -> None:
        """Delete a job with all its keys: it was refused while it was created, or it is deleted for good."""
        with self._redis.pipeline(transaction=True) as pipe:
            self._activate(args=["leave", job_id], client=pipe)
            pipe.delete(*_keys_of(job_id))
            pipe.execute()

    # the chunks that a job has counted

    def record(self, job_id: str, chunk: Chunk, counts: Mapping[str, int], summary: ShardSummary | None = None) -> bool:
        """Count a chunk that need not be computed; False if the job has counted it before. summary: for `index`."""
        where, args = _record_arguments(job_id, chunk, counts, summary)
        return bool(self._record(keys=where, args=args))

    def record_all(self, job_id: str, counted: Iterable[tuple[Chunk, Mapping[str, int]]]) -> None:
        """Count many chunks with their counts as `record` does, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            for chunk, counts in counted:
                where, args = _record_arguments(job_id, chunk, counts)
                self._record(keys=where, args=args, client=pipe)
            pipe.execute()

    def recorded(self, job_id: str, group: str, fields: Sequence[str]) -> set[str]:
        """Those of a group's chunks, by their fields, that a job has counted."""
        values: Any = self._redis.hmget(keys.done(job_id, group), list(fields))
        return {field for field, value in zip(fields, values, strict=True) if value is not None}

    def summary_count(self, job_id: str) -> int:
        """How many of a job's shards are indexed."""
        return int(self._redis.hlen(keys.done(job_id, "index")))

    def summarized_shards(self, job_id: str) -> set[str]:
        """The URIs of a job's shards that are indexed."""
        return set(cast("list[str]", self._redis.hkeys(keys.done(job_id, "index"))))

    def summaries(self, job_id: str, shards: Collection[str] | None = None) -> dict[str, ShardSummary]:
        """The summaries of a job's indexed shards by URI; only of the given shards if any are given."""
        key = keys.done(job_id, "index")
        if shards is None:
            texts = cast("dict[str, str | None]", self._redis.hgetall(key))
        elif shards:
            values = cast("list[str | None]", self._redis.hmget(key, list(shards)))
            texts = dict(zip(shards, values, strict=True))
        else:
            texts = {}
        return {shard: ShardSummary.model_validate_json(text) for shard, text in texts.items() if text is not None}


def _fields_of(request: JobRequest) -> dict[str, str]:
    """The fields of a job's hash that follow from its request."""
    fields = {"request": request.model_dump_json(), "listed": entry_of(request), "shards": str(len(request.shards))}
    # "draws" is always written: when a sample has been drawn, its job draws no longer
    fields |= {"priority": request.priority, "draws": "1" if request.draws else ""}
    fields |= {"trace": request.trace} if request.trace else {}
    # the script that finishes a chunk queues the next group's with it
    fields |= {f"{group}_fingerprint": fingerprint for group, fingerprint in request.fingerprints.items()}
    return fields | ({keys.CALLER: request.caller} if request.caller else {})


def _record_arguments(
    job_id: str, chunk: Chunk, counts: Mapping[str, int], summary: ShardSummary | None = None
) -> tuple[list[str], list[str]]:
    value = "" if summary is None else summary.model_dump_json()
    where = [keys.done(job_id, chunk.group), keys.job(job_id), keys.events(job_id)]
    return where, [chunk.field, value, json.dumps(dict(counts)), chunk.group, job_id]


def _keys_of(job_id: str) -> list[str]:
    """All keys of a job, first its hash and its stream of events."""
    own = [keys.job(job_id), keys.events(job_id), keys.ledger(job_id), keys.charged(job_id)]
    return own + [keys.done(job_id, group) for group in GROUPS]
