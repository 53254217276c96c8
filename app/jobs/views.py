"""The envelopes of jobs for many requests at once: requests that come while Redis is asked are answered together.

No envelope is older than the request that it answers: it is read after the request has come. So the more requests wait,
the fewer questions each of them costs, and nothing has to be invalidated when a job changes.
"""

from __future__ import annotations

import asyncio
from functools import cached_property

from starlette.concurrency import run_in_threadpool

from strata.core import JobView
from strata.jobs import Jobs

MOST = 200  # jobs that are read together: a bounded time for the interpreter, which the event loop shares


class Shown:
    """An envelope that several requests share, and its JSON, which is made once."""

    def __init__(self, view: JobView) -> None:
        self.view = view

    @cached_property
    def json(self) -> str:
        """The envelope as the API shows it."""
        return self.view.model_dump_json()


class JobViews:
    """The requests of one event loop that ask for jobs."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self._asked: dict[str, asyncio.Future[Shown | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(self, job_id: str) -> Shown:
        """A job's envelope. Raises UnknownJob, QueueUnavailable and OSError."""
        asked = self._asked.get(job_id)
        if asked is None:
            asked = self._asked[job_id] = asyncio.get_running_loop().create_future()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._read())
        # a request that is given up must not cancel the others
        shown = await asyncio.shield(asked)
        # what is in the store is read for each request: no job's files keep another job waiting
        return shown or Shown(await run_in_threadpool(self.jobs.stored_view, job_id))

    async def _read(self) -> None:
        """Answer the requests that have come, together, as long as there are any."""
        while self._asked:
            ids = list(self._asked)[:MOST]
            asked = [self._asked.pop(job_id) for job_id in ids]
            for future, shown in zip(asked, await run_in_threadpool(self._views, ids), strict=True):
                if isinstance(shown, Exception):
                    future.set_exception(shown)
                    future.exception()  # it counts as seen, also if its requests were given up
                else:
                    future.set_result(shown)

    def _views(self, ids: list[str]) -> list[Shown | Exception | None]:
        """For each job its envelope, or None if it is in the store; or the error of reading them."""
        try:
            return [Shown(view) if view else None for view in self.jobs.views(ids)]
        except Exception as error:
            return [error for _ in ids]
