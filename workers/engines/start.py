"""Starting a run: which job, with which engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from strata.core import JobView, Settings
from strata.shards import find_shards
from strata.shards.roots import scheme_of
from strata.store import Store
from workers.engines.job import Asked, EngineJob, known_job, new_job, run
from workers.engines.local import LocalEngine
from workers.engines.memory import MemoryNotes
from workers.engines.options import Options, group_maker


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
        return run(job, roots, LocalEngine(job, settings, group_maker(options.groups), options.in_turn).compute)
    from workers.engines.ray import RayEngine  # imports ray, an extra

    with RayEngine(job, settings, options) as engine:
        return run(job, roots, engine.compute)


def roots_of(settings: Settings, shards: Sequence[str]) -> list[str]:
    """Where the shards and the images of lists may lie: all files of this machine, and the buckets that are named.

    A run has the rights of the person who starts it. The roots of the settings are for requests of others.
    """
    buckets = {f"{scheme_of(one)}://{urlsplit(one).netloc}" for one in shards if scheme_of(one)}
    return [*settings.shard_roots, "/", *sorted(buckets)]
