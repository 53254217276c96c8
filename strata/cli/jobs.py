"""The commands that call the service: submit, jobs, status, cancel, retry, results, failures."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from strata.cli import exits
from strata.cli.estimating.options import DryRun, Images, Seed, sample_of
from strata.cli.terminal import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    ChosenFrom,
    ChosenWhere,
    Follow,
    JobId,
    Language,
    Metadata,
    Money,
    ProfileName,
    Prompt,
    Tokens,
    Url,
    Variants,
    follow_job,
    open_client,
    output,
)

if TYPE_CHECKING:
    from strata.client import Client
    from strata.core import JobSample, JobView

Status = Literal["validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "cancelled"]
Kind = Literal["image", "batch"]
STORE_SECONDS = 2.0  # between two looks at a job of a store: a run tells its progress as often
SHOWN_JOBS = 20  # of a list, without --limit
Stream = Literal["hi", "lo"]  # repeats strata.core.schemas.Priority, because importing it loads pydantic
Webhook = Annotated[
    str | None, typer.Option(metavar="URL", help="Tell the job's end there, signed with STRATA_WEBHOOK_SECRET.")
]
Shards = Annotated[list[str] | None, typer.Argument(metavar="SHARD", help="Tars, ranges, or @FILE with one a line.")]
IdempotencyKey = Annotated[str | None, typer.Option(help="Repeating a request with this key returns the same job.")]


def submit(
    shards: Shards = None,
    sources: ChosenFrom = None,
    where: ChosenWhere = None,
    profile: ProfileName = None,
    variants: Variants = None,
    language: Language = None,
    prompt: Prompt = None,
    priority: Annotated[Stream, typer.Option(help="The queue's priority; hi is for single images.")] = "lo",
    metadata: Metadata = None,
    idempotency_key: IdempotencyKey = None,
    budget_tokens: Tokens = None,
    budget_money: Money = None,
    upload: Annotated[bool, typer.Option("--upload", help="Send images of this machine first.")] = False,
    webhook: Webhook = None,
    follow: Follow = False,
    dry_run: DryRun = False,
    images: Images = None,
    seed: Seed = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Submit shards, images of this machine (--upload), or rows of other jobs (--from); prints the job's id.

    Images that the service has already are not sent again: after an interruption the same command goes on. --from
    describes images once more: those whose rows succeeded and --where chooses, or all if it names `status`. With
    --dry-run nothing is submitted but a sample: the exit code is 8 if its job failed. Ctrl-C cancels it.
    """
    from strata.cli.arguments import budget_of, chosen_of, pairs_of, texts_of, webhook_of

    budget, texts = budget_of(budget_tokens, budget_money), texts_of(variants, language, prompt)
    sample, chosen = sample_of(dry_run, images, seed), chosen_of(shards, sources, where, upload)
    if dry_run:
        unused = {"--webhook": webhook, "--idempotency-key": idempotency_key, "--metadata": metadata}
        asked = chosen | {"profile": profile, "budget": budget, "texts": texts}
        raise typer.Exit(_dry_run(shards or [], sample, upload, unused, asked, as_json, (url, api_key)))
    options = chosen | {"profile": profile, "priority": priority, "metadata": pairs_of(metadata or ())}
    options |= {"budget": budget, "texts": texts, "idempotency_key": idempotency_key, "webhook": webhook_of(webhook)}
    raise typer.Exit(_submit((url, api_key), shards or [], upload, options, follow, as_json))


def _submit(
    service: tuple[str, str | None],
    shards: list[str],
    upload: bool,
    options: dict[str, Any],
    follow: bool,
    as_json: bool,
) -> int:
    """Submit, and print the job; returns the exit code. service: its address and the key."""
    with open_client(*service) as client:
        view, left_out = _submitted(client, shards, upload, options)
        # print the id before following, so that it is known if the command is interrupted
        if not as_json:
            print(view.id, flush=True)
        if follow:
            view = follow_job(client, view.id) or view
    if as_json:
        print(view.model_dump_json())
    return (code_of_end(view) if follow else 0) or (exits.REQUEST_REFUSED if left_out else 0)


def _dry_run(
    shards: list[str],
    sample: JobSample | None,
    upload: bool,
    unused: dict[str, Any],
    asked: dict[str, Any],
    as_json: bool,
    service: tuple[str, str | None],
) -> int:
    """Tell what a submission would take. asked: the rows that it chooses, profile, budget and texts."""
    from strata.cli.arguments import shards_of
    from strata.cli.estimating.dry_run import check, dry_run

    check(upload, unused)
    with open_client(*service) as client:
        return dry_run(client, list(shards_of(shards)), sample, asked, as_json)


def _submitted(client: Client, shards: list[str], upload: bool, options: dict[str, Any]) -> tuple[JobView, int]:
    """The job, and how many images could not be sent."""
    if upload:
        from strata.cli.images.uploads import submit_images

        return submit_images(client, shards, **options)
    from strata.cli.arguments import shards_of

    return client.submit(list(shards_of(shards)), **options), 0


def code_of_end(view: JobView) -> int:
    """The exit code of a command that has followed a job to its end. Raises PartlyFailed if only a part has failed."""
    from strata.counts import counted
    from strata.errors import PartlyFailed

    if view.status in ("failed", "cancelled"):
        return exits.JOB_FAILED
    failed = {"image": view.request_counts.failed, "shard": view.shards.failed}
    if not any(failed.values()):
        return 0
    told = " and ".join(counted(number, name) for name, number in failed.items() if number)
    raise PartlyFailed(f"{told} of job {view.id} failed, with the reasons in its rows (`strata failures` shows them)")


def jobs(
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs.")] = SHOWN_JOBS,
    cursor: Annotated[str | None, typer.Option(help="Continue an earlier list.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only jobs with this status.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only jobs of one image, or of shards.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="Only jobs with this profile.")] = None,
    created_after: Annotated[datetime | None, typer.Option(help="Created at this time (UTC) or later.")] = None,
    created_before: Annotated[datetime | None, typer.Option(help="Created before this time (UTC).")] = None,
    wide: Annotated[bool, typer.Option("--wide", help="All columns, however wide the terminal is.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """List jobs, newest first."""
    filters = {"status": status, "kind": kind, "profile": profile}
    times = {"created_after": created_after, "created_before": created_before}
    chosen: dict[str, Any] = {name: value for name, value in (filters | times).items() if value is not None}
    with open_client(url, api_key) as client:
        page = client.jobs(limit, cursor, **chosen)
        # a page of a filtered list can have fewer jobs than were asked for, because it looks at a bounded number
        while chosen and page.next and len(page.jobs) < limit:
            more = client.jobs(limit - len(page.jobs), page.next, **chosen)
            page = more.model_copy(update={"jobs": [*page.jobs, *more.jobs]})
    if as_json:
        print(page.model_dump_json())
        return
    from strata.cli.rendering import records as render

    console = output()
    table = render.job_table(page.jobs, None if wide else console.width)
    console.width = max(console.width, console.measure(table).maximum)
    console.print(table)
    if page.next:
        given = chosen | ({"limit": limit} if limit != SHOWN_JOBS else {})
        options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", _text(value))]
        options += ["--wide"] * wide
        print(f"more: {shlex.join(['strata', 'jobs', *options, '--cursor', page.next])}", file=sys.stderr)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def status(
    job: JobId,
    follow: Follow = False,
    as_json: AsJson = False,
    store: Annotated[str | None, typer.Option(help="Read this store, without a service; see `strata run`.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Show a job's status and progress.

    With --follow the exit code is 8 if it failed or was cancelled, and 17 if some of its images or shards failed.
    """
    if store is not None:
        _show_stored(store, job, follow, as_json)
    with open_client(url, api_key) as client:
        view = client.job(job)
        if follow:
            view = follow_job(client, view.id) or view
    _print_job(view, as_json)
    raise typer.Exit(code_of_end(view) if follow else 0)


def _show_stored(store: str, job: str, follow: bool, as_json: bool) -> NoReturn:
    """Show a job that a store has, and exit."""
    from strata.cli.rendering import records as render
    from strata.cli.running.command import stored_view
    from strata.consoles import PlainConsole

    def views() -> Iterator[JobView]:
        while True:
            yield (view := stored_view(store, job))
            if view.status.final:
                return
            time.sleep(STORE_SECONDS)

    last = render.follow(views(), PlainConsole(stderr=True)) if follow else None
    view = last or stored_view(store, job)
    _print_job(view, as_json)
    raise typer.Exit(code_of_end(view) if follow else 0)


def cancel(job: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Cancel a job. Computed results are kept."""
    with open_client(url, api_key) as client:
        _print_job(client.cancel(job), as_json)


def delete(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB", help="Jobs that have ended.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; without it they are only shown.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Delete jobs for good: their rows, images and files. Without --yes they are only shown.

    What another job or a snapshot uses too stays.
    """
    from strata.cli.rendering import records as render

    with open_client(url, api_key) as client:
        for job in jobs:
            view = client.job(job)
            if yes:
                client.delete(job)
            print(f"{'deleted ' if yes else ''}{view.id}: {render.job_line(view)}")
    if not yes:
        print("nothing was deleted: add --yes", file=sys.stderr)


def retry(
    job: JobId,
    follow: Follow = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Retry the failed images of a job."""
    with open_client(url, api_key) as client:
        view = client.retry(job)
        if follow:
            view = follow_job(client, view.id) or view
    _print_job(view, as_json)
    raise typer.Exit(code_of_end(view) if follow else 0)


def _print_job(view: JobView, as_json: bool) -> None:
    from strata.cli.rendering import records as render

    if as_json:
        print(view.model_dump_json())
    else:
        output().print(render.job_details(view))


def results(job: JobId, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Print a job's records as JSON Lines; of a job that has not ended, those so far, which stderr then says."""
    with open_client(url, api_key) as client:
        for record in client.results(job):
            print(record.model_dump_json())
        _tell_state(client.job(job))


def _tell_state(view: JobView) -> None:
    """Say on stderr that a job has not ended, or why it failed as a whole: its rows do not tell that."""
    from strata.cli.rendering import records as render

    if not view.status.final or view.error:
        print(f"strata: job {view.id} is {render.job_line(view)}", file=sys.stderr)


def failures(
    job: JobId,
    status: Annotated[
        Literal["failed", "filtered"], typer.Option(help="Failed images, or those that a rule of the profile rejected.")
    ] = "failed",
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Print the failed or filtered images of a job, and the reasons."""
    from strata.cli.rendering import records as render

    with open_client(url, api_key) as client:
        for row in client.failures(job, status):
            print(row.model_dump_json() if as_json else render.failure_line(row))
        _tell_state(client.job(job))
