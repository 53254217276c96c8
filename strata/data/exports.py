"""Export a snapshot at one level to a folder, which appears only when it is complete."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strata.core import LayerSpec, images, kept
from strata.data.export_formats import FORMATS, Form, Item, PhraseBox, Target
from strata.data.prefetch import prefetch_map
from strata.data.sample_sources import ImageFiles, SampleError
from strata.data.sample_tables import SampleRow
from strata.data.snapshot_sources import sample_row, snapshot_rows
from strata.errors import RequestRefused
from strata.snapshots import Snapshot
from strata.store import Store

MAX_PIXELS = 100_000_000
RUN = 16  # images of one read
THREADS = 8


class ExportError(RequestRefused, ValueError):
    """An export cannot be made. The message is one line that names the problem."""


class Items:
    """A snapshot's rows that have text at a level, each with its image.

    Iterating gives them as export_formats.Item, in the snapshot's order; it raises SampleError for a shard that has
    vanished or changed, and OSError.
    """

    def __init__(self, store: Store, snapshot: Snapshot, layer: LayerSpec) -> None:
        self._store, self._snapshot, self._layer = store, snapshot, layer
        self._files = ImageFiles()
        self.count = self.without = 0  # rows so far with text at this level, and without

    def __iter__(self) -> Iterator[Item]:
        rows = self._rows()
        # images are read and encoded in threads, a run at a time
        runs = iter(lambda: list(itertools.islice(rows, RUN)), [])
        for item in itertools.chain.from_iterable(prefetch_map(self._read, runs, THREADS)):
            self.count += 1
            yield item

    def _rows(self) -> Iterator[tuple[dict[str, Any], SampleRow]]:
        for identity, row in snapshot_rows(self._store, self._snapshot, ["key", "image", self._layer.name]):
            text = self._layer.text_of(row)
            if text is None:
                self.without += 1
            else:
                yield row, sample_row(row, identity, text)

    def _read(self, run: Sequence[tuple[dict[str, Any], SampleRow]]) -> list[Item]:
        found = self._files.read([sample for _, sample in run])
        return [self._item(row, sample, data) for (row, sample), data in zip(run, found, strict=True)]

    def _item(self, row: dict[str, Any], sample: SampleRow, data: bytes) -> Item:
        try:
            jpeg, (width, height) = images.as_jpeg(data, MAX_PIXELS)
        except images.ImageError as error:
            raise SampleError(f"{sample.uri}, image {sample.key}: {error}") from None
        boxes = [PhraseBox(self._layer.words_of(entry), tuple(entry["box"])) for entry in self._entries(row)]
        return Item(sample.key, jpeg, width, height, sample.turns[0], boxes)

    def _entries(self, row: dict[str, Any]) -> list[Any]:
        """The kept entries that have words, of a layer with boxes."""
        entries = kept(self._layer.entries(row[self._layer.name])) if self._layer.boxed else []
        return [entry for entry in entries if self._layer.words_of(entry)]


@dataclass(frozen=True)
class Request:
    """What to write: the format (of FORMATS), the level, and what conversations ask (None: by the level)."""

    form: Form
    layer: LayerSpec
    instruction: str | None = None


def export(
    store: Store, snapshot: Snapshot, request: Request, out: Path, advance: Callable[[], object] = lambda: None
) -> Items:
    """Write a snapshot to a new folder. advance: called after each sample.

    The folder is renamed to `out` when it is complete, so that an interrupted export leaves nothing there. Raises
    ExportError if `out` exists, a format's package is missing, or no row has text in the layer; and as Items does.
    """
    if out.exists():
        raise ExportError(f"{out} exists already: an export is written to a new folder")
    # write to a hidden folder beside the target; what an interrupted export left is removed
    items = Items(store, snapshot, request.layer)
    folder = out.absolute().with_name(f".{out.name}.partial")
    instruction = request.instruction or request.layer.instruction
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        # the format pulls the samples, so that only a few are in memory
        target = Target(folder, out.absolute(), instruction, f"{snapshot.id[:32]}-{request.layer.name}")
        FORMATS[request.form](target, _told(items, advance))
        if not items.count:
            raise ExportError(f"no row of {snapshot.name} has text in the layer {request.layer.name}")
        # everything is written: make it visible at once
        folder.rename(out)
    except ImportError as error:
        raise ExportError(f"the format {request.form} needs a package that is not installed: {error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return items


def _told(items: Items, advance: Callable[[], object]) -> Iterator[Item]:
    for item in items:
        advance()
        yield item
