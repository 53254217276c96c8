"""The body of `strata worker`: one process, a thread a group, until SIGTERM."""

from __future__ import annotations

import functools
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from models.deadlines import DEADLINES, Limits
from strata.cli.exits import PROCESS_BROKEN
from strata.core import GROUPS, Settings, load_profile
from strata.errors import InvalidInput, ProcessBroken, QueueUnavailable, RedisUnavailable
from strata.garbage import collector_spared
from strata.jobs import Jobs, pair
from strata.queue import Gpu, Queue
from strata.store import Store, import_ahead, texts_of
from strata.telemetry import begin_traces, end_traces
from workers.engines.groups import GroupMaker, loaded_group, quiet_libraries
from workers.engines.queue import QueueClaims
from workers.groups import PipelineCache
from workers.indexer import Indexer
from workers.leases import Leases
from workers.profile_versions import ProfileVersions
from workers.retry import WorkInterrupted, retry_until_done
from workers.runner import Runner
from workers.watchdog import Watchdog

log = logging.getLogger("workers")

STOP_SECONDS = 8.0  # for the micro-batch in progress at SIGTERM; container engines and `strata serve` kill after 10
GPU_SECONDS = 5.0  # between two looks at the memory of GPUs
Loop = Callable[[threading.Event], None]


def work(settings: Settings, groups: list[str], group_of: GroupMaker) -> None:
    """Run the groups in threads of this process until SIGTERM or SIGINT. Raises StrataError.

    settings.profile is loaded before the worker says that it is ready; group_of makes a group by its name.
    """
    # Refuse what cannot work before anything is loaded.
    if unknown := set(groups) - set(GROUPS):
        raise InvalidInput(f"unknown groups {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    if settings.redis_url is None:
        raise RedisUnavailable("a worker needs REDIS_URL (`strata serve` starts its own workers)")
    load_profile(settings.profile, settings.profiles_dir)  # an invalid profile is told before anything is loaded
    # Store, queue and profiles, shared by the groups' threads; a signal sets `stop`, which every loop looks at.
    quiet_libraries(settings.threads)
    jobs = Jobs(Queue(settings.redis_url.get_secret_value()), Store(settings.store_uri, settings.moved_roots))
    # a store that is not that of Redis is told at once; while one of the two is away, it is found out later
    with suppress(QueueUnavailable, OSError):
        pair(jobs.queue, jobs.store)
    profiles = ProfileVersions(
        functools.partial(load_profile, folder=settings.profiles_dir), functools.partial(texts_of, jobs.store)
    )
    begin_traces("worker")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    # The watchdog watches the loading already; the lease thread publishes heartbeats meanwhile, which can take minutes.
    url = settings.redis_url.get_secret_value()
    with Watchdog(name, url) as watchdog, Leases(jobs.queue, name, groups, settings.lease_seconds) as leases:
        import_ahead()
        DEADLINES.report(watchdog.publish, Limits(settings.hang_seconds))
        loops = [_loop(group, group_of, jobs, leases, settings, profiles) for group in groups]
        with collector_spared():
            # Everything is loaded: report ready, and run a thread for each group until a signal.
            if not _is_announced(jobs, leases, stop):
                return
            log.info("worker %s is ready for %s", name, ", ".join(groups))
            _run(loops, stop, watchdog, leases)


def _run(loops: Sequence[Loop], stop: threading.Event, watchdog: Watchdog, leases: Leases) -> None:
    """Run each loop in a thread until stop is set. Raises ProcessBroken."""
    broken: list[ProcessBroken] = []
    threads = [threading.Thread(target=_guarded, args=(loop, stop, broken), name=loop.__qualname__) for loop in loops]
    for thread in threads:
        thread.start()
    seen = -GPU_SECONDS
    while not stop.wait(0.1):
        watchdog.look_after()
        # not in the thread of the leases: a driver that hangs must not stop them
        if time.monotonic() - seen >= GPU_SECONDS:
            seen, leases.gpus = time.monotonic(), _gpus()
    _end(threads, leases, broken)


def _is_announced(jobs: Jobs, leases: Leases, stop: threading.Event) -> bool:
    """Report that the worker is ready, and wait for Redis and the store if one is away; False if a signal came first.

    Raises OtherStore.
    """

    def announce() -> None:
        pair(jobs.queue, jobs.store)
        leases.announce_ready()

    try:
        retry_until_done(announce, (QueueUnavailable, OSError), stop, lambda: True)
    except WorkInterrupted:
        return False
    return True


def _end(threads: list[threading.Thread], leases: Leases, broken: list[ProcessBroken]) -> None:
    """Wait for the loops; at the deadline return the chunks that are still computed to the queue, and exit.

    broken: the error of a loop that found this process broken; then the process exits at once, with PROCESS_BROKEN.
    """
    deadline = time.monotonic() + STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if not broken and not any(thread.is_alive() for thread in threads):
        return
    with suppress(QueueUnavailable):
        for claim in leases.in_flight():
            log.warning("releases chunk %s unfinished", claim.chunk.id)
            leases.broker.release(claim, leases.name)
    leases.end()
    # not the interpreter's own end: it may wait for ever for a GPU that is broken
    end_traces()
    logging.shutdown()
    os._exit(PROCESS_BROKEN if broken else 0)


def _guarded(loop: Loop, stop: threading.Event, broken: list[ProcessBroken]) -> None:
    """Run a loop; an error in it ends the process, since the lease thread would keep the loop's chunks for ever."""
    try:
        loop(stop)
    # it has tidied up; the other loops do so when stop is set
    except ProcessBroken as error:
        log.error("worker ends: %s", error)
        broken.append(error)
        stop.set()
    except BaseException:
        log.exception("worker ends")
        os._exit(1)


def _loop(
    name: str, group_of: GroupMaker, jobs: Jobs, leases: Leases, settings: Settings, profiles: ProfileVersions
) -> Loop:
    """The group's loop, its models loaded. Raises StrataError."""
    if name == "index":
        return Indexer(jobs, leases, settings.shard_roots).run
    group = loaded_group(name, group_of, jobs.store, profiles, settings, settings.profile)
    pipelines = getattr(group, "pipelines", None)
    if isinstance(pipelines, PipelineCache):
        leases.loaded.append(functools.partial(pipelines.loaded, name))
    micro_batch = profiles.newest(settings.profile).micro_batch
    return Runner(group, QueueClaims(name, jobs, leases, profiles), micro_batch).run


def _gpus() -> list[Gpu]:
    """The GPUs that this process uses; none if no stage of it has loaded torch."""
    if "torch" not in sys.modules:
        return []
    from models.devices import gpus_in_use

    return [Gpu(**vars(one)) for one in gpus_in_use()]
