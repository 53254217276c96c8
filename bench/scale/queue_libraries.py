"""Measure Celery and taskiq with one message per image, on the kind of server that Strata starts.

Tasks get the fields of an image reference and do nothing. Both libraries have two worker processes, deep prefetch and
no stored results. Celery acknowledges when a task begins; taskiq's broker is that on Redis Streams, which like ours
loses no message with a worker. The rates of both halves are equal, so that some ten thousand messages are as good a
measure as millions. `whole` is the better of two ways: publish all and then drain, and both at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import redis

from bench.processes import Process
from strata.queue import EmbeddedServer

URL = "BENCH_QUEUE_URL"
TASK = "bench.nothing"
QUEUE = "bench"
WORKERS = 2
TOGETHER = 100  # messages that taskiq's publisher sends concurrently
START_SECONDS, DRAIN_SECONDS = 60.0, 1200.0
Halves = tuple[float, float]


@dataclass(frozen=True)
class QueueRates:
    """Messages/s of a library, of the first and the second half if there are two, and its Redis bytes per message."""

    name: str
    messages: int
    publish: Halves
    drain: Halves
    whole: float
    bytes_each: float


def nothing(shard: str, key: str, offset: int, size: int) -> None:
    """The task."""


async def nothing_async(shard: str, key: str, offset: int, size: int) -> None:
    """The task for a library with asyncio workers."""


def message(number: int) -> tuple[str, str, int, int]:
    """The arguments of an image's task."""
    return f"/data/cc3m/{number // 10_000:05d}.tar", f"{number:09d}", number * 4096, 4000


class Celery:
    """Celery with prefork workers."""

    name = "Celery"

    def __init__(self, url: str) -> None:
        import celery

        self.app: Any = celery.Celery("bench", broker=url.replace("unix://", "redis+socket://"))
        self.app.conf.update(
            task_ignore_result=True,
            task_default_queue=QUEUE,
            worker_prefetch_multiplier=256,
            worker_hijack_root_logger=False,
            broker_connection_retry_on_startup=True,
        )
        self.task: Any = self.app.task(nothing, name=TASK)

    def publish(self, first: int, count: int) -> None:
        """Publish messages over one connection."""
        with self.app.producer_pool.acquire(block=True) as producer:
            for number in range(first, first + count):
                self.task.apply_async(message(number), producer=producer)

    @staticmethod
    def command() -> list[str]:
        """What runs a worker."""
        return ["-m", "bench.scale.queue_libraries", "celery"]

    @staticmethod
    def left(server: redis.Redis) -> int:
        """Messages that are queued or in hand."""
        waiting: Any = server.llen(QUEUE)
        in_hand: Any = server.hlen("unacked")
        return int(waiting) + int(in_hand)

    def work(self) -> None:
        """Run the worker in this process."""
        quiet = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        # "fast" passes tasks on without checking for a free process: best for tasks that do nothing
        self.app.Worker(pool="prefork", concurrency=WORKERS, optimization="fast", loglevel="ERROR", **quiet).start()


class Taskiq:
    """taskiq with its broker on Redis Streams."""

    name = "taskiq"

    def __init__(self, url: str) -> None:
        from taskiq_redis import RedisStreamBroker

        self.broker: Any = RedisStreamBroker(url, queue_name=QUEUE, max_connection_pool_size=2 * TOGETHER)
        self.task: Any = self.broker.register_task(nothing_async, task_name=TASK)
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.broker.startup())

    def publish(self, first: int, count: int) -> None:
        """Publish messages, TOGETHER at a time."""
        self.loop.run_until_complete(self._publish(range(first, first + count)))

    async def _publish(self, numbers: range) -> None:
        for start in range(0, len(numbers), TOGETHER):
            some: list[Awaitable[Any]] = [self.task.kiq(*message(n)) for n in numbers[start : start + TOGETHER]]
            await asyncio.gather(*some)

    @staticmethod
    def command() -> list[str]:
        """What runs a worker."""
        options = ["--workers", str(WORKERS), "--max-async-tasks", "100", "--max-prefetch", "100"]
        return ["-m", "taskiq", "worker", *options, "--log-level", "ERROR", "bench.scale.queue_libraries:taskiq_broker"]

    @staticmethod
    def left(server: redis.Redis) -> int:
        """Messages that are queued or in hand."""
        groups: Any = server.xinfo_groups(QUEUE)
        return sum(int(group["lag"] or 0) + int(group["pending"]) for group in groups)


def taskiq_broker() -> Any:
    """Make the broker with its task; imported by `taskiq worker`."""
    from taskiq_redis import RedisStreamBroker

    broker: Any = RedisStreamBroker(os.environ[URL], queue_name=QUEUE)
    broker.register_task(nothing_async, task_name=TASK)
    return broker


def measure(library: Callable[[str], Celery | Taskiq], messages: int, folder: Path) -> QueueRates:
    """Publish, drain, then do both at once, on a new server. Raises TimeoutError."""
    with EmbeddedServer(folder / "redis") as embedded:
        server: Any = redis.Redis.from_url(embedded.url, decode_responses=True)
        queue = library(embedded.url)
        # publish without workers, which also gives the memory per message
        before = server.info("memory")["used_memory"]
        publish = _halves(messages, queue.publish)
        bytes_each = (server.info("memory")["used_memory"] - before) / messages
        worker = Process(queue.command(), {URL: embedded.url}, folder / f"{queue.name}.log")
        try:
            # drain with workers
            drain, drained = _drain(queue, server, messages)
            began = time.monotonic()
            # publish and drain at the same time
            queue.publish(0, messages)
            _wait(lambda: queue.left(server) == 0, DRAIN_SECONDS, queue.name)
            at_once = messages / (time.monotonic() - began)
        finally:
            _end(worker)
        # the images/s of publishing and then draining
        one_by_one = 1 / (sum(1 / rate for rate in publish) / 2 + 1 / drained)
        return QueueRates(queue.name, messages, publish, drain, max(at_once, one_by_one), bytes_each)


def _halves(messages: int, publish: Callable[[int, int], None]) -> Halves:
    rates = []
    for first in (0, messages // 2):
        began = time.monotonic()
        publish(first, messages // 2)
        rates.append(messages // 2 / (time.monotonic() - began))
    return rates[0], rates[1]


def _drain(queue: Celery | Taskiq, server: redis.Redis, messages: int) -> tuple[Halves, float]:
    """The rates of both halves and of all messages, from the first one that was processed, without the start-up."""
    # the clock starts at the first processed message
    _wait(lambda: queue.left(server) < messages, START_SECONDS, f"{queue.name}'s workers")
    marks = [(time.monotonic(), queue.left(server))]
    for goal in (marks[0][1] // 2, 0):
        _wait(lambda: queue.left(server) <= goal, DRAIN_SECONDS, queue.name)  # noqa: B023 - it is called at once
        marks.append((time.monotonic(), queue.left(server)))
    (t0, n0), (t1, n1), (t2, n2) = marks
    return ((n0 - n1) / (t1 - t0), (n1 - n2) / (t2 - t1)), (n0 - n2) / (t2 - t0)


def _wait(reached: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not done after {seconds:.0f} s")
        time.sleep(0.05)


def _end(worker: Process) -> None:
    """End a worker and its children."""
    # libraries start processes of their own, which must end, too
    children = psutil.Process(worker.pid).children(recursive=True)
    worker.send(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        worker.process.wait(10)
    worker.end()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


if __name__ == "__main__":
    if sys.argv[1:] != ["celery"]:
        sys.exit("this module is measured by `python -m bench.scale`")
    Celery(os.environ[URL]).work()
