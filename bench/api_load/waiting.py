"""Requests with `Prefer: wait` that wait: what they cost the API."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.api_load.callers import HOST, OTHER_CALLER, UPLOADERS, processor_share, resident_mib, upload
from bench.api_load.clients import Caller, connect
from bench.processes import Fleet

WAITING = (200, 1000)  # requests that wait
WAIT_SECONDS = 120.0  # for which each waits; the most that the service takes
OF_ADDRESS = 900  # connections of one address; the service takes 1,000

Figures = dict[str, float]


def wait_for_records(fleet: Fleet) -> Figures:
    """The processor time and the memory of the API while requests wait.

    Raises RuntimeError if one is answered: all of them must be sent, and the API measured, while the first still waits.
    """
    return asyncio.run(_Waiting(fleet).measure())


def open_jobs(fleet: Fleet) -> int:
    """How many jobs have not ended."""
    return sum(1 for _ in (Path(fleet.store) / "open").glob("*"))


class _Waiting:
    """The requests that wait. Use it in one event loop."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.callers: list[Caller] = []
        self.sent: list[asyncio.Task[int]] = []
        self.first = 0.0  # when the first was sent

    async def measure(self) -> Figures:
        """The figures for each number of requests."""
        figures: Figures = {}
        idle = resident_mib(self.fleet.api.pid)
        self.first = time.perf_counter()
        try:
            for count in WAITING:
                await self._add(count)
                await asyncio.sleep(1.0)
                share = await asyncio.to_thread(processor_share, self.fleet.api.pid)
                self._refuse_answers()
                figures[f"{count} requests wait: processor s/s"] = share
                figures[f"{count} requests wait: the API's MiB above idle"] = resident_mib(self.fleet.api.pid) - idle
        finally:
            for caller in self.callers:
                caller.close()
            await asyncio.gather(*self.sent)
        return figures

    async def _add(self, count: int) -> None:
        """Send requests until so many wait. Few at a time: the service refuses images if too many are decoded."""
        while len(self.sent) < count:
            source = HOST if len(self.sent) < OF_ADDRESS else OTHER_CALLER
            new = await connect(HOST, self.fleet.port, min(UPLOADERS, count - len(self.sent)), source)
            self.callers += new
            self.sent += [asyncio.create_task(caller.send(upload(WAIT_SECONDS))) for caller in new]
            # an image is open when its job is created; then its request waits
            while open_jobs(self.fleet) < len(self.sent):
                self._refuse_answers()
                await asyncio.sleep(0.05)

    def _refuse_answers(self) -> None:
        """Raise RuntimeError if a request that should wait was answered."""
        statuses = [request.result() for request in self.sent if request.done()]
        if statuses:
            seconds = time.perf_counter() - self.first
            told = f"{statuses[0]} after {seconds:.0f} s, with {len(self.sent)} requests sent"
            raise RuntimeError(f"a request that should wait was answered with status {told}")
