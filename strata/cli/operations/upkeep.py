"""`strata clean | verify | compact`: commands on the files of a store. They need no running service."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from strata.cli.terminal import AsJson, StoreUri, open_store, progress
from strata.counts import counted
from strata.errors import BrokenStore, InvalidInput

Forget = Annotated[list[str] | None, typer.Option(metavar="JOB", help="A finished job to drop; may be repeated.")]
SHOWN = 20  # maximum number of files that `strata clean` lists


def clean(
    forget: Forget = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only listed.")] = False,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Remove parts that belong to no job and no snapshot. Without --yes they are only listed."""
    from strata.snapshots import Cleaning

    cleaning = Cleaning(open_store(store), forget or ())
    files = cleaning.unreferenced()
    for line in sorted(cleaning.damaged):
        print(f"{line}; what it may need is kept", file=sys.stderr)
    # report what was removed, or would be
    paths = cleaning.remove(list(files)) if yes else list(files)
    size = sum(files[path] for path in paths)
    if as_json:
        print(json.dumps({"removed": yes, "files": paths, "bytes": size}))
        return
    for path in paths[:SHOWN]:
        print(path)
    if len(paths) > SHOWN:
        print(f"… and {len(paths) - SHOWN:,} more")
    print(f"{counted(len(paths), 'file')}, {size / 1e6:,.1f} MB {'removed' if yes else 'can be removed with --yes'}")


def verify(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="A job's id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the store.")] = False,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Read every part against its checksums. Broken ones are set aside and computed again.

    A running service continues the jobs within half a minute, a stopped one when it starts.
    """
    from strata.snapshots import Verification

    if (job is None) != everything:
        raise InvalidInput("name a JOB, or all of the store with --all")
    verification = Verification(open_store(store), job)
    paths = verification.paths()
    with progress() as bar:
        task = bar.add_task("parts", total=len(paths))
        report = verification.run(paths, lambda number: bar.advance(task, number))
    if as_json:
        print(json.dumps(vars(report)))
    else:
        lines = [f"{path}: {reason}" for path, reason in report.broken.items()]
        lines += [f"{path}: missing" for path in report.missing] + report.damaged
        lines += [f"job {job_id}: runs again" for job_id in report.jobs]
        print("\n".join([*lines, f"intact: {counted(report.parts, 'part')} with {counted(report.rows, 'row')}"]))
    if not report.intact:
        counts = (len(report.broken), len(report.missing), len(report.damaged), len(report.jobs))
        raise BrokenStore("{} parts broken, {} missing, {} other files damaged; {} jobs run again".format(*counts))


def compact(
    undo: Annotated[bool, typer.Option("--undo", help="Take the bundles apart again.")] = False,
    older: Annotated[float, typer.Option(min=0, metavar="MINUTES", help="Leave parts that are younger.")] = 60.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it is only told what would be done.")] = False,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Put the small parts of each shard into a few larger Parquet files. Rows and snapshots stay as they are.

    It may run beside a service and may be ended at any time. While a shard's files are changed, other readers of its
    folder than Strata get an error.
    """
    from strata.store import Compaction

    compaction = Compaction(open_store(store), 60 * older)
    plans = [plan for plan in compaction.plans() if yes or plan.new or plan.bundles]
    small, new = sum(plan.small for plan in plans), sum(plan.new for plan in plans)
    bundles = sum(plan.bundles for plan in plans)
    told = {"folders": len(plans), "small": small, "new": new, "bundles": bundles, "done": yes}
    if yes:
        with progress() as bar:
            task = bar.add_task("folders", total=len(plans))
            done = compaction.run(plans, undo, lambda number: bar.advance(task, number))
        told |= vars(done)
        line = f"{counted(done.files, 'file')} {'out of' if undo else 'into'} {counted(done.bundles, 'bundle')}"
    elif undo:
        line = f"{counted(bundles, 'bundle')} can be taken apart with --yes"
    else:
        line = f"{counted(small, 'file')} can become {counted(new, 'bundle')} with --yes; there are {bundles:,} bundles"
    print(json.dumps(told) if as_json else line)
    if yes and (done.busy or done.broken):
        print(
            f"left as they are: {counted(done.busy, 'folder')} that another process bundles, and the files of "
            f"{counted(done.broken, 'bundle')} that cannot be read together; see `strata verify --all`",
            file=sys.stderr,
        )
