"""What the runner asks of a group, and what `vision` and `llm` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from strata.core import Chunk, Record
from strata.images import DecodingPool
from strata.store import Store
from workers.accounts import Meter
from workers.earlier import EarlierRows
from workers.groups.pipelines import PipelineCache
from workers.items import ItemReader, WorkItem


class Group(Protocol):
    """One group's work on a chunk, in steps: list its items, read their bytes, decode them, compute their records.

    most_pixels: of an image, above which it is shrunk where it is decoded; None: never.
    """

    name: str
    most_pixels: int | None

    def load(self, profile: str) -> None:
        """Load the models of a profile before the first chunk comes."""

    def items(self, chunk: Chunk) -> list[WorkItem]:
        """The chunk's items; most have no bytes of their images yet. Raises OSError and ProfileError."""

    def needs_images(self, chunk: Chunk) -> bool:
        """Whether the images are read. Raises ProfileError."""

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Some of the chunk's items with the bytes of their images. An item that cannot be read is settled as failed.

        Raises OSError if a later attempt may succeed.
        """

    def decode(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The items with decoded pixels. It needs no model, and is called in threads."""

    def compute(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[Record]:
        """The records of a micro-batch of unsettled items, in order, with the chunk's profile and fingerprint."""

    def meter(self, chunk: Chunk) -> Meter | None:
        """The meter of the group's stages that ask servers; None if there are none."""

    def loading(self, chunk: Chunk) -> float | None:
        """How many seconds it took to load the models of a chunk's profile; None if they are not loaded."""


class ModelGroup:
    """A group that runs a profile's models on the images and rows of chunks."""

    name: str

    def __init__(self, store: Store, pipelines: PipelineCache, decoder: DecodingPool) -> None:
        self.store, self.pipelines, self.decoder = store, pipelines, decoder
        self.reader, self.earlier = ItemReader(store), EarlierRows(store)

    def load(self, profile: str) -> None:
        self.pipelines.load(self.name, profile)

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        return self.reader.read(chunk, items)

    def meter(self, chunk: Chunk) -> Meter | None:
        return self.pipelines.meter(chunk)

    def loading(self, chunk: Chunk) -> float | None:
        return self.pipelines.loading(chunk)


def rows_before(store: Store, chunk: Chunk) -> list[Record]:
    """The records of the newest attempt before a retry's; empty if there is none."""
    earlier = store.attempts_before(chunk) if chunk.attempt else []
    return store.read_records(earlier[0]) if earlier else []


def reused(record: Record) -> WorkItem:
    """The item of a row that is copied."""
    return WorkItem(record, settled=True, reused=True)
