"""`strata export`: a snapshot in the form that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from strata.cli.terminal import StoreUri, open_store, progress

# strata.data.export_formats.Form, whose module loads pyarrow
FormName = Literal["llava", "monkey", "webdataset", "parquet", "hf"]


def export(
    snapshot: Annotated[str, typer.Argument(metavar="SNAPSHOT", help="A snapshot's name, or its id.")],
    form: Annotated[FormName, typer.Option("--format", help="What reads it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder that does not exist yet.")],
    layer: Annotated[str, typer.Option("--layer", help="The layer that becomes the text.")] = "description",
    instruction: Annotated[str | None, typer.Option(help="What conversations ask; none: by the layer.")] = None,
    level: Annotated[str | None, typer.Option("--level", hidden=True, help="The old name of --layer.")] = None,
    store: StoreUri = None,
) -> None:
    """Write a snapshot for other tools. Its images get the text of one layer."""
    from strata.core import layer_named
    from strata.data import Request
    from strata.data import export as write_export
    from strata.snapshots import Snapshots

    layer = level or layer
    opened = open_store(store)
    pinned = Snapshots(opened).open(snapshot)
    request = Request(form, layer_named(layer), instruction)
    with progress() as bar:
        task = bar.add_task("images", total=pinned.manifest.counts.selected)
        items = write_export(opened, pinned, request, out, lambda: bar.advance(task))
    left_out = f"; {items.without:,} rows without {layer} were left out" if items.without else ""
    print(f"{out}: {items.count:,} images{left_out}")
