"""The command line: `strata`, or `python -m strata`.

This module and the modules of the commands import only typer and the standard library. A command imports further
packages when it runs, so that help and completion are fast.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import io
import os
import sys
from typing import Annotated

import typer

import strata
from strata import environment
from strata.cli import exits, jobs, models, processes, profiles, review, samples, search, training
from strata.cli.evaluation.evaluate import evaluate
from strata.cli.evaluation.report import report
from strata.cli.export import export
from strata.cli.group import LONG_RUNNING, CommandLine
from strata.cli.images.caption import caption
from strata.cli.operations import keys, upkeep, webhooks
from strata.cli.operations.features import features
from strata.cli.operations.top import top
from strata.cli.publishing import push as publishing
from strata.cli.running import command as running
from strata.cli.snapshot import commands as snapshot

app = typer.Typer(
    name="strata",
    cls=CommandLine,
    help="Images into layered descriptions, handed to training.",
    epilog="An exit code other than 0 tells what went wrong: `strata exit-codes` lists them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich for coloured help would double its time
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"strata {strata.__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="STRATA_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Images into layered descriptions, handed to training."""
    # warn of variables that have no effect; those that Kubernetes sets concern only the processes
    running = context.invoked_subcommand in LONG_RUNNING
    for line in environment.warnings(os.environ, services=running):
        print(f"strata: warning: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit. An error is printed as one line on stderr, with a code of strata.cli.exits."""
    # all output is UTF-8, also in the C locale, whose encoding is ASCII; the bytes of a path stay as they are
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name == "ascii":
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    app(args=arguments, prog_name="strata")


def process() -> None:
    """The process `strata`, or `python -m strata`: `main`, whose exit code ends the process.

    Arrow's C++ threads may still read ahead when a command that scans Parquet has all that it wants. Where one lives
    while the interpreter destroys static objects, the process aborts (SIGABRT, "terminate called without an active
    exception"). So a process that has loaded Arrow ends at its last exit function, after all others and after
    the end of Python's threads.
    """
    code = 1  # for an error that is no SystemExit: Python prints it

    def leave() -> None:
        if "pyarrow" in sys.modules:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    atexit.register(leave)  # the first that is registered runs last
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise


# The help lists commands in this order: requests to the service, the processes, then data for training.
for _command in (
    caption,
    jobs.submit,
    jobs.jobs,
    jobs.status,
    jobs.cancel,
    jobs.delete,
    jobs.retry,
    jobs.results,
    jobs.failures,
    top,
    search.search,
    processes.serve,
    processes.worker,
    running.run,
):
    app.command()(_command)
app.add_typer(webhooks.app)
app.add_typer(keys.app)
app.add_typer(models.app)
app.add_typer(profiles.app)
app.command()(models.calibrate)
app.command()(evaluate)
app.command()(report)
app.add_typer(review.app)
app.command()(samples.samples)
app.command()(features)
app.add_typer(snapshot.app)
app.command()(upkeep.clean)
app.command()(upkeep.verify)
app.command()(upkeep.compact)
app.add_typer(training.app)
app.command()(export)
app.command()(publishing.push)
app.command()(publishing.pull)
app.command()(training.train)


@app.command()
def exit_codes() -> None:
    """List the exit codes of all commands."""
    print("\n".join(exits.lines()))
