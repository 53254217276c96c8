"""`strata top`: queues, workers and jobs of a service, live."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.terminal import DEFAULT_URL, ApiKey, Url, open_client

if TYPE_CHECKING:
    from strata.client import Client

TOP_SECONDS = 2.0  # between two looks
TOP_JOBS = 12  # of each status that are asked for


def top(
    once: Annotated[bool, typer.Option("--once", help="Print the view once, as for a pipe.")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="Time between two looks.")] = TOP_SECONDS,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Watch queues, workers and jobs until Ctrl-C. Where stdout is no terminal the view is printed once."""
    from rich.live import Live

    from strata.cli.rendering import overview
    from strata.consoles import PlainConsole

    def view(client: Client) -> Any:
        unfinished = [job for status in overview.UNFINISHED for job in client.jobs(limit=TOP_JOBS, status=status).jobs]
        return overview.view(client.backlog(), client.workers().workers, unfinished, datetime.now(UTC))

    with open_client(url, api_key) as client:
        if once or not sys.stdout.isatty():
            PlainConsole(width=None if sys.stdout.isatty() else overview.WIDTH).print(view(client))
            return
        screen = Live(view(client), console=PlainConsole(), screen=True, auto_refresh=False)
        with suppress(KeyboardInterrupt), screen as live:
            while True:
                time.sleep(seconds)
                live.update(view(client), refresh=True)
