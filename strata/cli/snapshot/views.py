"""`strata snapshot list | show | diff | features`: commands that only read."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from strata.cli.snapshot.access import Name, as_json_of, save_plot, show_snapshot, snapshots_of
from strata.cli.snapshot.options import Plot
from strata.cli.terminal import AsJson, StoreUri, open_store, output
from strata.errors import InvalidInput

if TYPE_CHECKING:
    from strata.snapshots import Snapshot


def list_snapshots(
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of snapshots.")] = 20,
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
        print(f"{len(older):,} older: strata snapshot list --before {snapshots[0].name}", file=sys.stderr)


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


def diff(first: Name, second: Name, as_json: AsJson = False, store: StoreUri = None) -> None:
    """Show the differences of two snapshots: rows, parts, selection, provenance."""
    from strata.cli.rendering.snapshots import difference_details
    from strata.snapshots import difference

    snapshots = snapshots_of(store)
    old, new = snapshots.open(first), snapshots.open(second)
    found = difference(old, new)
    if as_json:
        print(found.model_dump_json())
    else:
        output().print(difference_details(old, new, found))


def features() -> None:
    """List the features of rows for --where and --by."""
    from strata.cli.rendering.snapshots import feature_table

    output().print(feature_table())
