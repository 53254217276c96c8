"""`python -m samples --count 64 --seed 0 --out DIR`: write shards of scenes whose truth is known."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from samples.scenes import SceneOptions
from samples.shards import MAX_SHARD_SIZE, ShardOptions, write_shards


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m samples", description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="images in all")
    parser.add_argument("--seed", type=int, default=0, help="added to the first seed of evaluation (2**40)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--shard-size", type=int, default=MAX_SHARD_SIZE, help="images a shard")
    parser.add_argument("--sprites", choices=("known", "unseen"), default="known", help="pool of drawings")
    parser.add_argument("--min-objects", type=int, default=SceneOptions().min_objects)
    parser.add_argument("--max-objects", type=int, default=SceneOptions().max_objects)
    return parser


def main() -> None:
    """Write the shards, with a progress bar on a terminal, and print their folder."""
    parser = _arguments()
    args = parser.parse_args()
    scenes = SceneOptions(args.min_objects, args.max_objects, sprites=args.sprites)
    try:
        options = ShardOptions(args.count, args.seed, args.shard_size, scenes)
    except ValueError as error:
        parser.error(str(error))
    console = Console(stderr=True)
    columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("samples", total=args.count)
        tars = write_shards(args.out, options, lambda: progress.advance(task))
    print(f"{args.count} images in {len(tars)} shard{'' if len(tars) == 1 else 's'} in {args.out}")


if __name__ == "__main__":
    main()
