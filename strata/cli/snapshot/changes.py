"""`strata snapshot split | delete`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from strata.cli.snapshot.access import pictures_of, snapshots_of
from strata.cli.terminal import OpenLineage, StoreUri, progress, told_lineage
from strata.errors import InvalidInput


def split(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A snapshot's name.")],
    validation: Annotated[float, typer.Option(help="Share of the pictures for validation: above 0, below 1.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Seed of the division.")] = 0,
    same: Annotated[
        Literal["near", "bytes"], typer.Option("--same", help="Which pictures are one, and stay together.")
    ] = "near",
    openlineage: OpenLineage = None,
    store: StoreUri = None,
) -> None:
    """Divide a snapshot into NAME-train and NAME-validation. No picture is in both."""
    if not 0 < validation < 1:
        raise InvalidInput("--validation must be above 0 and below 1")
    from strata.publishing.lineage import note_split

    snapshots = snapshots_of(store)
    with told_lineage(openlineage, f"split.{name}") as run, progress() as bar:
        made = snapshots.split(name, validation, seed, same, pictures_of(snapshots, same, bar))
        note_split(run, snapshots.store, snapshots.open(name), made)
    for snapshot in made:
        print(f"{snapshot.name}: {snapshot.manifest.counts.selected:,} rows")


def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of snapshots.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; without it they are only shown.")] = False,
    store: StoreUri = None,
) -> None:
    """Delete snapshots. Without --yes they are only shown.

    The rows that they pinned stay until `strata clean` removes what no job and no other snapshot needs.
    """
    snapshots = snapshots_of(store)
    for name in dict.fromkeys(names):
        snapshots.check_name(name)
    for name in dict.fromkeys(names):
        if yes:
            snapshots.delete(name)
        print(f"{'deleted ' if yes else ''}{name}")
    if not yes:
        print("nothing was deleted: add --yes", file=sys.stderr)
