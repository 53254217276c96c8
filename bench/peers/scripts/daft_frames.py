"""Daft: shards as rows, a function that reads them, and a class in several processes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import daft
from daft import DataType, col

from bench.peers.scripts.options import options
from bench.peers.scripts.stage import BATCH, describe_batch, images_of

IMAGE = DataType.struct({"key": DataType.string(), "data": DataType.binary()})


@daft.udf(return_dtype=DataType.list(IMAGE))  # type: ignore[untyped-decorator]
def read(shards: daft.Series) -> list[list[dict[str, Any]]]:
    """The images of each shard."""
    return [[{"key": key, "data": data} for key, data in images_of(Path(shard))] for shard in shards.to_pylist()]


class Describe:
    """The stage, in a process of its own."""

    def __init__(self, given: Namespace) -> None:
        self.given = given

    def __call__(self, keys: daft.Series, data: daft.Series) -> list[str]:
        return describe_batch(list(zip(keys.to_pylist(), data.to_pylist(), strict=True)), self.given)


def main() -> None:
    """Describe all shards."""
    given = options(__doc__)
    stage = daft.udf(return_dtype=DataType.string(), batch_size=BATCH, concurrency=given.workers, use_process=True)(
        Describe
    ).with_init_args(given)
    shards = daft.from_pydict({"shard": [str(path) for path in sorted(given.shards.glob("*.tar"))]})
    images = shards.into_batches(1).with_column("image", read(col("shard"))).explode("image")
    images = images.select(col("image")["key"].alias("key"), col("image")["data"].alias("data"))
    described = images.with_column("caption", stage(col("key"), col("data")))
    described.select("key", "caption").write_parquet(str(given.out))


if __name__ == "__main__":
    main()
