"""`strata serve` and `strata worker`: processes that run until SIGTERM or SIGINT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strata.cli.terminal import Moved
from strata.components import load


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
    from strata.core import load_settings
    from strata.logs import begin_log

    # an option that is given replaces the environment variable of the same setting
    given = {"host": host, "port": port, "data_dir": data_dir, "profile": profile, "threads": threads}
    settings = load_settings(**given, moved_roots=root)
    begin_log(settings.log_format, settings.log_level)
    # imported only now, because the service is an optional extra and slow to import
    raise typer.Exit(load("app.server", "all").serve(settings, not no_workers))


def worker(
    groups: Annotated[str, typer.Option(help="Comma-separated: index, vision, llm.")] = "index,vision,llm",
    profile: Annotated[
        str | None, typer.Option(help="The profile to load at the start; none: STRATA_PROFILE, else everyday.")
    ] = None,
    root: Moved = None,
) -> None:
    """Run a worker: one process with a thread for each group. SIGTERM ends it."""
    from strata.core import load_settings
    from strata.logs import begin_log

    settings = load_settings(profile=profile, moved_roots=root)
    begin_log(settings.log_format, settings.log_level)
    process = load("workers.process", "workers")
    groups_module = load("workers.engines.groups", "workers")
    process.work(settings, groups.split(","), groups_module.real_group)
