"""`strata snapshot list | show | diff | features`: commands that only read."""

from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.snapshot.access import Name, as_json_of, save_plot, show_snapshot, snapshots_of
from strata.cli.snapshot.options import Plot
from strata.cli.terminal import AsJson, StoreUri, open_store, output, progress
from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.snapshots import Descriptions, Difference, Snapshot, Snapshots

Compare = Annotated[str, typer.Argument(metavar="SNAPSHOT|JOB", help="A snapshot's name or id, or a job.")]
SHOWN = 20  # of a list, without --limit


def list_snapshots(
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of snapshots.")] = SHOWN,
    before: Annotated[
        str | None, typer.Option(metavar="NAME", help="Continue an earlier list: older than this one.")
    ] = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """List the newest snapshots, the oldest of them first."""
    from strata.cli.rendering.snapshots import snapshot_table

    snapshots, damaged = snapshots_of(store).scan()
    for error in damaged:
        print(error, file=sys.stderr)
    # the last ones before a name
    if before is not None:
        names = [snapshot.name for snapshot in snapshots]
        if before not in names:
            raise InvalidInput(f"--before {before!r}: there is no snapshot of this name")
        snapshots = snapshots[: names.index(before)]
    older, snapshots = snapshots[:-limit], snapshots[-limit:]
    if as_json:
        print(json.dumps([as_json_of(snapshot, {"composition", "provenance", "parts"}) for snapshot in snapshots]))
    else:
        output().print(snapshot_table(snapshots))
    if older:
        more = f" --limit {limit}" if limit != SHOWN else ""
        print(f"{len(older):,} older: strata snapshot list{more} --before {snapshots[0].name}", file=sys.stderr)


def show(
    name: Name,
    card: Annotated[bool, typer.Option("--card", help="Show its data card, as `snapshot card` prints it.")] = False,
    plot: Plot = None,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Show a snapshot: its selection, its composition before and after, and its provenance.

    Exit code 14 if parts with its rows are lost.
    """
    if card and as_json:
        raise InvalidInput("--card is for people, and --json for programs: give one of them")
    snapshot = snapshots_of(store).open(name)
    save_plot(snapshot, plot)
    if card:
        _show_card(snapshot, store)
    else:
        show_snapshot(snapshot, as_json)
    snapshot.check_parts()


def _show_card(snapshot: Snapshot, store: str | None) -> None:
    """Show the card of a snapshot on a terminal, without the head that is for the hub."""
    from rich.markdown import Markdown

    from strata.publishing import About, card_of, facts_of

    _, _, text = card_of(facts_of(open_store(store), snapshot, About())).split("---\n", 2)
    output().print(Markdown(text))


def diff(
    first: Compare,
    second: Compare,
    texts: Annotated[int, typer.Option(min=0, help="Images whose texts are shown; 0: texts are not read.")] = 5,
    as_json: AsJson = False,
    store: StoreUri = None,
) -> None:
    """Show the differences of two snapshots: rows, parts, selection, provenance, and the texts side by side.

    Of two jobs, or a job and a snapshot, only the texts are compared. The largest changes of the match come first. Two
    snapshots of one profile's rows have no other texts.
    """
    from strata.cli.rendering.snapshots import difference_details
    from strata.snapshots import Snapshot, compared, difference

    snapshots = snapshots_of(store)
    old, new = (_described(snapshots, name) for name in (first, second))
    settings = difference(old, new) if isinstance(old, Snapshot) and isinstance(new, Snapshot) else None
    sides = _side(snapshots, old), _side(snapshots, new)
    wanted = settings is None or (texts > 0 and sides[0].differs(sides[1]))
    with progress() as bar:
        task = bar.add_task("parts", total=sum(len(side.parts) for side in sides), visible=wanted)
        found = compared(*sides, texts, functools.partial(bar.advance, task)) if wanted else None
    if as_json:
        print(json.dumps(_dumped(settings) | {"texts": found.model_dump(mode="json") if found else None}))
        return
    if isinstance(old, Snapshot) and isinstance(new, Snapshot) and settings is not None:
        output().print(difference_details(old, new, settings))
    if found is not None:
        from strata.cli.rendering.side_by_side import texts_side_by_side

        output().print(texts_side_by_side((first, second), found))


def _dumped(settings: Difference | None) -> dict[str, Any]:
    return {} if settings is None else settings.model_dump(mode="json")


def _described(snapshots: Snapshots, name: str) -> Snapshot | list[str]:
    """A snapshot, or the paths of a job's or data set's parts. Raises UnknownSource."""
    from strata.snapshots import UnknownSnapshot
    from strata.store import PartsOf, UnknownSource

    try:
        return snapshots.open(name)
    except UnknownSnapshot as unknown:
        try:
            return [part.path for part in PartsOf(snapshots.store).sources([name])]
        except UnknownSource:
            raise UnknownSnapshot(name, unknown.known, "snapshot, job or data set") from None


def _side(snapshots: Snapshots, described: Snapshot | list[str]) -> Descriptions:
    from strata.snapshots import Descriptions

    if isinstance(described, list):
        return Descriptions(snapshots.store, described)
    return Descriptions.of_snapshot(snapshots.store, described)


def features() -> None:
    """List the features of rows for --where and --by."""
    from strata.cli.rendering.snapshots import feature_table

    output().print(feature_table())
