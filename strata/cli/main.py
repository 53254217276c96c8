"""The command line: `strata`, or `python -m strata`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import httpx
import typer
from rich.console import Console

from strata.cli import export as export_cli
from strata.cli import mixture as mixture_cli
from strata.cli import render
from strata.cli import snapshot as snapshot_cli
from strata.cli.arguments import budget_of, pairs_of, shards_of
from strata.cli.checkout import run_module
from strata.cli.terminal import AsJson, output
from strata.client.client import ApiError, Client
from strata.core import exits
from strata.core.records import Record, Status
from strata.core.schemas import JobStatus, JobView, Priority

app = typer.Typer(
    name="strata",
    help="Images into layered descriptions, handed to training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Url = Annotated[str, typer.Option("--url", envvar="STRATA_URL", help="The service's address.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="STRATA_API_KEY", help="The service's key.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Follow = Annotated[bool, typer.Option("--follow", "--wait", "-f", help="Show progress until the job's end.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="A profile; none: the service's own choice.")]
DEFAULT_URL = "http://127.0.0.1:8080"
PASSED_ON = {
    "serve": ("app", "Run the service; with no REDIS_URL also its Redis and its workers."),
    "worker": ("workers", "Run a worker of some groups."),
    "models": ("models", "Fetch, list or check the weights of profiles."),
    "samples": ("samples", "Make shards of scenes whose truth is known."),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; what goes wrong is one line on stderr and a code from strata.exits."""
    try:
        app(args=arguments, prog_name="strata")
    except exits.StrataExit as error:
        _stop(str(error), error.code)
    except ApiError as error:
        _stop(str(error), exits.API_UNREACHABLE if error.problem.status >= 500 else exits.REQUEST_REFUSED)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _stop(f"cannot reach the service: {error}; is it running, and is --url right?", exits.API_UNREACHABLE)
    except (OSError, UnicodeDecodeError) as error:
        _stop(str(error), exits.USAGE)


def _stop(line: str, code: int) -> NoReturn:
    print(f"strata: {render.clean(line)}", file=sys.stderr)
    raise SystemExit(code)


@app.command()
def caption(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", exists=True, dir_okay=False, readable=True)],
    alt_text: Annotated[str | None, typer.Option("--alt-text", help="The caption that came with it.")] = None,
    profile: ProfileName = None,
    overlay: Annotated[Path | None, typer.Option(metavar="DIR", help="Save pictures of the layers.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Caption images and print their layers."""
    code = 0
    with Client(url, api_key) as client:
        for image in images:
            try:
                record, job_id = _captioned(client, image, alt_text, profile)
            except ApiError as error:
                if error.problem.status >= 500:
                    raise
                print(f"strata: {image}: {render.clean(str(error))}", file=sys.stderr)
                code = exits.REQUEST_REFUSED
                continue
            if as_json:
                print(record.model_dump_json(), flush=True)
            else:
                output().print(render.layers_tree(record, str(image)))
            if overlay and record.status is not Status.FAILED:
                _save_overlay(client, job_id, record, overlay / f"{image.name}.overlay.png")
            code = code or (exits.JOB_FAILED if record.status is Status.FAILED else 0)
    raise typer.Exit(code)


def _captioned(client: Client, image: Path, alt_text: str | None, profile: str | None) -> tuple[Record, str | None]:
    """The record of one image and its job's id, however long it takes."""
    answer = client.captioned(image, alt_text, profile, wait=30)
    if answer.record is not None:
        return answer.record, answer.job_id
    assert answer.job_id is not None
    final = render.follow(client.watch(answer.job_id), Console(stderr=True))
    record = next(client.results(answer.job_id), None)
    if record is None:
        reasons = [render.failure_line(row) for row in client.failures(answer.job_id)]
        reasons = reasons or [render.job_line(final) if final else "it ended without a record"]
        raise exits.StrataExit(f"{image}: {reasons[0]}", exits.JOB_FAILED)
    return record, answer.job_id


def _save_overlay(client: Client, job_id: str | None, record: Record, path: Path) -> None:
    if job_id is None:
        raise exits.StrataExit("the service did not say the image's job: no overlay", exits.REQUEST_REFUSED)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(client.overlay(job_id, record.key))
    print(f"overlay: {path}", file=sys.stderr)


@app.command()
def submit(
    shards: Annotated[list[str], typer.Argument(metavar="SHARD...", help="Tars, ranges, or @FILE with one a line.")],
    profile: ProfileName = None,
    priority: Annotated[Priority, typer.Option(help="Which stream: hi is for single images.")] = "lo",
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Kept with the job.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key and shards: the same job.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens to spend on chat servers.")] = None,
    budget_money: Annotated[float | None, typer.Option(help="Most money to spend, at the profile's prices.")] = None,
    follow: Follow = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Submit shards; prints the job's id."""
    pairs, budget = pairs_of(metadata or ()), budget_of(budget_tokens, budget_money)
    with Client(url, api_key) as client:
        view = client.submit(list(shards_of(shards)), profile, priority, pairs, idempotency_key, budget)
        if not as_json:
            print(view.id, flush=True)
        if follow:
            view = _follow(client, view)
    if as_json:
        print(view.model_dump_json())
    raise typer.Exit(_code(view) if follow else 0)


def _follow(client: Client, view: JobView) -> JobView:
    return render.follow(client.watch(view.id), Console(stderr=True)) or view


def _code(view: JobView) -> int:
    return exits.JOB_FAILED if view.status in (JobStatus.FAILED, JobStatus.CANCELLED) else 0


@app.command()
def jobs(
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on from an earlier list.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """List jobs, newest first."""
    with Client(url, api_key) as client:
        page = client.jobs(limit, cursor)
    if as_json:
        print(page.model_dump_json())
        return
    output().print(render.job_table(page.jobs))
    if page.next:
        print(f"more: strata jobs --cursor {page.next}", file=sys.stderr)


@app.command()
def status(
    job: JobId,
    follow: Follow = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Tell where a job stands; with --follow the exit code tells how it ended."""
    with Client(url, api_key) as client:
        view = client.job(job)
        if follow:
            view = _follow(client, view)
    _print_job(view, as_json)
    raise typer.Exit(_code(view) if follow else 0)


@app.command()
def cancel(job: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Cancel a job; what is computed stays."""
    with Client(url, api_key) as client:
        _print_job(client.cancel(job), as_json)


@app.command()
def retry(
    job: JobId,
    follow: Follow = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Try a finished job's failed images again."""
    with Client(url, api_key) as client:
        view = client.retry(job)
        if follow:
            view = _follow(client, view)
    _print_job(view, as_json)
    raise typer.Exit(_code(view) if follow else 0)


def _print_job(view: JobView, as_json: bool) -> None:
    if as_json:
        print(view.model_dump_json())
    else:
        output().print(render.job_details(view))


@app.command()
def results(job: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Print a job's records so far, JSON Lines."""
    with Client(url, api_key) as client:
        for record in client.results(job):
            print(record.model_dump_json())


@app.command()
def failures(
    job: JobId,
    status: Annotated[
        Literal["failed", "filtered"], typer.Option(help="failed, or rejected by a rule of the profile.")
    ] = "failed",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Print which images and shards of a job failed or were filtered, and why."""
    with Client(url, api_key) as client:
        for row in client.failures(job, status):
            print(row.model_dump_json() if as_json else render.failure_line(row))


def _pass_on(name: str, module: str, help_line: str) -> None:
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}

    @app.command(name, help=help_line, add_help_option=False, context_settings=settings)
    def command(context: typer.Context) -> None:
        run_module(module, context.args)


app.add_typer(snapshot_cli.app)
app.command()(snapshot_cli.clean)
app.add_typer(mixture_cli.app)
app.command()(export_cli.export)
for _name, (_module, _help) in PASSED_ON.items():
    _pass_on(_name, _module, _help)
