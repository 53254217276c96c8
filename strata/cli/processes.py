"""`strata serve` and `strata worker`: the processes that run until a signal."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

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
        str | None, typer.Option(help="Of requests that name none; none: STRATA_PROFILE, else demo.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of a worker's models; none: STRATA_THREADS, else 1.")
    ] = None,
    no_workers: Annotated[bool, typer.Option("--no-workers", help="Workers are started elsewhere.")] = False,
) -> None:
    """Run the service. Without REDIS_URL it starts its own Redis; its workers are child processes."""
    from strata.core import load_settings

    given = {"host": host, "port": port, "data_dir": data_dir, "profile": profile, "threads": threads}
    settings = load_settings().model_copy(update={name: value for name, value in given.items() if value is not None})
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    raise typer.Exit(load("app.server", "all").serve(settings, not no_workers))


def worker(
    groups: Annotated[str, typer.Option(help="Comma-separated: index, vision, llm.")] = "index,vision,llm",
    profile: Annotated[
        str | None, typer.Option(help="The profile to load ahead of work; none: STRATA_PROFILE, else demo.")
    ] = None,
) -> None:
    """Run a worker. It is one process with a thread for each group, and ends at SIGTERM."""
    from strata.core import load_settings

    settings = load_settings()
    if profile:
        settings = settings.model_copy(update={"profile": profile})
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    process = load("workers.process", "workers")
    process.work(settings, groups.split(","), process.real_group)
