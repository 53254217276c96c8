"""`strata serve` and `strata worker`: processes that run until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strata.cli.terminal import Moved
from strata.components import load, strata_command
from strata.environment import own_variables
from strata.errors import StrataError

if TYPE_CHECKING:
    from strata.core import Settings
    from strata.forks import Template


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; none: STRATA_HOST, else 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: a free port; none: STRATA_PORT, else 8080.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Embedded server and store; none: STRATA_DATA_DIR, else .strata.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Profile of requests without one; none: STRATA_PROFILE, else everyday.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of a worker's models; none: STRATA_THREADS, else 1.")
    ] = None,
    root: Moved = None,
    no_workers: Annotated[bool, typer.Option("--no-workers", help="Start no workers; run them elsewhere.")] = False,
) -> None:
    """Run the service. Without REDIS_URL it starts its own Redis; its workers are child processes."""
    # the workers are forked from a process that begins to import at once, beside this one
    with ExitStack() as stack:
        command = strata_command("worker", "--forks")
        template = None if no_workers else stack.enter_context(worker_template(command))
        _serve(template, root, host=host, port=port, data_dir=data_dir, profile=profile, threads=threads)


def worker_template(command: Sequence[str]) -> Template:
    """What workers are forked from. command: ends with `--forks`, as of `strata worker`. Raises StrataError."""
    from strata.forks import ONE_THREAD, Template

    # forks get their own variables later; the key is for the service alone
    variables = own_variables(os.environ) | ONE_THREAD
    variables.pop("STRATA_API_KEY", None)
    try:
        return Template("workers", command, {**variables, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"})
    except OSError as error:
        raise StrataError(f"the workers cannot be started: {error}") from error


def _serve(template: Template | None, root: Moved, **given: object) -> None:
    """Serve until the end; without a template without workers."""
    from strata.core import load_settings
    from strata.logs import begin_log

    # an option that is given replaces the environment variable of the same setting
    settings = load_settings(**given, moved_roots=root)
    begin_log(settings.log_format, settings.log_level)
    # imported only now, because the service is an optional extra and slow to import
    raise typer.Exit(load("app.server", "all").serve(settings, template is not None, template))


def worker(
    groups: Annotated[
        str | None, typer.Option(help="Comma-separated: index, vision, llm; none: all, and with --check any.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="The profile to load at the start; none: STRATA_PROFILE, else everyday.")
    ] = None,
    root: Moved = None,
    check: Annotated[
        bool, typer.Option("--check", help="Start nothing: whether a worker of this machine or container is ready.")
    ] = False,
    forks: Annotated[int | None, typer.Option(hidden=True, help="The socket of a service that asks for forks.")] = None,
) -> None:
    """Run a worker: one process with a thread for each group. SIGTERM ends it.

    With --check the exit code is 0 if a worker of this host name has sent a heartbeat within STRATA_LEASE_SECONDS and
    has loaded its models, 1 if there is none, and 6 if Redis cannot be asked. Checks of containers call it.
    """
    from strata.core import GROUPS, load_settings
    from strata.logs import begin_log

    if forks is not None:
        groups = load("workers.engines.template", "workers").forked_worker(forks)
        if groups is None:
            return
    settings = load_settings(profile=profile, moved_roots=root)
    if check:
        _check_worker(settings, groups.split(",") if groups else [])
        return
    begin_log(settings.log_format, settings.log_level)
    process = load("workers.process", "workers")
    groups_module = load("workers.engines.groups", "workers")
    process.work(settings, groups.split(",") if groups else list(GROUPS), groups_module.real_group)


def _check_worker(settings: Settings, groups: list[str]) -> None:
    """Return if a ready worker of this host computes all of the groups. Raises StrataError."""
    from strata.core import GROUPS
    from strata.errors import InvalidInput, NoWorker, RedisUnavailable
    from strata.queue import Queue

    if unknown := set(groups) - set(GROUPS):
        raise InvalidInput(f"unknown groups {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    if settings.redis_url is None:
        raise RedisUnavailable("--check asks Redis for heartbeats, and needs REDIS_URL")
    host = socket.gethostname()
    queue = Queue(settings.redis_url.get_secret_value())
    try:
        own = [one for one in queue.heartbeats.live() if one.host == host and set(groups) <= set(one.groups)]
    finally:
        queue.close()
    if not own:
        wanted = f" for {', '.join(groups)}" if groups else ""
        raise NoWorker(f"no worker of {host}{wanted} has sent a heartbeat lately")
    if not any(one.ready for one in own):
        raise NoWorker(f"the worker of {host} has not loaded its models yet")
