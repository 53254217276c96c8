"""`strata export`: write a snapshot in the format of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from strata.cli.terminal import Moved, StoreUri, open_store, progress
from strata.counts import counted

# repeats strata.data.exports.formats.Form, because importing it loads pyarrow
FormName = Literal[
    "llava", "qwen-vl", "monkey", "llama-factory", "ms-swift", "messages", "webdataset", "mds", "parquet", "hf"
]
BoxName = Literal["none", "llava", "qwen-vl", "qwen2.5", "qwen3", "internvl"]  # repeats strata.data.boxes.BoxName
Instruction = Annotated[str | None, typer.Option(help="The user's turn of conversations; none: the layer's.")]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out images that cannot be read, and list them in _skipped.jsonl.")
]
KeepMetadata = Annotated[
    bool, typer.Option("--keep-metadata", help="Leave EXIF, places and comments in images that need no change.")
]
BlurFaces = Annotated[
    bool, typer.Option("--blur-faces", help="Blur the faces that the stage `faces` of `strata features` has found.")
]
Boxes = Annotated[
    BoxName | None, typer.Option("--boxes", help="How the text tells where things are; none given: the format's.")
]
MaxPixels = Annotated[
    int | None, typer.Option("--max-pixels", min=784, help="The largest image in training, for boxes of qwen2.5.")
]
ImageRoot = Annotated[
    str | None, typer.Option("--image-root", metavar="PATH", help="What stands before the paths of images.")
]


def export(
    snapshot: Annotated[str, typer.Argument(metavar="SNAPSHOT", help="A snapshot's name, or its id.")],
    form: Annotated[FormName, typer.Option("--format", help="The format to write.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder that does not exist yet.")],
    layer: Annotated[str, typer.Option("--layer", help="The layer that becomes the text.")] = "description",
    instruction: Instruction = None,
    skip_broken: SkipBroken = False,
    keep_metadata: KeepMetadata = False,
    blur_faces: BlurFaces = False,
    boxes: Boxes = None,
    max_pixels: MaxPixels = None,
    image_root: ImageRoot = None,
    level: Annotated[str | None, typer.Option("--level", hidden=True, help="The old name of --layer.")] = None,
    root: Moved = None,
    store: StoreUri = None,
) -> None:
    """Write a snapshot for other tools, each image with the text of one layer."""
    from strata.core import layer_named
    from strata.data import Request, SampleError
    from strata.data import export as write_export
    from strata.snapshots import Snapshots

    layer = level or layer
    opened = open_store(store, root)
    pinned = Snapshots(opened).open(snapshot)
    largest: dict[str, Any] = {} if max_pixels is None else {"max_pixels": max_pixels}
    how = (form, layer_named(layer), instruction, skip_broken, keep_metadata, boxes)
    request = Request(*how, image_root=image_root, blur_faces=blur_faces, **largest)
    # images are read, converted and written one after another
    with progress() as bar:
        task = bar.add_task("images", total=pinned.manifest.counts.selected)
        try:
            samples = write_export(opened, pinned, request, out, lambda: bar.advance(task))
        except SampleError as error:
            raise SampleError(f"{error}; --skip-broken leaves out what cannot be read") from None
    skipped = f"; {counted(samples.skipped, 'row')} without {layer} left out" if samples.skipped else ""
    broken = (
        f"; {counted(samples.broken, 'broken image')} left out, see {out / '_skipped.jsonl'}" if samples.broken else ""
    )
    print(f"{out}: {counted(samples.count, 'image')}{skipped}{broken}")
