"""`strata mixture`: what training mixes, checked before it is trained on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from strata.cli.render import clean
from strata.cli.terminal import AsJson, StoreUri, open_store, output, progress
from strata.core.exits import MIXTURE_INCOMPLETE, USAGE, StrataExit
from strata.data.mixture_files import Locations, MixtureFile, SourceCheck, check_mixture, task_shares
from strata.data.mixtures import MixtureError
from strata.data.sample_tables import default_cache

app = typer.Typer(name="mixture", help="Check what training mixes.", no_args_is_help=True)

DataUri = Annotated[str | None, typer.Option("--data", help="Where its files lie; none: beside the TOML file.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Where tables of samples are kept.")]


@app.callback()
def _mixture() -> None:
    """A group, though of one command."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A mixture's TOML file.")],
    data: DataUri = None,
    cache: Cache = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Tell what a mixture is made of, what is missing, and what share each task gets."""
    try:
        mixture = MixtureFile.load(file)
    except MixtureError as error:
        raise StrataExit(str(error), USAGE) from error
    locations = Locations(open_store(store), data or str(file.resolve().parent), cache or default_cache())
    with progress() as bar:
        task = bar.add_task("", total=len(mixture.sources))
        checks = check_mixture(mixture, locations, lambda name: bar.update(task, description=name, advance=1))
    missing = sum(check.problem is not None for check in checks)
    if as_json:
        sources = [check.model_dump() for check in checks]
        print(json.dumps({"name": mixture.name, "sources": sources, "tasks": task_shares(checks)}))
    else:
        output().print(source_table(checks), task_table(checks), sep="\n\n")
        told = f"{missing} of {len(checks)} sources are not as the mixture needs them" if missing else "all is there"
        print(told, file=sys.stderr)
    raise typer.Exit(MIXTURE_INCOMPLETE if missing else 0)


def source_table(checks: Sequence[SourceCheck]) -> Table:
    """Sources, one a row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "task"):
        table.add_column(name, no_wrap=True)
    for name in ("there", "trained on", "share"):
        table.add_column(name, justify="right")
    table.add_column("missing")
    for check in checks:
        numbers = ("" if number is None else f"{number:,}" for number in (check.supply, check.count))
        share = "" if check.share is None else f"{check.share:.1%}"
        problem = Text(clean(check.problem or ""), "red")
        table.add_row(clean(check.name), clean(check.task), *numbers, share, problem)
    whole = sum(check.count or 0 for check in checks)
    table.add_row("all", "", f"{sum(check.supply or 0 for check in checks):,}", f"{whole:,}", "", style="bold")
    return table


def task_table(checks: Sequence[SourceCheck]) -> Table:
    """Tasks with their shares, the largest first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("share", justify="right")
    for task, share in sorted(task_shares(checks).items(), key=lambda pair: -pair[1]):
        table.add_row(clean(task), f"{share:.1%}")
    return table
