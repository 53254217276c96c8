"""What commands share: options, what they open, and where they print.

Heavy packages are imported by the function that needs them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strata.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from strata.client import Client
    from strata.store import Store

DEFAULT_URL = "http://127.0.0.1:8080"

Url = Annotated[str, typer.Option("--url", envvar="STRATA_URL", help="The service's address.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="STRATA_API_KEY", help="The service's key.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Follow = Annotated[bool, typer.Option("--follow", "--wait", "-f", help="Show progress until the job's end.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="A profile; none: the service's own choice.")]
StoreUri = Annotated[str | None, typer.Option("--store", envvar="STRATA_STORE", help="URI of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", help="Image files.", exists=True, dir_okay=False, readable=True)
]


def open_client(url: str, api_key: str | None) -> Client:
    """A client of the service at an address."""
    from strata.client import Client

    return Client(url, api_key)


def open_store(uri: str | None) -> Store:
    """The store of an option, or of the settings. Raises InvalidInput."""
    from strata.core import load_settings
    from strata.store import Store

    chosen = uri or load_settings().store_uri
    try:
        return Store(chosen)
    except (ImportError, ValueError) as error:
        raise InvalidInput(f"the store {chosen!r} cannot be opened: {error}") from error


def output() -> Console:
    """Stdout; wide where it is no terminal, so that no line is folded that another program reads."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def progress() -> Progress:
    """A progress bar on stderr, removed at its end; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, disable=not console.is_terminal, transient=True)
