"""The items of a chunk: which images it has, and how their bytes are read and decoded. No model and no queue."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image

from strata.core import (
    LAYERS,
    Chunk,
    ImageReference,
    Profile,
    Record,
    Rules,
    Status,
    chosen_by,
    source_identity,
    source_shard,
)
from strata.images import FULL_SIZE, MISSING, DecodingPool, ImageError
from strata.shards import ImageReader, MetadataReader, ShardChanged, ShardMissing, SourceError
from strata.store import (
    SOURCE_NUMBER,
    IndexRow,
    Source,
    Store,
    is_made_list,
    is_transient,
    located_rows,
    reason_of,
    upload_digest,
)

log = logging.getLogger(__name__)

NO_RULES = Rules()
GONE_SECONDS = 300.0  # for which a shard that is gone is waited for; then its images are failed rows of a passing cause
FORGET_SECONDS = 600.0  # after which a shard that was seen to be gone is waited for anew


@dataclass
class WorkItem:
    """One image of a chunk while a group processes it: its record, and its bytes or pixels where the group needs them.

    settled: the record is final for this group, so that nothing has to be computed. reused: it is a copy of a row that
    was computed before. rules: those of the profile, which are checked again when the image's size is known.
    candidates: rows of images with the same size and alt text; a row is the item's if its image has the same bytes.
    stamp: that of the image's index row, if its bytes are to be those that were indexed. metadata: of the sample, if
    the job's prompt names some of it.
    """

    record: Record
    data: bytes | None = None
    image: Image.Image | None = None
    settled: bool = False
    reused: bool = False
    rules: Rules = NO_RULES
    candidates: list[Record] = field(default_factory=list)
    stamp: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def item_of(row: IndexRow, rules: Rules) -> WorkItem:
    """The item of an index row; a sample that cannot be used is settled as failed, a rejected one as filtered."""
    record = Record(key=row.key, image=reference_of(row), alt_text=row.alt_text)
    record = record.warned("alt_text", row.note) if row.note else record
    if row.error is not None:
        return WorkItem(record.failed("index", "bad_sample", row.error), settled=True)
    return _ruled(WorkItem(record, rules=rules, stamp=row.stamp))


def reference_of(row: IndexRow) -> ImageReference:
    """Where the image of a row lies."""
    return ImageReference(uri=row.uri, offset=row.offset, size=row.size, sha256=upload_digest(row.uri))


def decoded(
    items: Sequence[WorkItem],
    decoder: DecodingPool,
    max_pixels: Sequence[int | None] | None = None,
    most: int | None = None,
) -> list[WorkItem]:
    """The items with their pixels; an item without bytes is left as it is. max_pixels: of each, if not the decoder's.

    most: an image with more pixels is shrunk by a whole number; its record has its own size. Raises
    DecodersUnavailable.
    """
    found = list(items)
    rows = [row for row, item in enumerate(items) if not item.settled and item.data is not None]
    limits = [max_pixels[row] if max_pixels else None for row in rows]
    images = decoder.decode_all([items[row].data or b"" for row in rows], limits, most)
    for row, image in zip(rows, images, strict=True):
        found[row] = _with_pixels(items[row], image)
    return found


def _with_pixels(item: WorkItem, image: Image.Image | ImageError) -> WorkItem:
    if isinstance(image, ImageError):
        return WorkItem(item.record.failed("decode", image.kind, image.detail), settled=True)
    # note the size, which later groups need without decoding
    width, height = image.info.get(FULL_SIZE, image.size)
    record = item.record.model_copy(update={"width": width, "height": height})
    if missing := image.info.get(MISSING):
        record = record.warned("incomplete_image", missing)
    return _ruled(WorkItem(record, image=image, rules=item.rules))


class ChunkIndex(NamedTuple):
    """The index part of a chunk's shard: its chunk, rows and families (see ShardIndex), and the images of a chunk."""

    chunk: Chunk
    table: pa.Table
    families: tuple[str, ...]
    size: int

    def slice(self, chunk: Chunk) -> pa.Table:
        """The rows of a chunk, with URIs relative to the shard."""
        return self.table.slice(chunk.number * self.size, chunk.images)

    def rows(self, chunk: Chunk) -> list[IndexRow]:
        """The rows of a chunk, with absolute URIs."""
        return located_rows(self.slice(chunk), chunk.shard)


class ItemReader:
    """Reads the index rows and the images of chunks from a store and from shards.

    A shard that is gone as a whole is waited for GONE_SECONDS: a folder that is mounted anew is away for a moment.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.images = store, ImageReader(store)
        self.metadata = MetadataReader(self.images)
        self._index: ChunkIndex | None = None
        self._families: tuple[Chunk, bool] | None = None
        self._gone: dict[str, tuple[float, float]] = {}  # since when shards are gone, and when that was last seen

    def index(self, chunk: Chunk, profile: Profile) -> ChunkIndex:
        """The index part of a chunk's shard. Raises OSError, and BrokenPart if it is missing."""
        wanted = _index_of(chunk, profile)
        # keep the index that was read last: consecutive chunks are mostly of one shard
        kept = self._index
        if kept is not None and kept.chunk == wanted and kept.size == profile.chunk_size:
            return kept
        try:
            table, footer = self.store.read_part(wanted)
        except FileNotFoundError as error:
            raise Source.of(wanted).broken("it is missing") from error
        found = ChunkIndex(wanted, table, footer.families, profile.chunk_size)
        if not self.store.is_upload(chunk.shard):
            self._index = found
        return found

    def has_families(self, chunk: Chunk, profile: Profile) -> bool:
        """Whether earlier and later versions of a chunk's shard may be found. Raises OSError and BrokenPart."""
        wanted = _index_of(chunk, profile)
        kept = self._families
        if kept is None or kept[0] != wanted:
            try:
                kept = self._families = wanted, bool(self.store.read_footer(wanted).families)
            except FileNotFoundError as error:
                raise Source.of(wanted).broken("it is missing") from error
        return kept[1]

    def read(self, chunk: Chunk, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The items with their images' bytes; an item whose image cannot be read is settled as failed.

        An item whose image has the same bytes as that of a candidate is settled as a copy of it. Raises OSError if the
        storage is the cause, or if the shard is gone for a short time, so that a later attempt may succeed.
        """
        unread = [not item.settled and item.data is None for item in items]
        wanted = [item.record.image for item, wants in zip(items, unread, strict=True) if wants]
        results: list[bytes | Exception]
        try:
            changed = self.images.changed(chunk.shard, chunk.identity, [image.uri for image in wanted if image.offset])
            found = self.images.read(wanted, [item.stamp for item, wants in zip(items, unread, strict=True) if wants])
            # in a changed tar other images lie at these offsets
            results = [changed.get(image.uri, data) for image, data in zip(wanted, found, strict=True)]
        except SourceError as error:
            results = [error for _ in wanted]
        # an image that cannot be read now is not an image that cannot be read: the caller waits and reads again
        for row, result in zip(wanted, results, strict=True):
            if isinstance(result, Exception) and is_transient(result):
                raise OSError(f"{row.uri} cannot be read: {type(result).__name__}: {reason_of(result)}") from result
        self._await_shard(chunk.shard, results)
        remaining = iter(results)
        pairs = zip(items, unread, strict=True)
        return [_with_bytes(item, next(remaining)) if wants else item for item, wants in pairs]

    def with_metadata(
        self, chunk: Chunk, items: Sequence[WorkItem], profile: Profile, names: Sequence[str]
    ) -> list[WorkItem]:
        """The items with those fields of their samples; without them if the shard has changed or is gone.

        Raises OSError if the storage fails, and BrokenPart if the index part of chosen rows is missing.
        """
        shard, identity = source_shard(chunk.shard), source_identity(chunk.identity)
        samples = [item.record for item in items]
        found: list[Mapping[str, Any]] = []
        try:
            for run in self._runs(chunk, samples, profile):
                found += self.metadata.read(shard, identity, run.start, samples[len(found) :][: len(run)], names)
        except (SourceError, FileNotFoundError) as error:
            log.warning("the metadata of %s cannot be read: %s", chunk.shard, reason_of(error))
            return list(items)
        return [
            item if item.settled else replace(item, metadata=fields) for item, fields in zip(items, found, strict=True)
        ]

    def _runs(self, chunk: Chunk, samples: Sequence[Record], profile: Profile) -> Iterator[range]:
        """The numbers of a chunk's rows in the shard that holds the images, as runs of consecutive ones, in order."""
        first = chunk.number * profile.chunk_size
        # samples of a tar are found by their places
        if chosen_by(chunk.shard) is None or any(sample.image.offset for sample in samples):
            yield range(first, first + len(samples))
            return
        numbers = self.index(chunk, profile).slice(chunk).column(SOURCE_NUMBER).to_pylist()
        for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
            found = [number for _, number in run]
            yield range(found[0], found[-1] + 1)

    def _await_shard(self, shard: str, results: Sequence[bytes | Exception]) -> None:
        """Raise OSError if images are missing because their whole shard is gone, and not longer than GONE_SECONDS."""
        missing = any(isinstance(result, FileNotFoundError | NotADirectoryError | ShardMissing) for result in results)
        # an upload does not come back, and a list that was made here has no file
        source = source_shard(shard)
        lasting = self.store.is_upload(source) or is_made_list(source)
        if not missing or lasting or not self._is_gone(shard):
            self._gone.pop(shard, None)
            return
        now = time.monotonic()
        since, seen = self._gone.get(shard, (now, now))
        # that it was gone for another job, long ago, says nothing of now
        if now - seen > FORGET_SECONDS:
            since = now
        self._gone[shard] = since, now
        if now - since < GONE_SECONDS:
            raise OSError(f"{shard} is not there any more: it is waited for up to {GONE_SECONDS:.0f} s")

    def _is_gone(self, shard: str) -> bool:
        try:
            return self.images.is_gone(shard)
        except SourceError:  # it may not be read: the images' own errors tell that
            return False


def _index_of(chunk: Chunk, profile: Profile) -> Chunk:
    # the fingerprint of `index` is the same for all profiles, so a shard has one index part
    return Chunk("index", chunk.profile, profile.fingerprint("index"), chunk.shard, chunk.identity)


def copy_of(earlier: Record, image: Record) -> Record:
    """The row of an image as it was computed before, with the key and the place that the image has now."""
    reference = image.image.model_copy(update={"sha256": image.image.sha256 or earlier.image.sha256})
    return earlier.model_copy(update={"key": image.key, "image": reference})


def moved(item: WorkItem, uri: str) -> WorkItem:
    """The item with another place of its image."""
    image = item.record.image.model_copy(update={"uri": uri})
    return replace(item, record=item.record.model_copy(update={"image": image}))


def _ruled(item: WorkItem) -> WorkItem:
    """The item, settled as filtered if a rule rejects what is known of its image so far."""
    record = item.rules.applied(item.record)
    return replace(item, record=record, settled=True) if record.status is Status.FILTERED else item


def _with_bytes(item: WorkItem, data: bytes | Exception) -> WorkItem:
    record = item.record
    if isinstance(data, Exception):
        # the image itself was not seen, so that another reading may succeed
        return WorkItem(record.failed("read", type(data).__name__, reason_of(data), transient=True), settled=True)
    # the content of a file of its own is what identifies it
    if record.image.offset == 0:
        digest = hashlib.sha256(data).hexdigest()
        # the group before saw these bytes; of others it has told nothing
        if record.image.sha256 not in (None, digest):
            detail = "the file has other content than when it was read before: submit it again"
            return WorkItem(record.failed("read", ShardChanged.__name__, detail, transient=True), settled=True)
        record = record.model_copy(update={"image": record.image.model_copy(update={"sha256": digest})})
        for earlier in item.candidates:
            if earlier.image.sha256 == digest:
                return WorkItem(copy_of(earlier, record), settled=True, reused=True)
    return WorkItem(record, data=data, rules=item.rules)


class LayersSoFar:
    """What was told of the layers of records while they are computed, so that each is told once as it is."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str | None], dict[str, str]] = {}

    def changed(self, record: Record) -> dict[str, str]:
        """The layers of a record that have changed since the last call, as JSON by name; "image" has key and size."""
        texts = {"image": json.dumps({"key": record.key, "width": record.width, "height": record.height})}
        found = record.model_dump(mode="json", include={name for name in LAYERS if getattr(record, name) is not None})
        texts |= {name: json.dumps(value) for name, value in found.items()}
        told = self._told.setdefault((record.key, record.alt_text), {})
        changed = {name: text for name, text in texts.items() if told.get(name) != text}
        told.update(changed)
        return changed
