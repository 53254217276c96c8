"""The commands `webhooks …`: whether the ends of jobs were told, and telling one again."""

from __future__ import annotations

import base64
import secrets
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from strata.cli.group import PlainGroup
from strata.cli.terminal import DEFAULT_URL, ApiKey, AsJson, JobId, Url, open_client, output

if TYPE_CHECKING:
    from strata.core import DeliveryView

SECRET_BYTES = 32  # https://www.standardwebhooks.com asks for 24 to 64
SHOWN = 50  # of a list, without --limit

app = typer.Typer(name="webhooks", cls=PlainGroup, no_args_is_help=True, help="Webhooks that tell the ends of jobs.")


@app.command("list")
def list_webhooks(
    state: Annotated[Literal["failed", "pending"], typer.Option(help="Given up, or sent again later.")] = "failed",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Maximum number of webhooks.")] = SHOWN,
    cursor: Annotated[str | None, typer.Option(help="Continue an earlier list.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """List the webhooks that were given up, or that are sent again later."""
    with open_client(url, api_key) as client:
        page = client.webhooks(state, limit, cursor)
    if as_json:
        print(page.model_dump_json())
        return
    _print(page.webhooks)
    if page.next:
        more = f" --limit {limit}" if limit != SHOWN else ""
        print(f"more: strata webhooks list --state {state}{more} --cursor {page.next}", file=sys.stderr)


@app.command("show")
def show_webhook(job: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Show a job's webhook and the attempts to send it."""
    from strata.cli.rendering.records import clean, moment

    with open_client(url, api_key) as client:
        view = client.webhook(job)
    _show(view, as_json)
    for attempt in () if as_json else view.attempts:
        outcome = clean(attempt.error or f"status {attempt.status}")
        print(f"  {moment(attempt.at)}  {attempt.seconds:.1f} s  {outcome}")


@app.command("redeliver")
def redeliver(job: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Send the webhook of a job that has ended again, within half a minute."""
    with open_client(url, api_key) as client:
        _show(client.redeliver(job), as_json)


@app.command("secret")
def secret() -> None:
    """Print a new secret for STRATA_WEBHOOK_SECRET; the receiver needs the same."""
    print(f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}")


def _show(view: DeliveryView, as_json: bool) -> None:
    if as_json:
        print(view.model_dump_json())
    else:
        _print([view])


def _print(views: list[DeliveryView]) -> None:
    """One webhook a line."""
    from strata.cli.rendering.records import moment

    for view in views:
        line = f"{view.job}  {view.state.value}  {view.receiver}"
        if view.attempts:
            last = view.attempts[-1]
            tries = f"{len(view.attempts)} attempt{'s' * (len(view.attempts) != 1)}"
            line += f"  {tries}, the last: {last.error or f'status {last.status}'}"
        if view.next_attempt_at:
            line += f"; the next at {moment(view.next_attempt_at)}"
        output().print(line, soft_wrap=True, markup=False, highlight=False)
