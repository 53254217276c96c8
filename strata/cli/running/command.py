"""`strata run`: a job without a server, in this process or with Ray."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from strata.cli import exits
from strata.cli.estimating.dry_run import sample_name, tell_estimate
from strata.cli.estimating.options import DryRun, Images, Seed, sample_of
from strata.cli.running.watching import begun_job, watched
from strata.cli.terminal import (
    AsJson,
    ChosenFrom,
    ChosenWhere,
    Language,
    Metadata,
    Money,
    Moved,
    OpenLineage,
    Prompt,
    StoreUri,
    Tokens,
    Variants,
    tell,
)
from strata.components import load
from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.core import JobSample, JobView, Settings

DEFAULT_SAMPLE = 200  # images of a dry run, as strata.core.SAMPLE, which is slow to import


Targets = Annotated[
    list[str] | None, typer.Argument(metavar="JOB|SHARD", help="A job's id, or shards as for `submit`.")
]
Engine = Annotated[Literal["local", "ray"], typer.Option(help="In this process, or with Ray Data.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="A profile; none: STRATA_PROFILE, else everyday.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of the models of one group.")]
InTurn = Annotated[bool, typer.Option("--in-turn", help="local: the models of one group at a time are in memory.")]
Address = Annotated[str | None, typer.Option(help="ray: the cluster; none: RAY_ADDRESS, else one of this machine.")]
Actors = Annotated[
    list[str] | None, typer.Option(metavar="GROUP=MIN[:MAX]", help="ray: how many actors of vision or llm.")
]
Cpus = Annotated[list[str] | None, typer.Option(metavar="GROUP=NUMBER", help="ray: CPUs of one actor.")]
Gpus = Annotated[list[str] | None, typer.Option(metavar="GROUP=NUMBER", help="ray: GPUs of one actor.")]


def run(
    targets: Targets = None,
    sources: ChosenFrom = None,
    where: ChosenWhere = None,
    engine: Engine = "local",
    profile: ProfileName = None,
    variants: Variants = None,
    language: Language = None,
    prompt: Prompt = None,
    metadata: Metadata = None,
    budget_tokens: Tokens = None,
    budget_money: Money = None,
    store: StoreUri = None,
    root: Moved = None,
    threads: Threads = None,
    in_turn: InTurn = False,
    address: Address = None,
    actors: Actors = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    dry_run: DryRun = False,
    images: Images = None,
    seed: Seed = None,
    openlineage: OpenLineage = None,
    as_json: AsJson = False,
    folder: Annotated[Path | None, typer.Option("--run-folder", hidden=True)] = None,
) -> None:
    """Compute the missing parts of a job, or of shards, without a server. Prints the job's id.

    Ctrl-C ends the run after the images in hand; `strata run JOB` goes on. A second one ends it at once. The exit code
    is 8 if it failed or was cancelled. --dry-run tells what all would take, by a random sample.
    """
    chosen = (sources, where, sample_of(dry_run, images, seed, DEFAULT_SAMPLE))
    if engine == "local" and folder is None:
        raise typer.Exit(watched())  # a child does the work of `local`: an image that ends it must not end the run
    settings = _settings(profile, store, threads, root)
    options = _options(engine, in_turn, folder, address, (actors, cpus, gpus))
    begun, texts, budget = begun_job(folder), (variants, language, prompt), (budget_tokens, budget_money)
    target = begun or _known(targets, chosen) or _asked(targets, settings, texts, metadata, budget, chosen)
    raise typer.Exit(_run(settings, target, options, (folder, as_json, begun is None), openlineage))


def _options(
    engine: str, in_turn: bool, folder: Path | None, address: str | None, pools: tuple[list[str] | None, ...]
) -> Any:
    """How the job is run. pools: actors, CPUs and GPUs."""
    if engine == "ray":
        load("workers.engines.ray", "ray")  # tell at once if it is not installed
    module, notes = load("workers.engines.options", "workers"), folder / "notes.json" if folder else None
    return module.Options(engine, in_turn, notes, address, module.pools_of(*(pool or () for pool in pools)))


def _settings(profile: str | None, store: str | None, threads: int | None, root: list[str] | None) -> Settings:
    from strata.core import load_settings
    from strata.logs import begin_log

    begin_log(quiet=True)
    return load_settings(profile=profile, store=store or None, threads=threads, moved_roots=root or None)


def _known(targets: list[str] | None, chosen: tuple[list[str] | None, str | None, JobSample | None]) -> str | None:
    """The id of a job, if that is what is named. Raises InvalidInput for options that say what a new job describes."""
    from strata.core import is_job_id

    sources, where, sample = chosen
    # a folder here, such as `images`, may have a name that is like an id
    if not targets or targets[1:] or sources or not is_job_id(targets[0]) or os.path.lexists(targets[0]):
        return None
    if sample is not None:
        raise InvalidInput(f"--dry-run is of a new job: without it `strata run {targets[0]}` goes on with this job")
    if where is not None:
        raise InvalidInput(f"--where chooses rows for a new job: add --from {targets[0]} instead of naming the job")
    return targets[0]


def _asked(
    shards: list[str] | None,
    settings: Settings,
    texts: tuple[str | None, str | None, str | None],
    metadata: list[str] | None,
    budget: tuple[int | None, float | None],
    chosen: tuple[list[str] | None, str | None, JobSample | None],
) -> Any:
    """What a new job is to do. texts: variants, language, prompt; budget: tokens, money; chosen: from, where, -n."""
    from strata.cli.arguments import budget_of, chosen_of, pairs_of, shards_of, texts_of
    from strata.core import load_profile

    profile = load_profile(settings.profile, settings.profiles_dir)
    if (wanted := texts_of(*texts)) is not None:
        profile = profile.with_texts(wanted)
    if budget[1] is not None and not profile.priced:
        raise InvalidInput(f"--budget-money: profile {profile.name!r} has no prices for some of its servers")
    asked = load("workers.engines.job", "workers").Asked
    sources, where, sample = chosen
    rows = _pinned(settings, sources, where) if chosen_of(shards, sources, where) else None
    return asked(list(shards_of(shards or [])), profile, pairs_of(metadata or ()), budget_of(*budget), sample, rows)


def _pinned(settings: Settings, sources: list[str] | None, where: str | None) -> Any:
    """The rows that a new job chooses of others, as they are now. Raises InvalidInput and NotFound."""
    from strata.core import ChosenRows
    from strata.jobs import Chosen
    from strata.snapshots.chosen import Pinning
    from strata.store import Store

    names = sources or []
    return Chosen(ChosenRows(sources=names, where=where), Pinning(Store(settings.store_uri)).pin(names, where))


def stored_view(store: str, job_id: str) -> JobView:
    """A job as the files of a store tell it, without a service: as it ended, or as a run has told it last.

    Raises NotFound, DamagedFile and OSError.
    """
    from strata.cli.terminal import open_store
    from strata.core import JobEnd, JobRun, JobView
    from strata.errors import NotFound

    files = open_store(store)
    if (end := files.parse_job_file(job_id, "end", JobEnd)) is not None:
        return JobView.model_validate(dict(end))
    if (run := files.parse_job_file(job_id, "run", JobRun)) is not None:
        return run.view
    raise NotFound(f"the store has no job {job_id[:100]!r} that has ended or is run by `strata run`")


def _run(
    settings: Settings, target: Any, options: Any, how: tuple[Path | None, bool, bool], openlineage: str | None
) -> int:
    """Run a job, show its progress, and return the exit code.

    how: the folder of a run that is watched, whether JSON is printed, and whether the job is new to the user.
    openlineage: who is told of its beginning and its end; None: whom the environment names.
    """
    from strata.core import JobStatus
    from strata.lineage import told_jobs

    folder, as_json, tells = how
    start = load("workers.engines.start", "workers")
    views: queue.SimpleQueue[JobView | None] = queue.SimpleQueue()
    with told_jobs(openlineage, tell) as watch:
        job = start.opened(settings, target, options, views.put)
        if folder is not None:
            (folder / "job").write_text(job.request.id, encoding="utf-8")
        sampled = job.request.sample is not None
        if tells and sampled:
            print(f"strata: job {job.request.id} describes {sample_name(job.request)}", file=sys.stderr, flush=True)
        elif tells and not as_json:
            print(job.request.id, flush=True)
        if tells:
            watch(job.store, job.request, JobStatus.IN_PROGRESS)
        _end_on_signals(job)
        end = _followed(lambda: start.computed(job, settings, options), views, job, folder)
        if type(end).__name__ == "WorkInterrupted":
            print(f"strata: the run has ended; go on with `strata run {job.request.id}`", file=sys.stderr)
            return exits.INTERRUPTED
        if isinstance(end, BaseException):
            raise end
        watch(job.store, job.request, end.status)
    code = 0
    if sampled:
        code = _tell_estimate(job, end, options, as_json)
    elif as_json:
        print(end.model_dump_json())
    return exits.JOB_FAILED if end.status in ("failed", "cancelled") else code


def _followed(
    compute: Callable[[], Any], views: queue.SimpleQueue[JobView | None], job: Any, folder: Path | None
) -> Any:
    """Compute in a thread and show the progress; returns the job as it has ended, or the error that has ended it."""
    from strata.cli.rendering import records as render
    from strata.consoles import PlainConsole

    ends: list[Any] = []

    def work() -> None:
        try:
            ends.append(compute())
        except BaseException as error:
            ends.append(error)
        finally:
            views.put(None)

    threading.Thread(target=work, name="run", daemon=True).start()
    render.follow(_shown(views, job, folder), PlainConsole(stderr=True))
    return ends[0]


def _tell_estimate(job: Any, end: JobView, options: Any, as_json: bool) -> int:
    """Print what all images would take in such a run; returns the exit code.

    How many actors Ray would start depends on its cluster.
    """
    from strata.estimates import Workers, estimate

    ready = {"vision": 1, "llm": 1} if options.engine == "local" else None
    return tell_estimate(estimate(job.store, end, job.request, Workers(ready, options.in_turn)), as_json)


def _shown(views: queue.SimpleQueue[JobView | None], job: Any, folder: Path | None) -> Iterator[JobView]:
    """The envelopes until the end. folder: where the number of chunks with parts is noted."""
    while True:
        # signals are handled between two waits
        try:
            view = views.get(timeout=0.5)
        except queue.Empty:
            continue
        if view is None:
            return
        if folder is not None:
            (folder / "written").write_text(str(job.written), encoding="utf-8")
        yield view


def _end_on_signals(job: Any) -> None:
    """End the run in order at the first SIGINT or SIGTERM, and at once at the second."""

    def end(number: int, _: Any) -> None:
        if job.stop.is_set():
            os._exit(exits.INTERRUPTED)
        job.stop.set()
        line = "ends after the images in hand; once more ends it at once"
        print(f"\nstrata: the run {line}", file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
