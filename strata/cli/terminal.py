"""What commands share that work on the store itself: their options, the store, and where they print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from strata.core.errors import InvalidInput
from strata.core.settings import Settings
from strata.store.store import Store

StoreUri = Annotated[str | None, typer.Option("--store", envvar="STRATA_STORE", help="URI of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_store(uri: str | None) -> Store:
    """The store of an option, or of the settings. Raises InvalidInput."""
    try:
        return Store(uri or Settings().store_uri)
    except (ImportError, ValueError) as error:
        raise InvalidInput(f"the store {uri!r} cannot be opened: {error}") from error


def output() -> Console:
    """Stdout; wide where it is no terminal, so that nothing is folded that another program reads."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def progress() -> Progress:
    """A bar on stderr that is gone at its end; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    return Progress(console=console, disable=not console.is_terminal, transient=True)
