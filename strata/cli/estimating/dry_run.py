"""`strata submit --dry-run`: what a submission would take, without it or by describing a sample of its images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from strata.cli import exits
from strata.cli.terminal import output, steps
from strata.errors import InvalidInput, StrataError

if TYPE_CHECKING:
    from strata.client import Client
    from strata.core import Estimate, JobRequest, JobSample, JobView


def check(upload: bool, given: dict[str, Any]) -> None:
    """Raise InvalidInput for options of `submit` that a dry run has no use for. given: their values by name."""
    if upload:
        here = "`strata run --dry-run -n 200 FOLDER` tries images of this machine"
        raise InvalidInput(f"--dry-run looks at shards that the service reads; {here}")
    if name := next((name for name, value in given.items() if value), None):
        raise InvalidInput(f"--dry-run submits no job, so that {name} has no use")


def dry_run(
    client: Client, shards: Sequence[str], sample: JobSample | None, options: dict[str, Any], as_json: bool
) -> int:
    """Tell what a submission would take; returns the exit code. sample: None: nothing is described.

    options: of the submission, the profile, budget, texts, and the rows that it chooses instead of shards.
    """
    from strata.cli.rendering import estimates as render
    from strata.cli.rendering.records import clean

    if sample is None:
        preview = client.preview(shards, **options)
        if as_json:
            print(preview.model_dump_json())
        else:
            output().print(render.preview_lines(preview, options.get("where")))
        # as the job would end
        return exits.JOB_FAILED if preview.images == 0 and preview.unread else 0
    view = client.submit_sample(shards, sample.images, sample.seed, **options)
    print(f"strata: job {view.id} describes {sample_name(view)}", file=sys.stderr, flush=True)
    try:
        view = _followed(client, view)
    except KeyboardInterrupt:
        _cancel(client, view)
        raise
    code = tell_estimate(client.estimate(view.id), as_json)
    if view.error:
        print(f"strata: the sample's job failed: {clean(view.error)}", file=sys.stderr)
    return exits.JOB_FAILED if view.status in ("failed", "cancelled") else code


def sample_name(job: JobView | JobRequest) -> str:
    """What a job of a sample describes."""
    return f"a random sample of {'the chosen rows' if job.chosen else 'the images'}"


def tell_estimate(estimate: Estimate, as_json: bool) -> int:
    """Print an estimate; returns the exit code: that of a failed job if no shard could be read, as the whole would."""
    from strata.cli.rendering import estimates as render

    if as_json:
        print(estimate.model_dump_json())
    else:
        console = output()
        for part in render.estimate_parts(estimate):
            console.print(part)
    return exits.JOB_FAILED if estimate.images == 0 and estimate.unread else 0


def _followed(client: Client, view: JobView) -> JobView:
    """The job at its end; its progress is shown meanwhile."""
    from strata.cli.rendering.records import done_images

    job_id = view.id
    with steps() as show:
        for view in client.watch(job_id):
            if view.sample is not None and not view.sample.drawn:
                show("shards are indexed", view.shards.indexed + view.shards.failed, view.shards.total)
            else:
                show("images are described", done_images(view), view.request_counts.total)
    return view


def _cancel(client: Client, view: JobView) -> None:
    """End the sample's job after Ctrl-C, and say what became of it."""
    import httpx

    try:
        client.cancel(view.id)
        view = client.job(view.id)
    except (StrataError, OSError, httpx.HTTPError) as error:
        print(f"\nstrata: job {view.id} of the sample goes on: it cannot be cancelled now: {error}", file=sys.stderr)
        return
    counts, described = view.request_counts, 0
    with suppress(StrataError, OSError, httpx.HTTPError):
        described = client.estimate(view.id).described
    told = f"after {described:,} of {counts.total:,} images" if counts.total else "before an image was described"
    print(f"\nstrata: job {view.id} of the sample is cancelled {told}; nothing else was submitted", file=sys.stderr)
