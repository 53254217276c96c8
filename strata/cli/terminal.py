"""Options that commands share, and functions that open the client, the store and the console.

Packages that are slow to import are imported by the function that needs them.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from strata.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from strata.client import Client
    from strata.core import JobView, Problem
    from strata.lineage import Run
    from strata.store import Store

LINE_SECONDS = 10.0  # between two lines of a step where stderr is not a terminal
# shows a step: its name, how many of its things are done, and of how many (None: not known)
Show = Callable[[str, int, int | None], None]


def not_empty(param: typer.CallbackParam, value: Any) -> Any:
    """The value of an option, or its values. Raises InvalidInput for an empty one: an unset variable of the shell."""
    for text in value if isinstance(value, list | tuple) else [value]:
        if text is not None and not text.strip():
            raise InvalidInput(f"{param.opts[0]} is empty: is a variable of the shell not set?")
    return value


DEFAULT_URL = "http://127.0.0.1:8080"

Url = Annotated[str, typer.Option("--url", envvar="STRATA_URL", help="The service's address.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="STRATA_API_KEY", help="The service's key.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Follow = Annotated[bool, typer.Option("--follow", "--wait", "-f", help="Show progress until the job's end.")]
Variants = Annotated[
    str | None, typer.Option("--variants", metavar="NAMES", help="Further texts, such as short,tags,questions.")
]
ChosenFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="JOB|SNAPSHOT",
        help="Describe the images of its rows once more; may be repeated.",
        callback=not_empty,
    ),
]
ChosenWhere = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="FILTER", help='With --from: which of its rows: "match < 0.5".', callback=not_empty
    ),
]
Metadata = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Kept with the job.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Maximum number of tokens on chat servers.")]
Money = Annotated[float | None, typer.Option(help="Maximum cost, at the profile's prices.")]
Language = Annotated[str | None, typer.Option(help="The language of the texts, such as de.")]
Prompt = Annotated[
    str | None, typer.Option(help="An instruction for the composer; {name} is a field of a sample's metadata.")
]
ProfileName = Annotated[str | None, typer.Option("--profile", help="A profile; none: the service's default.")]
StoreUri = Annotated[str | None, typer.Option("--store", envvar="STRATA_STORE", help="URI of the store.")]
Moved = Annotated[
    list[str] | None,
    typer.Option("--root", metavar="OLD=NEW", help="Where a folder or bucket of images lies now; may be repeated."),
]
OpenLineage = Annotated[
    str | None,
    typer.Option("--openlineage", metavar="URL|FILE", help="Where lineage events go; none: as OPENLINEAGE_URL says."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_client(url: str, api_key: str | None) -> Client:
    """A client of the service at a URL."""
    from strata.addresses import service_url
    from strata.client import Client

    return Client(service_url(url, "--url or STRATA_URL"), api_key, patience=math.inf, on_wait=_tell_of_wait)


def _tell_of_wait(seconds: float, problem: Problem) -> None:
    """Say on stderr why a command waits."""
    detail = " ".join(problem.detail.split())
    print(f"strata: {problem.title}: {detail}; trying again in {seconds:.0f} s", file=sys.stderr, flush=True)


def follow_job(client: Client, job_id: str) -> JobView | None:
    """Show a job's progress on stderr until its end; returns it as it is then. Ctrl-C ends the command, not the job."""
    from strata.cli.rendering import records as render
    from strata.consoles import PlainConsole

    try:
        return render.follow(client.watch(job_id), PlainConsole(stderr=True))
    except KeyboardInterrupt:
        ways = f"`strata status {job_id} --follow` shows it again, `strata cancel {job_id}` ends it"
        print(f"\nstrata: job {job_id} goes on; {ways}", file=sys.stderr)
        raise


def open_store(uri: str | None, moved: list[str] | None = None) -> Store:
    """Open the store at a URI, or without one that of the settings. moved: as `--root`. Raises InvalidInput."""
    from strata.core import load_settings
    from strata.store import Store, without_pandas

    without_pandas()  # before the first array of the command
    settings = load_settings(store=uri or None, moved_roots=moved or None)
    return Store(settings.store_uri, settings.moved_roots)


@contextmanager
def told_lineage(place: str | None, name: str) -> Iterator[Run]:
    """Tell the run of a command by events of OpenLineage, if somebody asks. name: the job's. Raises InvalidInput."""
    from strata.lineage import told_run

    with told_run(place, name, tell) as run:
        yield run


def tell(line: str) -> None:
    """Print a line for the user on stderr."""
    print(f"strata: {line}", file=sys.stderr, flush=True)


def stdin() -> TextIO:
    """What is given to a command on stdin. Raises InvalidInput if it is closed."""
    if sys.stdin is None:
        raise InvalidInput("stdin is closed")
    return sys.stdin


def output() -> Console:
    """A console on stdout. It is 200 characters wide if stdout is not a terminal, so that lines are not wrapped."""
    from strata.consoles import PlainConsole

    return PlainConsole(width=None if sys.stdout.isatty() else 200)


def progress() -> Progress:
    """A progress bar on stderr that is removed at its end; it prints nothing if stderr is not a terminal."""
    from rich.progress import Progress, TextColumn

    from strata.consoles import PlainConsole

    console = PlainConsole(stderr=True)
    # rich's own columns, of which the first one would read markup in names of files
    name = TextColumn("{task.description}", "progress.description", markup=False)
    columns = (name, *Progress.get_default_columns()[1:])
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


@contextmanager
def steps(clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Show the long steps of a command on stderr, one after the other.

    On a terminal each has a bar, and all are removed at the end. Elsewhere each has a line at its beginning, and one
    every LINE_SECONDS.
    """
    bar, bars, printed = progress(), dict[str, Any](), dict[str, float]()

    def show(name: str, done: int, total: int | None) -> None:
        if not bar.disable:
            if name not in bars:
                bars[name] = bar.add_task(name, total=total)
            bar.update(bars[name], completed=done, total=total)
        elif clock() - printed.get(name, -math.inf) >= LINE_SECONDS:
            printed[name] = clock()
            count = f": {done:,} of {total:,}" if total else ""
            print(f"strata: {name}{count}", file=sys.stderr, flush=True)

    with bar:
        yield show
