"""`strata snapshot` and `strata clean`: commands that work on the store itself; no service is needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from strata.cli.group import PlainGroup
from strata.cli.terminal import AsJson, StoreUri, open_store, output, progress
from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.snapshots import Selection, Snapshot, Snapshots
    from strata.store import Part

app = typer.Typer(
    name="snapshot",
    cls=PlainGroup,
    help="Choose and pin the rows that training reads.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A snapshot's name, or its id.")]
Sources = Annotated[
    list[str], typer.Option("--from", metavar="JOB|DATASET", help="A job, a profile or a fingerprint; may be repeated.")
]
By = Annotated[
    list[str] | None, typer.Option(metavar="FEATURE[:EDGES]", help="A feature to balance by; may be repeated.")
]
Target = Annotated[
    list[str] | None,
    typer.Option(metavar="FEATURE=LABEL:SHARE", help="A label's share, where not equal; may be repeated."),
]
Forget = Annotated[list[str] | None, typer.Option(metavar="JOB", help="A finished job to drop; may be repeated.")]
Method = Literal["random", "balanced", "best"]
SHOWN = 20  # files that a dry run names


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that is not taken.")],
    sources: Sources,
    method: Annotated[Method, typer.Option("--select", help="How rows are taken.")] = "random",
    count: Annotated[int | None, typer.Option(min=1, help="How many rows; none: all.")] = None,
    share: Annotated[float | None, typer.Option(help="How many rows, of those that pass: 0 to 1.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice.")] = 0,
    where: Annotated[str | None, typer.Option(help='Which rows pass: "objects >= 2 and text".')] = None,
    unique: Annotated[bool, typer.Option("--unique", help="Each image once.")] = False,
    by: By = None,
    target: Target = None,
    like: Annotated[str | None, typer.Option(metavar="NAME", help="The selection of another snapshot.")] = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Choose rows of jobs and keep them under a name.

    A data set is all that was described with one profile: named by the profile, or by its fingerprint.
    """
    from strata.store import PartsOf

    snapshots = _snapshots(store)
    given: dict[str, Any] = {"count": count, "share": share, "seed": seed, "where": where, "unique": unique}
    given |= _axes(method, by or (), target or ())
    if like is None:
        selection = _selection({"method": method, **given})
    elif method != "random" or any(given.values()):
        raise InvalidInput("--like takes the whole selection of a snapshot; leave the other choices out")
    else:
        selection = snapshots.open(like).manifest.selection
    parts = PartsOf(snapshots.store).sources(sources)
    _show(_created(snapshots, name, parts, selection, sources), as_json)


def _axes(method: Method, by: Sequence[str], target: Sequence[str]) -> dict[str, Any]:
    """The axes that the options give a balanced selection; other methods have none. Raises InvalidInput."""
    from strata.snapshots import axes_of

    if method == "balanced":
        return {"axes": axes_of(by, target)}
    if by or target:
        raise InvalidInput("--by and --target are for --select balanced")
    return {}


def _snapshots(store: str | None) -> Snapshots:
    from strata.snapshots import Snapshots

    return Snapshots(open_store(store))


def _selection(values: dict[str, Any]) -> Selection:
    from pydantic import ValidationError

    from strata.snapshots import Selection

    try:
        return Selection.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = f"--{first['loc'][0]}: " if first["loc"] else ""
        raise InvalidInput(f"{place}{first['msg'].removeprefix('Value error, ')}") from error


def _created(
    snapshots: Snapshots, name: str, parts: Sequence[Part], selection: Selection, sources: list[str]
) -> Snapshot:
    with progress() as bar:
        task = bar.add_task("parts", total=len(parts))
        return snapshots.create(name, parts, selection, sources, lambda number: bar.advance(task, number))


@app.command("list")
def list_snapshots(as_json: AsJson = False, store: StoreUri = None) -> None:
    """List snapshots, the oldest first."""
    from strata.cli.snapshot_render import snapshot_table

    snapshots = _snapshots(store).all()
    if as_json:
        print(json.dumps([_as_json(snapshot, {"composition", "provenance", "parts"}) for snapshot in snapshots]))
    else:
        output().print(snapshot_table(snapshots))


@app.command()
def show(
    name: Name,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the composition: .png, .svg, .pdf.")] = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Show a snapshot: its selection, its composition before and after, and what made it."""
    snapshot = _snapshots(store).open(name)
    if plot:
        from strata.snapshots import plot_composition

        selected = f"{snapshot.name}: {snapshot.manifest.counts.selected:,} rows"
        plot_composition(snapshot.manifest.composition, selected, plot)
        print(f"plot: {plot}", file=sys.stderr)
    _show(snapshot, as_json)


def _show(snapshot: Snapshot, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_json(snapshot)))
    else:
        from strata.cli.snapshot_render import snapshot_details

        output().print(snapshot_details(snapshot))


def _as_json(snapshot: Snapshot, without: set[str] | None = None) -> dict[str, Any]:
    return {"name": snapshot.name, **snapshot.manifest.model_dump(mode="json", exclude=without)}


@app.command()
def diff(first: Name, second: Name, as_json: AsJson = False, store: StoreUri = None) -> None:
    """Show what differs between two snapshots: rows, parts, selection, provenance."""
    from strata.cli.snapshot_render import difference_details
    from strata.snapshots import difference

    snapshots = _snapshots(store)
    old, new = snapshots.open(first), snapshots.open(second)
    found = difference(old, new)
    if as_json:
        print(found.model_dump_json())
    else:
        output().print(difference_details(old, new, found))


@app.command()
def features() -> None:
    """List the features of rows that --where and --by understand."""
    from strata.cli.snapshot_render import feature_table

    output().print(feature_table())


def clean(
    forget: Forget = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only listed.")] = False,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Remove parts that nothing names. They belong to no job and no snapshot. Without --yes they are only listed."""
    from strata.snapshots import Cleaning

    cleaning = Cleaning(open_store(store), forget or ())
    files = cleaning.unreferenced()
    gone = cleaning.remove(list(files)) if yes else list(files)
    size = sum(files[path] for path in gone)
    if as_json:
        print(json.dumps({"removed": yes, "files": gone, "bytes": size}))
        return
    for path in gone[:SHOWN]:
        print(path)
    if len(gone) > SHOWN:
        print(f"… and {len(gone) - SHOWN:,} more")
    print(f"{len(gone):,} files, {size / 1e6:,.1f} MB {'removed' if yes else 'can go: --yes removes them'}")
