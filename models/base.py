"""The contract of a stage: settings in the constructor, `load()`, then `run(batch)`: same length, same order.

A stage sees no queue and no store, so the worker, another engine and a test call it the same way. An image that
fails inside a batch is found by halving the batch, and its neighbours come out whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from strata.profiles import StageSettings
from strata.records import Box, Record
from strata.usage import Usage

Item = TypeVar("Item")
Result = TypeVar("Result")
Settings = TypeVar("Settings", bound="Parameters")


class Parameters(BaseModel):
    """Base of a stage's typed parameters: an unknown name in a profile is an error, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsMissing(RuntimeError):
    """A stage's weights are not on this machine; the message says which and how to get them."""


class StageUnavailable(RuntimeError):
    """The stage cannot work at all now (its server is gone): no image's fault, so none of them fails."""


class StageUnfit(RuntimeError):
    """The stage's server takes questions, and their price, but gives nobody a good answer: waiting would not help."""


@dataclass(frozen=True)
class Failure:
    """What a stage answers for an item that it could not do."""

    stage: str
    error_type: str
    detail: str


@dataclass(frozen=True)
class CaptionRequest:
    """Captioner's item. An upright RGB image; "scene" asks for a whole image, "crop" for one object's phrase."""

    image: Image.Image
    kind: Literal["scene", "crop"] = "scene"


@dataclass(frozen=True)
class Detection:
    """One of detector's results for an image: box in pixels of the image it was given."""

    box: Box
    phrase: str
    score: float


@dataclass(frozen=True, eq=False)
class Segment:
    """One of segmenter's results for an image: mask is bool (H, W) of the whole image, box its tight box."""

    mask: NDArray[np.bool_]
    box: Box
    score: float


@dataclass(frozen=True)
class ReadLine:
    """One of ocr's results for an image: box is the upright rectangle around the line's polygon."""

    text: str
    score: float
    box: Box


@dataclass(frozen=True)
class Pair:
    """Matcher's item: is the phrase true of this crop? The result is a probability."""

    crop: Image.Image
    phrase: str


@dataclass(frozen=True)
class ComposeRequest:
    """Composer's item: a record with its layers, and the upright RGB image where the composer looks at it too."""

    record: Record
    image: Image.Image | None = None


class Stage(ABC, Generic[Item, Result]):
    """One model's work on a batch.

    Captioner: CaptionRequest -> str. Detector: image -> list[Detection]. Segmenter: image -> list[Segment].
    Ocr: image -> list[ReadLine]. Matcher: Pair -> float. Composer: ComposeRequest -> str.

    usage: what each item of the last `run` used of a server; empty for a stage that asks none.
    """

    name: ClassVar[str]
    usage: Sequence[Usage] = ()

    def __init__(self, settings: StageSettings) -> None:
        self.settings = settings

    @abstractmethod
    def load(self) -> None:
        """Bring the weights into memory. Raises WeightsMissing."""

    @abstractmethod
    def compute(self, batch: Sequence[Item]) -> list[Result]:
        """One model call on at most `settings.batch_size` items: a result for each, in order. May raise."""

    def run(self, batch: Sequence[Item]) -> list[Result | Failure]:
        """Results in the order of the batch, of any length; a Failure for the items that cannot be done.

        Raises StageUnavailable or StageUnfit when the fault is the stage's own.
        """
        size = self.settings.batch_size
        done: list[Result | Failure] = []
        for start in range(0, len(batch), size):
            done += self._isolated(batch[start : start + size])
        return done

    def bound(self, item: Item) -> tuple[Usage, Usage]:
        """The most that an item can use of a server: with one try, and with all that the stage allows itself."""
        return Usage(), Usage()

    def release(self) -> None:
        """What was answered has gone out. Until then a stage may keep it, so as not to pay for it twice when a
        micro-batch that was interrupted by StageUnavailable is run again."""

    def _isolated(self, batch: Sequence[Item]) -> list[Result | Failure]:
        try:
            results = self.compute(batch)
            if len(results) != len(batch):
                raise RuntimeError(f"{self.name} gave {len(results)} results for {len(batch)} items")
            return list(results)
        except (StageUnavailable, StageUnfit):
            raise
        except Exception as error:
            if len(batch) == 1:
                return [Failure(self.name, type(error).__name__, str(error))]
            middle = len(batch) // 2
            return self._isolated(batch[:middle]) + self._isolated(batch[middle:])


CaptionerStage = Stage[CaptionRequest, str]
DetectorStage = Stage[Image.Image, list[Detection]]
SegmenterStage = Stage[Image.Image, list[Segment]]
OcrStage = Stage[Image.Image, list[ReadLine]]
MatcherStage = Stage[Pair, float]
ComposerStage = Stage[ComposeRequest, str]
