"""Export one layer of a snapshot to a folder. The folder appears only when it is complete."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from strata.core import LayerSpec, kept
from strata.data.exports.formats import FORMATS, ExportSample, Form, PhraseBox, Target
from strata.data.prefetch import prefetch_map
from strata.data.sources.samples import ImageFiles, SampleError
from strata.data.sources.snapshots import sample_row, snapshot_rows
from strata.data.sources.tables import SampleRow
from strata.errors import RequestRefused, StrataError
from strata.images import ImageError, as_jpeg
from strata.snapshots import Snapshot
from strata.store import Store

SKIPPED = "skipped.jsonl"  # in the folder: a line {"key": …, "uri": …, "reason": …} for each image that was left out
MAX_PIXELS = 100_000_000
RUN = 16  # images that are read together
THREADS = 8  # that read and encode images


class ExportError(RequestRefused, ValueError):
    """An export cannot be written. The message is one line with the reason."""


@dataclass(frozen=True)
class Request:
    """The format (of FORMATS), the layer, and the user's turn of conversations (None: the layer's instruction).

    skip_broken: leave out images that cannot be read; keep_metadata: leave EXIF and the like in JPEGs that are upright.
    """

    form: Form
    layer: LayerSpec
    instruction: str | None = None
    skip_broken: bool = False
    keep_metadata: bool = False


class _Broken(NamedTuple):
    """An image that cannot be read or decoded, and why."""

    key: str
    uri: str
    reason: str


class ExportSamples:
    """An iterable of a snapshot's rows that have text in a layer, each with its image.

    It yields ExportSample objects in the snapshot's order. It raises SampleError for an image that cannot be read or
    decoded, or leaves it out and writes a line to `skipped_file`, if that is given; and OSError. count: rows so far;
    skipped: rows without text in the layer; broken: images that were left out.
    """

    def __init__(self, store: Store, snapshot: Snapshot, request: Request, skipped_file: Path) -> None:
        self._store, self._snapshot, self._layer = store, snapshot, request.layer
        self._request, self._skipped_file = request, skipped_file
        self._files = ImageFiles(store)
        self.count = self.skipped = self.broken = 0

    def __iter__(self) -> Iterator[ExportSample]:
        rows = self._rows()
        # images are read and encoded in threads, a run at a time
        runs = iter(lambda: list(itertools.islice(rows, RUN)), [])
        for sample in itertools.chain.from_iterable(prefetch_map(self._read, runs, THREADS)):
            if isinstance(sample, _Broken):
                self._leave_out(sample)
            else:
                self.count += 1
                yield sample

    def _leave_out(self, broken: _Broken) -> None:
        self.broken += 1
        with self._skipped_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(broken._asdict(), ensure_ascii=False) + "\n")

    def _rows(self) -> Iterator[tuple[dict[str, Any], SampleRow]]:
        for identity, row in snapshot_rows(self._store, self._snapshot, ["key", "image", self._layer.name]):
            text = self._layer.text_of(row)
            if text is None:
                self.skipped += 1
            else:
                yield row, sample_row(row, identity, text)

    def _read(self, run: Sequence[tuple[dict[str, Any], SampleRow]]) -> list[ExportSample | _Broken]:
        try:
            found = self._files.read([sample for _, sample in run])
            return [self._sample(row, sample, data) for (row, sample), data in zip(run, found, strict=True)]
        except SampleError as error:
            if not self._request.skip_broken:
                raise
            if len(run) == 1:
                return [_Broken(run[0][1].key, run[0][1].uri, str(error))]
        # find those that are broken, one by one
        return [one for pair in run for one in self._read([pair])]

    def _sample(self, row: dict[str, Any], sample: SampleRow, data: bytes) -> ExportSample:
        # the training tools ignore EXIF, so images are made upright
        try:
            jpeg, (width, height) = as_jpeg(data, MAX_PIXELS, self._request.keep_metadata)
        except ImageError as error:
            raise SampleError(f"{sample.uri}, image {sample.key}: {error}") from None
        boxes = [PhraseBox(self._layer.words_of(entry), tuple(entry["box"])) for entry in self._entries(row)]
        return ExportSample(sample.key, jpeg, width, height, sample.turns[0], boxes)

    def _entries(self, row: dict[str, Any]) -> list[Any]:
        """The kept entries that have words, of a layer with boxes."""
        entries = kept(self._layer.entries(row[self._layer.name])) if self._layer.boxed else []
        return [entry for entry in entries if self._layer.words_of(entry)]


def export(
    store: Store, snapshot: Snapshot, request: Request, out: Path, advance: Callable[[], object] = lambda: None
) -> ExportSamples:
    """Write a snapshot to a new folder. advance: called after each sample.

    The folder is renamed to `out` when it is complete, so that an interrupted export leaves no incomplete one. Raises
    ExportError if `out` exists, a format's package is missing, or no row has text in the layer, and the exceptions of
    ExportSamples.
    """
    if out.exists():
        raise ExportError(f"{out} exists already: an export is written to a new folder")
    # write to a hidden folder beside the target, after removing that of an interrupted export
    folder = out.absolute().with_name(f".{out.name}.partial")
    samples = ExportSamples(store, snapshot, request, folder / SKIPPED)
    instruction = request.instruction or request.layer.instruction
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        # the writer iterates over the samples, so that only a few are in memory
        target = Target(folder, out.absolute(), instruction, f"{snapshot.id[:32]}-{request.layer.name}")
        FORMATS[request.form](target, _counted(samples, advance))
        if not samples.count:
            raise _nothing(samples, snapshot, request)
        # everything is written: make it visible at once
        folder.rename(out)
    except StrataError:
        raise
    except ValueError as error:
        # datasets refuses to write no rows, with a message of its own
        if samples.count:
            raise
        raise _nothing(samples, snapshot, request) from error
    except ImportError as error:
        raise ExportError(f"the format {request.form} needs a package that is not installed: {error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return samples


def _nothing(samples: ExportSamples, snapshot: Snapshot, request: Request) -> ExportError:
    if samples.broken:
        return ExportError(f"no image of {snapshot.name} can be read; {samples.broken:,} are broken")
    return ExportError(f"no row of {snapshot.name} has text in the layer {request.layer.name}")


def _counted(samples: ExportSamples, advance: Callable[[], object]) -> Iterator[ExportSample]:
    for sample in samples:
        advance()
        yield sample
