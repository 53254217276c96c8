"""Starting a run: which job, with which engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from urllib.parse import urlsplit

from models.deadlines import DEADLINES, Limits
from strata.core import JobView, Settings
from strata.shards import find_shards
from strata.shards.roots import scheme_of
from strata.store import Store
from workers.engines.job import Asked, EngineJob, known_job, new_job, run
from workers.engines.local import LocalEngine
from workers.engines.memory import MemoryNotes
from workers.engines.options import Options, group_maker
from workers.watchdog import Watchdog


def opened(
    settings: Settings, target: Asked | str, options: Options, on_view: Callable[[JobView], None] = lambda view: None
) -> EngineJob:
    """A new job of shards, or the one with an id, in the store of the settings.

    Raises SourceError for shards that are not there, and what `known_job` raises.
    """
    store = Store(settings.store_uri, settings.moved_roots)
    if isinstance(target, str):
        request = known_job(store, target)
    else:
        shards = find_shards(target.shards, roots_of(settings, target.shards))
        request = new_job(store, target._replace(shards=shards))
    return EngineJob(store, request, options.engine, on_view, MemoryNotes(options.notes))


def computed(job: EngineJob, settings: Settings, options: Options) -> JobView:
    """Run a job to its end. Raises WorkInterrupted if `job.stop` was set before, StrataError and OSError."""
    roots = roots_of(settings, job.request.shards)
    if options.engine == "local":
        engine = LocalEngine(job, settings, group_maker(options.groups), options.in_turn)
        # what hangs is ended only where another process goes on
        with Watchdog("run", None) if options.notes else nullcontext() as watchdog:
            if watchdog is not None:
                DEADLINES.report(watchdog.publish, Limits(settings.hang_seconds))
            return run(job, roots, engine.compute)
    from workers.engines.ray import RayEngine  # imports ray, an extra

    with RayEngine(job, settings, options) as cluster:
        return run(job, roots, cluster.compute)


def roots_of(settings: Settings, shards: Sequence[str]) -> list[str]:
    """Where the shards and the images of lists may lie: all files of this machine, and the buckets that are named.

    A run has the rights of the person who starts it. The roots of the settings are for requests of others.
    """
    buckets = {f"{scheme_of(one)}://{urlsplit(one).netloc}" for one in shards if scheme_of(one)}
    return [*settings.shard_roots, "/", *sorted(buckets)]
