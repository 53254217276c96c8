"""What belongs to which tenant, where an address or a filter names no job: judgments, snapshots, and rows of parts.

Parts are shared by their content: what one tenant has had computed is not computed again for another one. So a row is a
tenant's if one of its jobs has the row's shard, whoever had it computed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from app.problems import ProblemError
from strata.core import FINAL_GROUP, JobEnd
from strata.errors import DamagedFile
from strata.jobs import Jobs, UnknownJob
from strata.keys import Access
from strata.queue import JobFilter
from strata.snapshots import Snapshots, UnknownSnapshot
from strata.store import READERS

PAGE = 1000  # jobs that are listed at a time
FRESH_SECONDS = 5.0  # for which the shards of a tenant are believed

# the fingerprint of the group `llm`, and the identity of a shard
Shard = tuple[str, str]


class _JobShards(NamedTuple):
    """The shards of a job. fixed: they never change, as of a job of one image; ended: when it has ended, if it has."""

    shards: frozenset[Shard] = frozenset()
    fixed: bool = False
    ended: datetime | None = None


@dataclass
class _Known:
    """What is known of a tenant: its jobs, and the shards of all of them."""

    jobs: dict[str, _JobShards] = field(default_factory=dict)
    all: frozenset[Shard] = frozenset()
    read_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Tenants:
    """Answers for one service. Thread-safe. Every method raises QueueUnavailable and OSError."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._snapshots = Snapshots(jobs.store)
        self._of_jobs: dict[str, str] = {}  # a job's tenant never changes
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def of_job(self, job_id: str) -> str:
        """To whom a job belongs; empty if it is not there, or its request is damaged."""
        found = self._of_jobs.get(job_id)
        if found is None:
            found = self.jobs.tenant(job_id)
            if found is not None:
                self._of_jobs[job_id] = found
        return found or ""

    def owns(self, access: Access) -> Callable[[str], bool]:
        """Whether a job with this id exists for an access."""
        return (lambda job_id: True) if access.is_operator else lambda job_id: access.sees(self.of_job(job_id))

    def check_snapshot(self, access: Access, name: str) -> None:
        """Raise ProblemError unless a snapshot exists for an access; the names of others are not told."""
        if access.is_operator:
            return
        with suppress(UnknownSnapshot):
            if access.sees(self._snapshots.open(name).manifest.tenant):
                return
        raise ProblemError("unknown-snapshot", f"no snapshot has the name or id {name[:100]!r}")

    def shards(self, tenant: str) -> Collection[Shard]:
        """The shards of all jobs of a tenant. The first call reads all its jobs, later ones those that are new."""
        with self._lock:
            known = self._known.setdefault(tenant, _Known())
        with known.lock:
            if known.read_at is None or time.monotonic() - known.read_at >= FRESH_SECONDS:
                self._read(tenant, known)
                known.read_at = time.monotonic()
            return known.all

    def _read(self, tenant: str, known: _Known) -> None:
        ids = set(self._ids(tenant))
        for gone in known.jobs.keys() - ids:
            del known.jobs[gone]
        asked = [job_id for job_id in ids if job_id not in known.jobs or not known.jobs[job_id].fixed]
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda job_id: self._shards_of(job_id, known.jobs.get(job_id)), asked)
            known.jobs |= dict(zip(asked, found, strict=True))
        known.all = frozenset(shard for job in known.jobs.values() for shard in job.shards)

    def _shards_of(self, job_id: str, before: _JobShards | None) -> _JobShards:
        """The shards of a job. before: those that were read earlier, which hold until the job ends another time."""
        with suppress(UnknownJob, DamagedFile):
            end = self.jobs.store.parse_job_file(job_id, "end", JobEnd)
            ended = end.finished_at if end is not None else None
            if before is not None and ended is not None and before.ended == ended:
                return before
            request, summaries = self.jobs.request(job_id), self.jobs.summaries(job_id).values()
            fingerprint = request.fingerprints[FINAL_GROUP]
            shards = frozenset((fingerprint, summary.identity) for summary in summaries if summary.images)
            return _JobShards(shards, request.kind == "image", ended)
        return _JobShards()

    def _ids(self, tenant: str) -> Iterator[str]:
        """The ids of a tenant's jobs; of all jobs in the store while Redis has no complete list."""
        listed = self.jobs.queue.job_list
        if not listed.is_complete():
            yield from (job_id for job_id in self.jobs.store.job_ids() if self.of_job(job_id) == tenant)
            return
        cursor = None
        while True:
            ids, cursor = listed.page(JobFilter(tenant=tenant), PAGE, cursor)
            yield from ids
            if cursor is None:
                return
