"""Searches of requests: which rows a job or a snapshot has, and what a search may take of the service.

So many run at a time, each for a bounded time; the search of a caller that goes away is ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import duckdb
from starlette.concurrency import run_in_threadpool

from app.problems import ProblemError
from app.tenants import Tenants
from strata.core import FINAL_GROUP, JobView
from strata.jobs import Jobs
from strata.keys import Access
from strata.search import IndexNotReady, Query, Scope, Search, SearchIndex, SnapshotScopes
from strata.store import Part

AT_ONCE = 2  # searches that run; each uses several threads
MAX_WAITING = 32  # that wait for their turn
MAX_SECONDS = 10.0  # of one search
READY_SECONDS = 10.0  # to wait for the first listing of the store
LOOK_SECONDS = 0.1  # between two looks whether the caller is still there

Result = TypeVar("Result")


class Target:
    """What is searched. matches: whether a part is of it; None: all are."""

    def __init__(self, scope: Scope, matches: Callable[[Part], bool] | None = None) -> None:
        self.scope, self.matches = scope, matches


class Searches:
    """Runs searches in threads, for the requests of one event loop."""

    def __init__(self, jobs: Jobs, index: SearchIndex, tenants: Tenants) -> None:
        self.jobs, self.index, self.tenants = jobs, index, tenants
        self._snapshots = SnapshotScopes(jobs.store)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    def target(self, job: JobView | None, snapshot: str | None, access: Access) -> Target:
        """The rows of a job, of a snapshot, or of all that exists for an access.

        Raises ProblemError, UnknownSnapshot, DamagedFile and OSError.
        """
        if snapshot is not None:
            self.tenants.check_snapshot(access, snapshot)
            return Target(self._snapshots.scope(snapshot))
        if job is None:
            return self._everything(access)
        summaries, written = self.jobs.summaries(job.id), self.jobs.written(job)
        fingerprint = self.jobs.request(job.id).fingerprints[FINAL_GROUP]
        identities = [summary.identity for summary in summaries.values() if summary.images]
        known = set(identities)
        numbers = None if written is None else {identity: set(found) for identity, found in written.items()}

        def matches(part: Part) -> bool:
            counts = numbers is None or part.number in numbers.get(part.identity, ())
            return part.fingerprint == fingerprint and part.identity in known and counts

        return Target(Scope.of_job(fingerprint, identities, written), matches)

    def _everything(self, access: Access) -> Target:
        if access.only_tenant is None:
            return Target(Scope.everything())
        own = self.tenants.shards(access.only_tenant)
        return Target(Scope.of_shards(own), lambda part: (part.fingerprint, part.identity) in own)

    async def run(
        self, target: Target, query: Query, act: Callable[[Search], Result], is_gone: Callable[[], Awaitable[bool]]
    ) -> Result:
        """The result of act for a search, in a thread. is_gone: whether the caller has gone away.

        Raises ProblemError if too many searches wait, if it takes too long or too much memory, and if the index is not
        there yet; and what act raises.
        """
        if self._waiting >= MAX_WAITING:
            raise ProblemError("too-busy", f"{self._waiting} searches wait for their turn; try again later")
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._run(lambda held: self._act(target, query, act, held), is_gone)
        finally:
            self._turns.release()

    def _act(
        self, target: Target, query: Query, act: Callable[[Search], Result], held: list[duckdb.DuckDBPyConnection]
    ) -> Result:
        try:
            self.index.ask(READY_SECONDS)
            with self.index.cursor() as cursor:
                held.append(cursor)
                return act(Search(cursor, target.scope, query))
        except IndexNotReady as error:
            raise ProblemError("search-not-ready", str(error)) from error
        except duckdb.OutOfMemoryException as error:
            raise ProblemError("search-stopped", "the search takes too much memory; narrow it") from error
        except duckdb.InterruptException as error:
            raise ProblemError("search-stopped", f"it took more than {MAX_SECONDS:g} seconds; narrow it") from error

    async def _run(
        self,
        act: Callable[[list[duckdb.DuckDBPyConnection]], Result],
        is_gone: Callable[[], Awaitable[bool]],
    ) -> Result:
        """Run act in a thread. The cursor in its list is interrupted after MAX_SECONDS, or if the caller is gone."""
        held: list[duckdb.DuckDBPyConnection] = []
        end = time.monotonic() + MAX_SECONDS
        running = asyncio.ensure_future(run_in_threadpool(act, held))
        try:
            while not (await asyncio.wait([running], timeout=LOOK_SECONDS))[0]:
                if time.monotonic() > end or await is_gone():
                    # again and again, since it ends only the statement that runs now
                    _interrupt(held)
        except asyncio.CancelledError:
            _interrupt(held)
            raise
        return running.result()


def _interrupt(held: list[duckdb.DuckDBPyConnection]) -> None:
    for cursor in held:
        with suppress(duckdb.Error):
            cursor.interrupt()
