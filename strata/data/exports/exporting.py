"""Export one layer of a snapshot to a folder. The folder appears only when it is complete."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from strata.core import LAYERS, VARIANT_LEVELS, LayerSpec
from strata.data.boxes import BOX_FORMS, BoxForm, BoxName, Frame, boxes_of, text_of
from strata.data.boxes import MAX_PIXELS as QWEN_PIXELS
from strata.data.control_tokens import without_control_tokens
from strata.data.exports.formats import FORMATS, Form
from strata.data.exports.provenance import write_provenance
from strata.data.exports.samples import ExportSample, Target
from strata.data.prefetch import prefetch_map
from strata.data.sources.samples import ImageFiles, SampleError
from strata.data.sources.snapshots import sample_row, snapshot_rows
from strata.data.sources.tables import SampleRow
from strata.errors import RequestRefused, StrataError
from strata.files import writing
from strata.images import ImageError, as_jpeg, blurred_jpeg
from strata.snapshots import Snapshot
from strata.store import Store

SKIPPED = "_skipped.jsonl"  # a line {"key": …, "uri": …, "reason": …} for each image that was left out
MAX_PIXELS = 100_000_000
RUN = 16  # images that are read together
THREADS = 8  # that read and encode images


class ExportError(RequestRefused, ValueError):
    """An export cannot be written. The message is one line with the reason."""


# writes further files into the folder of an export, which is written but for them; its second argument has the numbers
Papers = Callable[[Path, "ExportSamples"], object]


@dataclass(frozen=True)
class Request:
    """The format (of FORMATS), the layer, and the user's turn of conversations (None: the layer's instruction).

    skip_broken: leave out images that cannot be read; keep_metadata: leave EXIF and the like in JPEGs that are upright.
    boxes: the form of boxes in the texts of layers that have some: None for the format's own, "none" for no boxes.
    max_pixels: width × height of the largest image that Qwen2.5-VL's processor makes, on which its boxes depend.
    image_root: what stands before the paths of images, None for the format's own. blur_faces: whether the faces that
    the stage `faces` has found are blurred; an image that it could not see counts as one that cannot be read.
    """

    form: Form
    layer: LayerSpec
    instruction: str | None = None
    skip_broken: bool = False
    keep_metadata: bool = False
    boxes: BoxName | Literal["none"] | None = None
    max_pixels: int = QWEN_PIXELS
    image_root: str | None = None
    blur_faces: bool = False

    @property
    def box_form(self) -> BoxForm | None:
        """The form of boxes in the texts; None: they have none."""
        if not self.layer.boxed or self.boxes == "none":
            return None
        return FORMATS[self.form].boxes if self.boxes is None else BOX_FORMS[self.boxes]

    @property
    def question(self) -> str:
        """The user's turn: the one asked for, or the layer's, which asks where things are if the answer says it."""
        if self.instruction is not None:
            return self.instruction
        form, prompts = self.box_form, FORMATS[self.form].prompts
        asked = self.layer.instruction if form is None else form.question(self.layer)
        return prompts.get(self.layer.name, asked)

    def describe(self) -> dict[str, Any]:
        """What the provenance file says of the request."""
        boxes = (self.boxes or self.form) if self.box_form else None
        asked: dict[str, Any] = {"format": self.form, "layer": self.layer.name}
        asked |= {"instruction": self.question, "boxes": boxes}
        asked |= {"blur_faces": True} if self.blur_faces else {}
        return asked | ({"max_pixels": self.max_pixels} if boxes == "qwen2.5" else {})


class _Broken(NamedTuple):
    """An image that cannot be read or decoded, and why."""

    key: str
    uri: str
    reason: str


class ExportSamples:
    """An iterable of a snapshot's rows that have text in a layer, each with its image.

    It yields ExportSample objects in the snapshot's order. It raises SampleError for an image that cannot be read or
    decoded, or leaves it out and writes a line to `skipped_file`, if that is given; and OSError. count: rows so far;
    skipped: rows without text in the layer; broken: images that were left out. words: of the texts so far; example: the
    first text, or the first questions with their answers.
    """

    def __init__(self, store: Store, snapshot: Snapshot, request: Request, skipped_file: Path) -> None:
        self._store, self._snapshot, self._layer = store, snapshot, request.layer
        self._request, self._skipped_file, self._form = request, skipped_file, request.box_form
        self._files = ImageFiles(store)
        self.count = self.skipped = self.broken = self.words = 0
        self.example: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[ExportSample]:
        rows = self._rows()
        # images are read and encoded in threads, a run at a time
        runs = iter(lambda: list(itertools.islice(rows, RUN)), [])
        for sample in itertools.chain.from_iterable(prefetch_map(self._read, runs, THREADS)):
            if isinstance(sample, _Broken):
                self._leave_out(sample)
            else:
                self._count(sample)
                yield sample

    @property
    def counts(self) -> dict[str, int]:
        """The numbers so far, as `_provenance.json` has them."""
        return {"exported": self.count, "without_text": self.skipped, "broken": self.broken}

    def _count(self, sample: ExportSample) -> None:
        texts = sample.turns or (sample.text,)
        self.count += 1
        self.words += sum(len(text.split()) for text in texts)
        self.example = self.example or texts

    def _leave_out(self, broken: _Broken) -> None:
        self.broken += 1
        with self._skipped_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(broken._asdict(), ensure_ascii=False) + "\n")

    def _rows(self) -> Iterator[tuple[dict[str, Any], SampleRow]]:
        columns = ["key", "image", self._layer.column]
        for identity, row in snapshot_rows(self._store, self._snapshot, columns, self._request.blur_faces):
            text = text_of(self._layer, row)
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

    def _faces(self, row: dict[str, Any], sample: SampleRow) -> list[list[float]]:
        """The boxes of the faces to be blurred. Raises SampleError if nobody has looked for them in this image."""
        if not self._request.blur_faces:
            return []
        sides = row["face_boxes"]
        if sides is None:
            raise SampleError(f"{sample.uri}, image {sample.key}: faces could not be looked for in it")
        return [sides[start : start + 4] for start in range(0, len(sides), 4)]

    def _sample(self, row: dict[str, Any], sample: SampleRow, data: bytes) -> ExportSample:
        # the training tools ignore EXIF, so images are made upright
        try:
            if faces := self._faces(row, sample):
                jpeg, (width, height) = blurred_jpeg(data, MAX_PIXELS, faces)
            else:
                jpeg, (width, height) = as_jpeg(data, MAX_PIXELS, self._request.keep_metadata)
        except ImageError as error:
            raise SampleError(f"{sample.uri}, image {sample.key}: {error}") from None
        boxes = boxes_of(self._layer, self._layer.value_of(row))
        # boxes are written for the image as it is exported
        frame = Frame(width, height, self._layer.quoted, self._request.max_pixels)
        text = sample.turns[0] if self._form is None else self._form.write(boxes, frame)
        turns = tuple(map(without_control_tokens, self._layer.turns_of(row)))
        return ExportSample(sample.key, jpeg, width, height, text, boxes, turns=turns)


def export(
    store: Store,
    snapshot: Snapshot,
    request: Request,
    out: Path,
    advance: Callable[[], object] = lambda: None,
    papers: Papers = lambda folder, samples: None,
) -> ExportSamples:
    """Write a snapshot to a new folder. advance: called after each sample. papers: as `strata.publishing` writes them.

    The folder is renamed to `out` when it is complete, so that an interrupted export leaves no incomplete one. Raises
    ExportError if `out` exists, a format's package is missing, or no row has text in the layer, and the exceptions of
    ExportSamples.
    """
    _check(request, out)
    folder = out.absolute().with_name(f".{out.name}.partial")
    samples = ExportSamples(store, snapshot, request, folder / SKIPPED)
    try:
        with writing(out), _appearing(folder, out):
            # the writer iterates over the samples, so that only a few are in memory
            FORMATS[request.form].write(_target(folder, out, snapshot, request), _counted(samples, advance))
            if not samples.count:
                raise _nothing(store, samples, snapshot, request)
            write_provenance(folder, snapshot, request.describe(), samples.counts)
            papers(folder, samples)
    except StrataError:
        raise
    except ValueError as error:
        # datasets refuses to write no rows, with a message of its own
        if samples.count:
            raise
        raise _nothing(store, samples, snapshot, request) from error
    except ImportError as error:
        raise ExportError(f"the format {request.form} needs a package that is not installed: {error}") from None
    return samples


@contextmanager
def _appearing(folder: Path, out: Path) -> Iterator[None]:
    """Make a hidden folder, after removing that of an interrupted export, and rename it when the block has ended."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(request: Request, out: Path) -> None:
    """Raise ExportError if an export cannot be written as it is asked for."""
    if out.exists():
        raise ExportError(f"{out} exists already: an export is written to a new folder")
    if request.image_root is not None and not FORMATS[request.form].paths:
        raise ExportError(f"the format {request.form} has the images inside, so that there is no root of their paths")
    if request.form == "monkey" and request.layer.asks_itself:
        raise ExportError("the format monkey has one question for each image: export the level as llava or messages")


def _target(folder: Path, out: Path, snapshot: Snapshot, request: Request) -> Target:
    made_of = f"{snapshot.id}/{request.describe()}"
    fingerprint = hashlib.sha256(made_of.encode()).hexdigest()[:32]
    root, name = request.image_root, snapshot.name
    return Target(folder, out.absolute(), request.question, request.box_form, root, name, fingerprint)


def _nothing(store: Store, samples: ExportSamples, snapshot: Snapshot, request: Request) -> ExportError:
    if samples.broken:
        return ExportError(f"no image of {snapshot.name} can be read; {samples.broken:,} are broken")
    found = layers_with_text(store, snapshot)
    there = f"there is text in {', '.join(found)}" if found else "no layer has any"
    return ExportError(f"no row of {snapshot.name} has text in the layer {request.layer.name}; {there}")


def layers_with_text(store: Store, snapshot: Snapshot) -> list[str]:
    """The layers that have text in a row of a snapshot. It reads rows until all have, at most all. Raises OSError."""
    found: set[str] = set()
    known = {**LAYERS, **VARIANT_LEVELS}
    for _, row in snapshot_rows(store, snapshot, list(dict.fromkeys(layer.column for layer in known.values()))):
        found |= {name for name, layer in known.items() if name not in found and text_of(layer, row)}
        if len(found) == len(known):
            break
    return [name for name in known if name in found]


def _counted(samples: ExportSamples, advance: Callable[[], object]) -> Iterator[ExportSample]:
    for sample in samples:
        advance()
        yield sample
