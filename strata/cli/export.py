"""`strata export`: a snapshot in the form that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strata.cli.terminal import StoreUri, open_store, progress
from strata.core.levels import Level
from strata.data.export_formats import Form
from strata.data.exports import Request
from strata.data.exports import export as write_export
from strata.snapshots.snapshots import Snapshots


def export(
    snapshot: Annotated[str, typer.Argument(metavar="SNAPSHOT", help="A snapshot's name, or its id.")],
    form: Annotated[Form, typer.Option("--format", help="What reads it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder that is not there yet.")],
    level: Annotated[str, typer.Option("--level", help=f"The text: {', '.join(Level)}.")] = Level.DESCRIPTION,
    instruction: Annotated[str | None, typer.Option(help="What conversations ask; none: by the level.")] = None,
    store: StoreUri = None,
) -> None:
    """Write a snapshot's images with one level of text, for LLaVA, Monkey, webdataset, Parquet or datasets."""
    opened = open_store(store)
    pinned = Snapshots(opened).open(snapshot)
    request = Request(form, Level.named(level), instruction)
    with progress() as bar:
        task = bar.add_task("images", total=pinned.manifest.counts.selected)
        items = write_export(opened, pinned, request, out, lambda: bar.advance(task))
    left_out = f"; {items.without:,} rows without {level} were left out" if items.without else ""
    print(f"{out}: {items.count:,} images{left_out}")
