"""`strata push` and `strata pull`: exports on their way to a hub, a bucket or a folder, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.terminal import AsJson, progress, tell
from strata.counts import counted
from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.publishing.contents import Contents
    from strata.publishing.storage import Planned

Target = Annotated[str, typer.Argument(metavar="PLACE", help="hub:OWNER/NAME, or a URI such as s3://BUCKET/NAME.")]
SHOWN = 20  # files that --dry-run lists


def push(
    place: Target,
    folder: Annotated[Path, typer.Argument(metavar="EXPORT", help="A folder that `strata export` has written.")],
    public: Annotated[bool, typer.Option("--public", help="On the hub: for everybody; else it is private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and list what would be sent.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send an export to the Hugging Face Hub, a bucket or a folder. A push that was ended goes on when it is repeated.

    On the hub it appears in one commit, elsewhere with SHA256SUMS, which is written last. The hub's token is that of
    HF_TOKEN or of `hf auth login`; HF_ENDPOINT names another hub.
    """
    from strata.publishing.contents import contents_of

    target = _target(place, public)
    contents = contents_of(folder)
    for line in target.check(contents):  # before hours of reading and sending
        tell(line)
    _tell_unlisted(contents)
    with progress() as bar:
        task = bar.add_task("check", total=contents.bytes)
        checked = contents.checked(lambda size: bar.advance(task, size))
        if dry_run:
            planned = target.plan(checked, tell)
            bar.stop()
            _list(checked, planned, place, as_json)
            return
        if checked is not contents:
            checked.keep()
            tell("README.md was edited since the export: SHA256SUMS has its new checksum; croissant.json is as it was")
        task = bar.add_task("send", total=contents.bytes)
        pushed = target.push(checked, lambda size: bar.advance(task, size), tell)
    if as_json:
        print(json.dumps(vars(pushed)))
    else:
        known = pushed.files - pushed.sent
        there = f", {known:,} were there" if known else ""
        gone = f", {counted(pushed.removed, 'file')} of an earlier export removed" if pushed.removed else ""
        print(f"{pushed.place}: {counted(pushed.sent, 'file')}, {pushed.bytes / 1e6:,.1f} MB{there}{gone}")


def pull(
    place: Target,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that does not exist yet.")],
    as_json: AsJson = False,
) -> None:
    """Get an export that was pushed. Each file is checked by SHA256SUMS; a pull that was ended goes on.

    hub:OWNER/NAME@REVISION names a branch, a tag or a commit.
    """
    from strata.publishing.pulling import pull as get

    source = _target(place, False)
    with progress() as bar:
        task = bar.add_task("files", total=None)
        count = get(source, folder, lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        print(json.dumps({"folder": str(folder), "files": count, "from": source.revision()}))
    else:
        print(f"{folder}: {counted(count, 'file')} of {source.revision()}")


def _target(place: str, public: bool) -> Any:
    """The data set of the hub or the storage that a place names. Raises InvalidInput."""
    from strata.publishing.hub import PREFIX, HubDataset
    from strata.publishing.storage import Storage

    if place.startswith(PREFIX):
        return HubDataset(place.removeprefix(PREFIX), public)
    if public:
        raise InvalidInput("--public is for hub:OWNER/NAME; who may read a bucket is set at the bucket")
    return Storage(place)


def _tell_unlisted(contents: Contents) -> None:
    for name in contents.unlisted[:SHOWN]:
        tell(f"{contents.folder / name} is not in SHA256SUMS: it is not sent")
    if more := contents.unlisted[SHOWN:]:
        tell(f"{counted(len(more), 'further file')} not in SHA256SUMS")


def _list(contents: Contents, planned: Planned, place: str, as_json: bool) -> None:
    """Print what a push would send and remove."""
    from strata.addresses import without_secrets

    sizes = {name: contents.every_size[name] for name in planned.sent}
    known = len(contents.every_size) - len(sizes)
    if as_json:
        files = {"files": sizes, "bytes": sum(sizes.values()), "there": known, "removed": list(planned.removed)}
        print(json.dumps({"place": without_secrets(place), **files}))
        return
    largest = sorted(sizes.items(), key=lambda entry: -entry[1])
    for name, size in largest[:SHOWN]:
        print(f"{size:>16,}  {name}")
    if largest[SHOWN:]:
        print(f"… and {counted(len(largest) - SHOWN, 'smaller file')}")
    total = f"{counted(len(largest), 'file')}, {sum(sizes.values()) / 1e6:,.1f} MB"
    there = f", {known:,} are there" if known else ""
    print(f"{total} would be sent to {without_secrets(place)}{there}")
    for name in planned.removed[:SHOWN]:
        print(f"{name} of an earlier export would be removed")
    if more := planned.removed[SHOWN:]:
        print(f"… and {counted(len(more), 'further file')} of it")
