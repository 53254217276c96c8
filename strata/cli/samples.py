"""`strata samples`: shards of drawn scenes with known ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from strata.cli.terminal import progress
from strata.components import load
from strata.counts import counted
from strata.errors import InvalidInput
from strata.files import writing


def samples(
    count: Annotated[int, typer.Option(help="Total number of images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the shards.")],
    seed: Annotated[int, typer.Option(help="Added to the first seed of evaluation (2**40).")] = 0,
    shard_size: Annotated[int, typer.Option(help="Images a shard.")] = 10_000,
    sprites: Annotated[Literal["known", "unseen"], typer.Option(help="Pool of drawings.")] = "known",
    min_objects: Annotated[int, typer.Option(help="Minimum number of objects of a scene.")] = 0,
    max_objects: Annotated[int, typer.Option(help="Maximum number of objects of a scene.")] = 6,
) -> None:
    """Write shards of drawn scenes whose objects, boxes, texts and relations are known."""
    scenes, shards = load("samples.scenes", "all"), load("samples.shards", "all")
    try:
        drawn = scenes.SceneOptions(min_objects, max_objects, sprites=sprites)
        options = shards.ShardOptions(count, seed, shard_size, drawn)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    with writing(out), progress() as bar:
        task = bar.add_task("samples", total=count)
        tars = shards.write_shards(out, options, lambda: bar.advance(task))
    print(f"{counted(count, 'image')} in {counted(len(tars), 'shard')} in {out}")
