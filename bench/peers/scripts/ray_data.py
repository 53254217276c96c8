"""Ray Data: shards as rows, a reader, a pool of actors, and its own Parquet writer."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import ray

from bench.peers.scripts.options import options
from bench.peers.scripts.stage import BATCH, describe_batch, images_of


def read(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The images of a shard."""
    return [{"key": key, "data": data} for key, data in images_of(Path(row["item"]))]


class Describe:
    """The stage, in an actor."""

    def __init__(self, given: Namespace) -> None:
        self.given = given

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pairs = list(zip(batch["key"], batch["data"], strict=True))
        return {"key": batch["key"], "caption": describe_batch(pairs, self.given)}


def main() -> None:
    """Describe all shards."""
    given = options(__doc__)
    # as many logical CPUs as actors and readers want: the stage waits and uses none
    ray.init(num_cpus=given.workers + 2, include_dashboard=False, log_to_driver=False, object_store_memory=2 * 10**9)
    ray.data.DataContext.get_current().enable_progress_bars = False
    shards = [str(path) for path in sorted(given.shards.glob("*.tar"))]
    described = (
        ray.data.from_items(shards, override_num_blocks=len(shards))
        .flat_map(read)
        .map_batches(
            Describe,
            fn_constructor_args=(given,),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=given.workers),
            num_cpus=1,
        )
    )
    described.write_parquet(str(given.out))
    ray.shutdown()


if __name__ == "__main__":
    main()
