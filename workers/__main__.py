"""`strata worker --groups vision,llm`: one process, a thread a group, until SIGTERM."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable

from strata.broker import Broker
from strata.exits import REDIS_UNREACHABLE, USAGE, WEIGHTS_MISSING, StrataExit
from strata.jobs import Jobs
from strata.profiles import GROUPS, Profile, ProfileError, load_profile
from strata.settings import Settings
from strata.store import Store
from workers.groups import Group, LlmGroup, PipelineCache, VisionGroup
from workers.indexer import Indexer
from workers.leases import Leases
from workers.runner import Runner

log = logging.getLogger("workers")


def main() -> None:
    """Parse, work, and end with an exit code that says why."""
    parser = argparse.ArgumentParser(prog="strata worker", description=__doc__)
    parser.add_argument("--groups", default=",".join(GROUPS), help="comma-separated: index, vision, llm")
    parser.add_argument("--profile", help="the profile to load ahead of work")
    options = parser.parse_args()
    settings = Settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        work(settings, options.groups.split(","), options.profile or settings.profile)
    except StrataExit as exit_:
        print(f"strata worker: {exit_}", file=sys.stderr)
        sys.exit(exit_.code)


def work(settings: Settings, groups: list[str], profile_name: str) -> None:
    """Run the groups in threads of this process until SIGTERM or SIGINT. Raises StrataExit."""
    if unknown := set(groups) - set(GROUPS):
        raise StrataExit(f"unknown groups {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}", USAGE)
    if settings.redis_url is None:
        raise StrataExit("a worker needs REDIS_URL (`strata serve` starts its own workers)", REDIS_UNREACHABLE)
    quiet_libraries(settings.threads)
    jobs = Jobs(Broker(settings.redis_url), Store(settings.store_uri))
    profile_of = functools.cache(functools.partial(load_profile, folder=settings.profiles_dir))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    with Leases(jobs.broker, name, groups, settings.lease_seconds) as leases:
        loops = [_loop(group, jobs, leases, settings, profile_of, profile_name) for group in groups]
        leases.announce()
        log.info("worker %s is ready for %s", name, ", ".join(groups))
        threads = [threading.Thread(target=_guarded, args=(loop, stop), name=loop.__qualname__) for loop in loops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _guarded(loop: Callable[[threading.Event], None], stop: threading.Event) -> None:
    """A loop that ends by an error ends the process: half a worker would hold leases for nothing."""
    try:
        loop(stop)
    except BaseException:
        log.exception("worker ends")
        os._exit(1)


def _loop(
    group: str,
    jobs: Jobs,
    leases: Leases,
    settings: Settings,
    profile_of: Callable[[str], Profile],
    profile_name: str,
) -> Callable[[threading.Event], None]:
    """The group's loop, its models loaded. Raises StrataExit."""
    if group == "index":
        return Indexer(jobs, leases).run
    from models.base import WeightsMissing  # slow imports: an index worker does without torch
    from models.pipeline import LlmPipeline, VisionPipeline

    built: Group
    if group == "vision":
        built = VisionGroup(jobs.store, PipelineCache(VisionPipeline, profile_of), settings.max_pixels)
    else:
        built = LlmGroup(jobs.store, PipelineCache(LlmPipeline, profile_of))
    try:
        built.load(profile_name)
        micro_batch = profile_of(profile_name).micro_batch
    except WeightsMissing as error:
        raise StrataExit(str(error), WEIGHTS_MISSING) from error
    except (ProfileError, ValueError) as error:
        raise StrataExit(str(error), USAGE) from error
    return Runner(built, jobs, leases, lambda name, of: profile_of(name).fingerprint(of), micro_batch).run


def quiet_libraries(threads: int) -> None:
    """Threads as told, and no progress bars or advice of libraries among the worker's own lines."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    logging.getLogger("httpx").setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
