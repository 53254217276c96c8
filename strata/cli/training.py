"""`strata mixture` and `strata train`: the sources of a training mixture, and the reference training job."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.exits import MIXTURE_INCOMPLETE
from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, StoreUri, open_store, output, progress, steps
from strata.components import load
from strata.files import writing

if TYPE_CHECKING:
    from strata.data import Fault, Locations, MixtureFile, SourceCheck

SHOWN_FAULTS = 5  # of each source

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
    decode: Annotated[bool, typer.Option("--decode", help="Read and decode every sample.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="With --decode: a file for its findings, as JSON Lines.")
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option("--training", metavar="CONFIG", help="Count what a training leaves out or cuts to its `longest`."),
    ] = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Show the sources of a mixture, what is missing, and the share of each task."""
    from strata.data import Locations, MixtureFile, check_mixture, default_cache

    if report is not None and not decode:
        raise typer.BadParameter("--report needs --decode")
    mixture, config = MixtureFile.load(file), None
    if training is not None:
        config = load("training.config", "training").load_config(training)
    locations = Locations(open_store(store), data or str(file.resolve().parent), cache or default_cache())
    # check every source, also after a missing one, so that one run reports all problems
    with progress() as bar:
        task = bar.add_task("", total=len(mixture.sources))
        checks = check_mixture(mixture, locations, lambda name: bar.update(task, description=name, advance=1))
    faults = _decode(mixture, locations, checks, report) if decode else []
    if config is not None:
        _fit(config, mixture, locations, checks, decode)
    _print(mixture.name, checks, faults, report is not None, as_json)
    missing = any(check.problem is not None for check in checks)
    raise typer.Exit(MIXTURE_INCOMPLETE if missing else 0)


def _print(name: str, checks: Sequence[SourceCheck], faults: Sequence[Fault], reported: bool, as_json: bool) -> None:
    """Print what was found: as JSON, or as tables and one line on how many sources have problems."""
    from strata.cli.rendering.mixtures import fault_table, source_table, task_table
    from strata.data import task_shares

    if as_json:
        sources = [check.model_dump() for check in checks]
        print(json.dumps({"name": name, "sources": sources, "tasks": task_shares(checks)}))
        return
    tables = [source_table(checks), task_table(checks)] + ([fault_table(faults, reported)] if faults else [])
    output().print(*tables, sep="\n\n")
    missing = sum(check.problem is not None for check in checks)
    found = f"{missing} of {len(checks)} sources have problems" if missing else "all sources are complete"
    print(found, file=sys.stderr)


def _decode(
    mixture: MixtureFile, locations: Locations, checks: Sequence[SourceCheck], report: Path | None
) -> list[Fault]:
    """Decode every sample, write what is wrong to the report, and return the first of it for each source."""
    from strata.data import check_decoding

    first: list[Fault] = []
    with ExitStack() as stack:
        # the report is opened before the work, which may take hours, so that a bad path is told at once
        if report:
            stack.enter_context(writing(report))
        file = stack.enter_context(report.open("w", encoding="utf-8")) if report else None
        show = stack.enter_context(steps())
        for fault in check_decoding(mixture, locations, checks, show):
            if file:
                print(json.dumps(asdict(fault)), file=file, flush=True)
            if sum(one.source == fault.source for one in first[-SHOWN_FAULTS:]) < SHOWN_FAULTS:
                first.append(fault)
    return first


def _fit(config: Any, mixture: MixtureFile, locations: Locations, checks: Sequence[SourceCheck], every: bool) -> None:
    """Try samples of each source, or every one, as the training of a configuration collates them."""
    fitting = load("training.inputs.fitting", "training")
    with steps() as show:
        fitting.check_fitting(config, mixture, locations, checks, show, None if every else fitting.MOST)


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
