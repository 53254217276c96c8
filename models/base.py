"""The contract of a stage: settings in the constructor, `load()`, then `run(batch)`: same length, same order.

A stage sees no queue and no store, so the worker, another engine and a test call it the same way. An image that
fails inside a batch is found by halving the batch, and its neighbours come out whole. Pixels and tokens of the next
batch are made in a thread while the model computes the one in hand. A batch that memory does not hold is halved, and
so are those after it.
"""

from __future__ import annotations

import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from strata.core.errors import StrataError, WeightsError
from strata.core.profiles import StageSettings
from strata.core.records import Box, Record
from strata.core.usage import Usage

Item = TypeVar("Item")
Result = TypeVar("Result")

ANY_IMAGE = Image.new("RGB", (64, 64))  # asked where the answer does not depend on the image
GROW_AFTER = 32  # batches; then twice what memory held is tried again: at most one batch in 33 is lost to it


class WeightsMissing(WeightsError, RuntimeError):
    """A stage's weights are not on this machine; the message says which and how to get them."""


class StageUnavailable(StrataError, RuntimeError):
    """The stage cannot work at all now (its server is gone): no image's fault, so none of them fails."""


class StageUnfit(StrataError, RuntimeError):
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
        self._size = settings.batch_size  # what memory holds, as far as is known
        self._good = 0  # batches of that size since it changed

    @abstractmethod
    def load(self) -> None:
        """Bring the weights into memory. Raises WeightsMissing."""

    def prepare(self, batch: Sequence[Item]) -> Any:
        """What `compute` takes for a batch: its pixels and tokens on the model's device, or the batch as it is.

        Called in a thread, while `compute` may be at work on the batch before. May raise.
        """
        return batch

    @abstractmethod
    def compute(self, batch: Any) -> list[Result]:
        """The model on what `prepare` made of at most `settings.batch_size` items: a result for each, in order.

        May raise.
        """

    def run(self, batch: Sequence[Item]) -> list[Result | Failure]:
        """Results in the order of the batch, of any length; a Failure for the items that cannot be done.

        Raises StageUnavailable or StageUnfit when the fault is the stage's own.
        """
        done: list[Result | Failure] = []
        prepared: dict[tuple[int, int], Future[Any]] = {}
        with ThreadPoolExecutor(1, thread_name_prefix=self.name) as preparing:
            while len(done) < len(batch):
                here = len(done), min(len(done) + self._size, len(batch))
                following = here[1], min(here[1] + self._size, len(batch))
                for span in (here, following):
                    if span[0] < span[1] and span not in prepared:
                        prepared[span] = preparing.submit(self.prepare, batch[slice(*span)])
                results = self._attempt(batch[slice(*here)], prepared.pop(here))
                if results is None:
                    prepared.clear()
                else:
                    done += results
        return done

    def bound(self, item: Item) -> tuple[Usage, Usage]:
        """The most that an item can use of a server: with one try, and with all that the stage allows itself."""
        return Usage(), Usage()

    def release(self) -> None:
        """What was answered has gone out. Until then a stage may keep it, so as not to pay for it twice when a
        micro-batch that was interrupted by StageUnavailable is run again."""

    def _attempt(self, batch: Sequence[Item], prepared: Future[Any]) -> list[Result | Failure] | None:
        """The results of one batch, or None if memory did not hold it; then the next ones are half as large."""
        try:
            results = self._isolated(batch, prepared.result)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            results = None
        # only here, with the error, are the tensors of its frames gone
        if results is None:
            self._set_size(len(batch) // 2)
            sys.modules["torch"].cuda.empty_cache()
        elif len(batch) == self._size < self.settings.batch_size:
            self._good += 1
            if self._good >= GROW_AFTER:
                self._set_size(min(2 * self._size, self.settings.batch_size))
        return results

    def _set_size(self, size: int) -> None:
        self._size, self._good = size, 0

    def _isolated(self, batch: Sequence[Item], prepared: Callable[[], Any]) -> list[Result | Failure]:
        """The results of one batch; raises out of memory if half of it might do."""
        try:
            results = self.compute(prepared())
            if len(results) != len(batch):
                raise RuntimeError(f"{self.name} gave {len(results)} results for {len(batch)} items")
            return list(results)
        except (StageUnavailable, StageUnfit):
            raise
        except Exception as error:
            if len(batch) == 1:
                return [Failure(self.name, type(error).__name__, str(error))]
            if _is_out_of_memory(error):
                raise
        middle = len(batch) // 2
        return [
            result
            for half in (batch[:middle], batch[middle:])
            for result in self._isolated(half, functools.partial(self.prepare, half))
        ]


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU's memory did not suffice. Workers without models import this module, hence no import of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


CaptionerStage = Stage[CaptionRequest, str]
DetectorStage = Stage[Image.Image, list[Detection]]
SegmenterStage = Stage[Image.Image, list[Segment]]
OcrStage = Stage[Image.Image, list[ReadLine]]
MatcherStage = Stage[Pair, float]
ComposerStage = Stage[ComposeRequest, str]
