"""A worker whose groups do nothing, to measure the costs of the service itself.

    python -m bench.fakes.null_group --groups vision,llm

The real runner claims, looks for the part, passes items through the steps of a group, writes a real Parquet part with
one row per image and counts in its footer, and finishes the chunk. Left out: the rows of the index part are not read,
image bytes are neither read nor decoded, and all rows of a chunk are the same small record.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from strata.cli.exits import code_of
from strata.core import GROUPS, Chunk, ImageReference, Record, Settings
from strata.errors import StrataError
from strata.store import Store
from workers.groups import Group
from workers.items import WorkItem
from workers.process import work
from workers.profile_versions import ProfileVersions


class NullGroup:
    """A `workers.groups.Group` that passes one record through all its steps."""

    most_pixels: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, profile: str) -> None:
        """Nothing to load."""

    def items(self, chunk: Chunk) -> list[WorkItem]:
        """One item per image, all with the same record."""
        record = Record(key=chunk.name, image=ImageReference(uri=chunk.shard, offset=512, size=400), alt_text="a text")
        return [WorkItem(record) for _ in range(chunk.images)]

    def needs_images(self, chunk: Chunk) -> bool:
        """No."""
        return False

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The same items: no bytes are read."""
        return list(items)

    def decode(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The same items."""
        return list(items)

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        """The same records."""
        return [item.record for item in items]

    def meter(self, chunk: Chunk) -> None:
        """None: no server is used."""

    def loading(self, chunk: Chunk) -> None:
        """None: there are no models."""


def null_group(name: str, store: Store, profiles: ProfileVersions, settings: Settings) -> Group:
    """A `workers.engines.groups.GroupMaker`."""
    return NullGroup(name)


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default=",".join(GROUPS))
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    try:
        work(Settings(), options.groups.split(","), null_group)
    except StrataError as error:
        print(f"null worker: {error}", file=sys.stderr)
        sys.exit(code_of(error))


if __name__ == "__main__":
    main()
