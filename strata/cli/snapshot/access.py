"""What several commands of `strata snapshot` open and print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strata.cli.terminal import open_store, output
from strata.cli.terminal import tell as tell
from strata.counts import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from strata.snapshots import PictureHashes, Snapshot, Snapshots

Name = Annotated[str, typer.Argument(metavar="NAME", help="A snapshot's name, or its id.")]


def snapshots_of(store: str | None) -> Snapshots:
    """The snapshots of the store that an option or the environment names."""
    from strata.snapshots import Snapshots

    return Snapshots(open_store(store))


def pictures_of(snapshots: Snapshots, same: Any, bar: Progress) -> Callable[..., PictureHashes]:
    """What reads the pictures of rows, with a bar; images that cannot be read are told."""
    from strata.data import PictureHasher

    hasher = PictureHasher(snapshots.store, same)

    def read(parts: Sequence[str], rows: Any, ways: dict[str, str] | None = None) -> PictureHashes:
        task = bar.add_task("images", total=rows.num_rows)
        hashes = hasher.hashes(parts, rows, lambda number: bar.advance(task, number), ways)
        if hashes.unread:
            tell(f"{hashes.unread:,} of {rows.num_rows:,} images cannot be read; each counts as another picture")
        bar.add_task("comparing", total=None)
        return hashes

    return read


def show_snapshot(snapshot: Snapshot, as_json: bool) -> None:
    """Print a snapshot, for a person or as JSON."""
    if as_json:
        print(json.dumps(as_json_of(snapshot)))
    else:
        from strata.cli.rendering.snapshots import snapshot_details

        output().print(snapshot_details(snapshot))


def as_json_of(snapshot: Snapshot, without: set[str] | None = None) -> dict[str, Any]:
    """All that is known of a snapshot but its rows. without: names of fields to leave out."""
    return {"name": snapshot.name, **snapshot.manifest.model_dump(mode="json", exclude=without)}


def save_plot(snapshot: Snapshot, path: Path | None) -> None:
    """Save the picture of a composition, if it is asked for. Raises InvalidInput."""
    if path is None:
        return
    from strata.snapshots import plot_composition

    title = f"{snapshot.name}: {counted(snapshot.manifest.counts.selected, 'row')}"
    plot_composition(snapshot.manifest.composition, title, path)
    print(f"plot: {path}", file=sys.stderr)
