"""`strata mixture` and `strata train`: the sources of a training mixture, and the reference training job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from strata.cli.exits import MIXTURE_INCOMPLETE
from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, StoreUri, open_store, output, progress
from strata.components import load

app = typer.Typer(
    name="mixture",
    cls=PlainGroup,
    help="Check the sources of a training mixture.",
    no_args_is_help=True,
)

DataUri = Annotated[str | None, typer.Option("--data", help="Folder of its files; none: that of the TOML file.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Folder for tables of samples.")]


@app.callback()
def _mixture() -> None:
    """Check the sources of a training mixture."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A mixture's TOML file.")],
    data: DataUri = None,
    cache: Cache = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Show the sources of a mixture, what is missing, and the share of each task."""
    from strata.cli.snapshot_render import source_table, task_table
    from strata.data import Locations, MixtureFile, check_mixture, default_cache, task_shares

    mixture = MixtureFile.load(file)
    locations = Locations(open_store(store), data or str(file.resolve().parent), cache or default_cache())
    # check every source, also after a missing one, so that one run reports all problems
    with progress() as bar:
        task = bar.add_task("", total=len(mixture.sources))
        checks = check_mixture(mixture, locations, lambda name: bar.update(task, description=name, advance=1))
    missing = sum(check.problem is not None for check in checks)
    if as_json:
        sources = [check.model_dump() for check in checks]
        print(json.dumps({"name": mixture.name, "sources": sources, "tasks": task_shares(checks)}))
    else:
        output().print(source_table(checks), task_table(checks), sep="\n\n")
        found = f"{missing} of {len(checks)} sources have problems" if missing else "all sources are complete"
        print(found, file=sys.stderr)
    raise typer.Exit(MIXTURE_INCOMPLETE if missing else 0)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The training's TOML file.")],
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Continue a run also with other settings; they are named.")
    ] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Print the GPU memory that it needs, and stop.")] = False,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="The number of GPUs of the estimate.")] = 8,
) -> None:
    """Train a model on a mixture. An interrupted training continues from its last checkpoint."""
    # report an invalid file before torch is imported, which takes seconds
    load("training.config", "training").load_config(config)
    job = load("training.train", "training")
    if estimate:
        job.estimate(config, gpus)
    else:
        job.run(config, allow_changes)
