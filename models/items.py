"""The items and results of the stages: their types, the items that probe a stage, and the check of results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from PIL import Image, ImageDraw

from strata.core import (
    FEATURE_STAGES,
    READS_TEXTS,
    Box,
    Caption,
    ImageReference,
    Record,
    Region,
    Verification,
)

MOST_PIXELS = 16_000_000  # that the stages see of an image; cameras of phones make 12 million
PLACEHOLDER_IMAGE = Image.new("RGB", (64, 64))  # for calls whose result does not depend on the image


@dataclass(frozen=True)
class Failure:
    """The result of an item that the stage could not process. transient: as in `FailureNote`."""

    stage: str
    error_type: str
    detail: str
    transient: bool = False

    @property
    def reason(self) -> str:
        """The reason of an entry that is dropped because its crop has failed, such as "captioner_failed"."""
        return f"{self.stage}_failed"

    def row_of(self, record: Record) -> Record:
        """The record as a failed row."""
        return record.failed(self.stage, self.error_type, self.detail, self.transient)


@dataclass(frozen=True)
class Rejection(Failure):
    """The result of an item whose text a guard has rejected, twice. error_type: the rule, such as "captioner_loop"."""

    @property
    def reason(self) -> str:
        """The rule."""
        return self.error_type

    def row_of(self, record: Record) -> Record:
        """The record as a filtered row."""
        return record.filtered(self.error_type, self.detail)


class Written(str):
    """A text as a model has written it. cut: whether it ended at the token limit."""

    __slots__ = ("cut",)
    cut: bool

    def __new__(cls, text: str, cut: bool = False) -> Self:
        """A text; without this class, a text counts as whole."""
        written = super().__new__(cls, text)
        written.cut = cut
        return written


@dataclass(frozen=True)
class CaptionRequest:
    """The captioner's item: an upright RGB image. kind: "scene" captions a whole image, "crop" names one object.

    of: the image that a crop is of, if it is known.
    """

    image: Image.Image
    kind: Literal["scene", "crop"] = "scene"
    of: Image.Image | None = None


@dataclass(frozen=True)
class BoxedImage:
    """The item of a segmenter that makes masks of given boxes. The result has a Segment or None for each box."""

    image: Image.Image
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Detection:
    """One of the detector's results for an image. box: in pixels of the image; score: 0..1."""

    box: Box
    phrase: str
    score: float


@dataclass(frozen=True, eq=False)
class Segment:
    """One of the segmenter's results for an image. mask: bool (H, W) of the whole image; box: its bounding box."""

    mask: np.typing.NDArray[np.bool_]
    box: Box
    score: float


@dataclass(frozen=True)
class ReadLine:
    """One of the OCR's results for an image. box: the axis-aligned rectangle around the line's polygon, in pixels."""

    text: str
    score: float
    box: Box


@dataclass(frozen=True)
class Pair:
    """The matcher's item. The result is the probability that the phrase describes the crop; None: it cannot judge."""

    crop: Image.Image
    phrase: str


@dataclass(frozen=True)
class ComposeRequest:
    """The composer's item. record: with its layers; image: upright RGB, only if a stage of the group uses it.

    errors: what an earlier text of the same record said wrongly. length: "short", "medium", "long", or "" for that of
    the prompt. prompt: a job's own instruction beside it, "" for none. original: a verified text that is to be written
    again in `language` (a key of LANGUAGES), instead of a text about the record; "" for none. metadata: the fields of
    the sample's JSON file, for the prompt's template.
    """

    record: Record
    image: Image.Image | None = None
    errors: tuple[str, ...] = ()
    length: str = ""
    prompt: str = ""
    original: str = ""
    language: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CropQuestion:
    """What a second opinion is asked about a claim: does a crop of one of the entries show the phrase?

    entries: names such as "regions/0"; none for the whole image.
    """

    entries: tuple[str, ...]
    phrase: str


@dataclass(frozen=True)
class VerifyRequest:
    """The verifier's item: a record with its layers, a text about it, and the image if the verifier uses it.

    opinions: the probabilities that a second opinion has given to the questions of an earlier reading of this text.
    """

    record: Record
    text: str
    image: Image.Image | None = None
    opinions: Mapping[CropQuestion, float] = field(default_factory=dict)


RESULT_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("captioner", "composer"), str),
    **dict.fromkeys(("detector", "segmenter", "ocr", "tagger"), list | tuple),
    **dict.fromkeys(("matcher", "second_matcher"), float | int | np.number | None),  # None: it cannot judge the phrase
    "verifier": Verification,
    **dict.fromkeys(FEATURE_STAGES, Mapping),
}
MARGIN = 1.0  # pixels by which rounding may move a side of a box out of the image


def check_results(stage: str, results: Any, items: Sequence[Any]) -> None:
    """Raise TypeError, RuntimeError or ValueError if a stage's results for items are none.

    Wrong are: another number of results, another type than the stage's, a number that is not finite, a box outside of
    its image, a mask of another size.
    """
    if isinstance(results, str | bytes | Mapping):
        raise TypeError(f"{stage} returned a {type(results).__name__} in place of a list")
    if len(results) != len(items):
        raise RuntimeError(f"{stage} returned {len(results)} results for {len(items)} items")
    kind = RESULT_TYPES.get(stage, object)
    for item, result in zip(items, results, strict=True):
        if not isinstance(result, kind):
            raise TypeError(f"{stage} returned a {type(result).__name__} for an item")
        # half precision that overflows, and a GPU that fails, give numbers that are none
        if not _is_finite(result):
            raise ValueError(f"{stage} returned a number that is not finite")
        if isinstance(item, BoxedImage) and len(result) != len(item.boxes):
            raise RuntimeError(f"{stage} returned {len(result)} masks for {len(item.boxes)} boxes")
        image = item.image if isinstance(item, BoxedImage) else item
        if isinstance(image, Image.Image) and isinstance(result, list | tuple):
            _check_places(stage, result, image.size)


def _check_places(stage: str, found: Sequence[Any], size: tuple[int, int]) -> None:
    """Raise ValueError if what was found in an image of that size (width, height) does not lie in it."""
    for one in found:
        box = getattr(one, "box", None)
        if box is not None:
            x1, y1, x2, y2 = box
            ordered = x1 <= x2 and y1 <= y2
            inside = min(x1, y1) >= -MARGIN and x2 <= size[0] + MARGIN and y2 <= size[1] + MARGIN
            if not (ordered and inside):
                place = tuple(round(float(side), 1) for side in box)
                raise ValueError(f"{stage} returned the box {place} in an image of {size[0]} × {size[1]} pixels")
        if isinstance(one, Segment) and one.mask.shape != size[::-1]:
            raise ValueError(f"{stage} returned a mask of another size than its image")


def work_of(item: Any) -> float:
    """How much work an item is for a stage, roughly: 1, and 1 for each megapixel of its image."""
    image = getattr(item, "crop", None) or getattr(item, "image", None) or item
    return 1.0 + image.width * image.height / 1e6 if isinstance(image, Image.Image) else 1.0


def _is_finite(value: Any) -> bool:
    """Whether the numbers in a result are finite: in a score, a box, or a list of Detections and the like."""
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    if isinstance(value, np.ndarray):
        return bool(np.isfinite(value).all())
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, Detection | Segment | ReadLine):
        return _is_finite(value.box) and _is_finite(value.score)
    return True


def _probe_image() -> Image.Image:
    """A square on a background: something that can be found, described and matched."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).rectangle((16, 16, 47, 47), "red")
    return image


PROBE_IMAGE = _probe_image()
PROBE_RECORD = Record(
    key="probe",
    image=ImageReference(uri="probe", size=0),
    width=PROBE_IMAGE.width,
    height=PROBE_IMAGE.height,
    caption=Caption(text="a red square on a white background", score=1.0),
    regions=[Region(box=(16.0, 16.0, 48.0, 48.0), phrase="a red square", score=1.0)],
)
PROBES: Mapping[str, Any] = {
    "captioner": CaptionRequest(PROBE_IMAGE),
    "detector": PROBE_IMAGE,
    "segmenter": PROBE_IMAGE,
    "ocr": PROBE_IMAGE,
    "tagger": PROBE_IMAGE,
    **dict.fromkeys(("matcher", "second_matcher"), Pair(PROBE_IMAGE, "a red square")),
    "composer": ComposeRequest(PROBE_RECORD, PROBE_IMAGE),
    "verifier": VerifyRequest(PROBE_RECORD, "A red square is at the centre of the picture.", PROBE_IMAGE),
    **{name: "a red square" if name in READS_TEXTS else PROBE_IMAGE for name in FEATURE_STAGES},
}
