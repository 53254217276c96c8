"""Jobs: what somebody asked for, and the envelope that tells how far it is.

A job's request and its end are files in the store; Redis holds the working copy, which can be made again from them.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, cast

from strata.core.chunks import Chunk
from strata.core.errors import Conflict, NotFound
from strata.core.index_rows import IndexRow, index_table
from strata.core.profiles import FINAL_GROUP, GROUPS, Profile
from strata.core.records import Status
from strata.core.requests import JobRequest, ShardSummaries, ShardSummary
from strata.core.schemas import Budget, JobStatus, JobView, Priority
from strata.jobs.envelope import envelope
from strata.queue import keys
from strata.queue.broker import Broker
from strata.queue.heartbeats import Heartbeats
from strata.queue.ledger import Ledger
from strata.store.provenance import keep_profile
from strata.store.store import Store

KEPT_SECONDS = 86_400  # Redis keeps the working copy of a job that has ended for so long


class UnknownJob(NotFound, LookupError):
    """No job has this id."""


class NotFinished(Conflict, ValueError):
    """The job's status does not allow it."""

    def __init__(self, status: JobStatus) -> None:
        super().__init__(f"the job is {status.value}; only a job that is completed or failed can be tried again")


def new_job_id() -> str:
    """An id that sorts by time."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(5)}"


class Jobs:
    """Create, look at and cancel jobs. Raises redis.RedisError when the broker cannot be reached."""

    def __init__(self, broker: Broker, store: Store) -> None:
        self.broker = broker
        self.store = store
        self.ledger = Ledger(broker.redis)
        self._profiles: set[str] = set()  # fingerprints whose profile is known to be in the store

    def create(
        self,
        kind: Literal["image", "batch"],
        shards: list[str],
        profile: Profile,
        priority: Priority,
        metadata: dict[str, str] | None = None,
        indexed: Iterable[ShardSummary] = (),
        budget: Budget | None = None,
    ) -> JobRequest:
        """Keep a request and make its job active; the scheduler does the rest."""
        request = JobRequest(
            id=new_job_id(),
            kind=kind,
            shards=list(dict.fromkeys(shards)),
            profile=profile.name,
            fingerprints={group: profile.fingerprint(group) for group in GROUPS},
            chunk_size=profile.chunk_size,
            priority=priority,
            metadata=metadata or {},
            created_at=datetime.now(UTC),
            indexed=list(indexed),
            paid=[group for group in GROUPS if profile.paid(group)],
            priced=profile.priced,
            budget=budget,
        )
        self.broker.redis.ping()  # refuse before anything is kept rather than take a job that nobody schedules
        if request.fingerprints[FINAL_GROUP] not in self._profiles:
            keep_profile(self.store, profile)
            self._profiles.add(request.fingerprints[FINAL_GROUP])
        self.store.open_job(request.id)
        self.store.write_job_file(request.id, "request", request)
        if request.paid:
            self.ledger.begin(request.id, budget, new=True)
        self.activate(request)
        return request

    def create_image(self, data: bytes, alt_text: str | None, profile: Profile) -> JobRequest:
        """Keep an image and make it a job of its own whose first chunk is queued at once.

        The upload is a shard of one image that is indexed here, so that nothing waits for the scheduler's beat.
        """
        uri, digest = self.store.put_upload(data)
        identity = hashlib.sha256(f"{digest}\0{alt_text or ''}".encode()).hexdigest()[:16]
        index = Chunk("index", profile.name, profile.fingerprint("index"), uri, identity)
        if not self.store.has_part(index):
            self.store.write_index(index, index_table([IndexRow(digest[:16], uri, 0, len(data), alt_text)]))
        summary = ShardSummary(shard=uri, identity=identity, images=1)
        request = self.create("image", [uri], profile, "hi", indexed=[summary])
        if not self.store.has_part(next(iter(request.chunks(summary, FINAL_GROUP)))):
            groups = GROUPS[1:]
            chunks = [next(iter(request.chunks(summary, group))) for group in groups]
            first = next(chunk for chunk in chunks if not self.store.has_part(chunk))
            self.broker.enqueue(first, request.id, request.priority)
        return request

    def activate(self, request: JobRequest) -> None:
        """Put an unfinished job's working copy into Redis if it is not there."""
        fields = {
            "request": request.model_dump_json(),
            "status": JobStatus.VALIDATING.value,
            "started_at": datetime.now(UTC).isoformat(),
        }
        if request.paid:
            self.ledger.begin(request.id, request.budget)
        with self.broker.redis.pipeline(transaction=True) as pipe:
            for name, value in fields.items():
                pipe.hsetnx(keys.job(request.id), name, value)
            pipe.execute()
        for summary in request.indexed:  # before the scheduler sees the job, which would have them indexed
            counts = {"images": summary.images, "chunks": 1}
            self.broker.record(request.id, request.index_chunk(summary.shard), summary.model_dump_json(), counts)
        with self.broker.redis.pipeline(transaction=True) as pipe:
            pipe.sadd(keys.ACTIVE, request.id)
            pipe.execute()

    def request(self, job_id: str) -> JobRequest:
        """A job's request. Raises UnknownJob."""
        text = self.broker.redis.hget(keys.job(job_id), "request")
        if text is None and job_id.isalnum():
            text = self.store.read_job_file(job_id, "request")
        if text is None:
            raise UnknownJob(job_id)
        return JobRequest.model_validate_json(cast(str, text))

    def status(self, job_id: str) -> JobStatus | None:
        """A job's status as Redis has it; None if it has none."""
        text = cast("str | None", self.broker.redis.hget(keys.job(job_id), "status"))
        return JobStatus(text) if text else None

    def set_status(self, job_id: str, status: JobStatus, **fields: str) -> None:
        """Change a job's status and tell its listeners."""
        values: Any = {"status": status.value, **fields}
        with self.broker.redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.job(job_id), mapping=values)
            pipe.xadd(keys.events(job_id), {"event": "status", "status": status.value}, maxlen=10_000)
            pipe.execute()

    def cancel(self, job_id: str) -> JobView:
        """Ask for a job's end; what is computed stays. A finished job stays as it is."""
        view = self.view(job_id)
        if view.status.final:
            return view
        self.set_status(job_id, JobStatus.CANCELLING)
        return self.view(job_id)

    def retry(self, job_id: str) -> JobView:
        """Try a finished job's failed images again, and its shards that could not be read; the rest stays.

        Each chunk with failed images gets one more attempt, with a part of its own. A job in which nothing failed
        stays as it is. Raises NotFinished, and UnknownJob.
        """
        view, request = self.view(job_id), self.request(job_id)
        if view.status not in (JobStatus.COMPLETED, JobStatus.FAILED):
            raise NotFinished(view.status)
        if view.status is JobStatus.COMPLETED and not view.request_counts.failed and not view.shards.failed:
            return view
        retries = dict(request.retries)
        for summary in self.summaries(job_id).values():
            for chunk in self._failed(request, summary):
                retries[chunk.field] = chunk.attempt + 1
        request = request.model_copy(update={"retries": retries})
        self.store.open_job(job_id)
        self.store.write_job_file(job_id, "request", request)
        self.store.remove_job_file(job_id, "end")
        self.forget(job_id)
        self.activate(request)
        return self.view(job_id)

    def _failed(self, request: JobRequest, summary: ShardSummary) -> Iterator[Chunk]:
        """The chunks of a shard whose part holds failed images."""
        chunks = list(request.chunks(summary, FINAL_GROUP))
        there = self.store.part_names(chunks[0]) if chunks else set()
        written = [chunk for chunk in chunks if chunk.name in there]
        for chunk, counts in zip(written, self.store.read_all_counts(written), strict=True):
            if counts[Status.FAILED]:
                yield chunk

    def forget(self, job_id: str) -> None:
        """Drop a job's working copy in Redis, but for its events; the store knows all that it was made of."""
        self.broker.redis.delete(keys.job(job_id), *(keys.done(job_id, group) for group in GROUPS))

    def let_expire(self, job_id: str) -> None:
        """Let the working copy of a job that has ended go in time: the store keeps its end."""
        names = [
            keys.job(job_id),
            keys.events(job_id),
            keys.ledger(job_id),
            *(keys.done(job_id, group) for group in GROUPS),
        ]
        with self.broker.redis.pipeline(transaction=True) as pipe:
            for name in names:
                pipe.expire(name, KEPT_SECONDS)
            pipe.execute()

    def summaries(self, job_id: str) -> dict[str, ShardSummary]:
        """The shards that are indexed so far, by URI; of a finished job that Redis lost, from the store."""
        answer: Any = self.broker.redis.hgetall(keys.done(job_id, "index"))
        if not answer and job_id.isalnum():
            kept = self.store.read_job_file(job_id, "shards")
            if kept is not None:
                return {summary.shard: summary for summary in ShardSummaries.model_validate_json(kept).shards}
        return {shard: ShardSummary.model_validate_json(text) for shard, text in answer.items()}

    def write_shards(self, job_id: str) -> None:
        """Keep what is known of a job's shards: whoever looks at parts may have no Redis."""
        shards = list(self.summaries(job_id).values())
        self.store.write_job_file(job_id, "shards", ShardSummaries(shards=shards))

    def view(self, job_id: str) -> JobView:
        """The envelope. Raises UnknownJob."""
        fields: Any = self.broker.redis.hgetall(keys.job(job_id))
        if not fields.get("request"):
            end = self.store.read_job_file(job_id, "end") if job_id.isalnum() else None
            if end is not None:
                return JobView.model_validate_json(end)
            request = self.request(job_id)
            self.activate(request)
            fields = self.broker.redis.hgetall(keys.job(job_id))
        request = JobRequest.model_validate_json(fields["request"])
        usage = self.ledger.usage(job_id, request.priced) if request.paid else None
        return envelope(request, fields, self._in_hand(request), usage)

    def page(self, limit: int, before: str | None = None) -> tuple[list[JobView], str | None]:
        """Jobs, newest first, and the cursor of the next page."""
        ids = [job_id for job_id in reversed(self.store.job_ids()) if before is None or job_id < before]
        views = [self.view(job_id) for job_id in ids[:limit] if self._kept(job_id)]
        return views, ids[limit - 1] if len(ids) > limit else None

    def _kept(self, job_id: str) -> bool:
        """Whether a job's request is there yet: its folder is made a moment before."""
        try:
            return bool(self.request(job_id))
        except UnknownJob:
            return False

    def _in_hand(self, request: JobRequest) -> int:
        """Images of the job in chunks that workers hold now, as their heartbeats tell."""
        chunks = [chunk for beat in Heartbeats(self.broker.redis).all() for chunk in beat.chunks]
        return sum(chunk.images for chunk in chunks if request.id in self.broker.waiting_jobs(chunk))
