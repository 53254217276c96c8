"""`strata export`: a snapshot in the form that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strata.cli.terminal import StoreUri, open_store, progress
from strata.core.exits import REQUEST_REFUSED, USAGE, StrataExit
from strata.core.layers import LAYERS, LayerError, layer_named
from strata.data.export_formats import Form
from strata.data.exports import ExportError, Request
from strata.data.exports import export as write_export
from strata.data.sample_sources import SampleError
from strata.snapshots.snapshots import Snapshots


def export(
    snapshot: Annotated[str, typer.Argument(metavar="SNAPSHOT", help="A snapshot's name, or its id.")],
    form: Annotated[Form, typer.Option("--format", help="What reads it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder that is not there yet.")],
    layer: Annotated[str, typer.Option("--layer", help=f"The text: {', '.join(LAYERS)}.")] = "description",
    instruction: Annotated[str | None, typer.Option(help="What conversations ask; none: by the layer.")] = None,
    level: Annotated[str | None, typer.Option("--level", hidden=True, help="The old name of --layer.")] = None,
    store: StoreUri = None,
) -> None:
    """Write a snapshot's images with one layer of text, for LLaVA, Monkey, webdataset, Parquet or datasets."""
    layer = level or layer
    opened = open_store(store)
    pinned = Snapshots(opened).open(snapshot)
    try:
        request = Request(form, layer_named(layer), instruction)
        with progress() as bar:
            task = bar.add_task("images", total=pinned.manifest.counts.selected)
            items = write_export(opened, pinned, request, out, lambda: bar.advance(task))
    except LayerError as error:
        raise StrataExit(str(error), USAGE) from error
    except (ExportError, SampleError) as error:
        raise StrataExit(str(error), REQUEST_REFUSED) from error
    left_out = f"; {items.without:,} rows without {layer} were left out" if items.without else ""
    print(f"{out}: {items.count:,} images{left_out}")
