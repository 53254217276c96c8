"""The contract of a stage: settings in the constructor, `load()`, then `run(batch)`: same length, same order.

A stage knows no queue and no store, so the worker, another engine and a test call it the same way. An item that
fails inside a batch is found by halving the batch, and the others get their results. Pixels and tokens of the next
batch are made in a thread while the model computes the current one. A batch that does not fit in memory is halved,
and the following batches have that size too.
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
from PIL import Image

from strata.core import Box, Record, StageSettings, Usage
from strata.errors import StrataError, WeightsError

StageItem = TypeVar("StageItem")
StageResult = TypeVar("StageResult")

ANY_IMAGE = Image.new("RGB", (64, 64))  # for questions whose answer does not depend on the image
GROW_AFTER = 32  # batches that fit; then twice their size is tried again: at most one batch in 33 fails by it


class WeightsMissing(WeightsError, RuntimeError):
    """A stage's weights are not on this machine; the message says which and how to get them."""


class StageUnavailable(StrataError, RuntimeError):
    """The stage cannot work now, for example because its server is away: no image fails by it; try again later."""


class StageUnfit(StrataError, RuntimeError):
    """The stage's server answers and charges, but never usefully: do not retry."""


@dataclass(frozen=True)
class Failure:
    """The result of an item that the stage could not process."""

    stage: str
    error_type: str
    detail: str


@dataclass(frozen=True)
class CaptionRequest:
    """The captioner's item. An upright RGB image; "scene" asks for a whole image, "crop" for one object's phrase."""

    image: Image.Image
    kind: Literal["scene", "crop"] = "scene"


@dataclass(frozen=True)
class Detection:
    """One of the detector's results for an image: box in pixels of the image."""

    box: Box
    phrase: str
    score: float


@dataclass(frozen=True, eq=False)
class Segment:
    """One of the segmenter's results for an image: mask is bool (H, W) of the whole image, box its tight box."""

    mask: np.typing.NDArray[np.bool_]
    box: Box
    score: float


@dataclass(frozen=True)
class ReadLine:
    """One of the OCR's results for an image: box is the upright rectangle around the line's polygon."""

    text: str
    score: float
    box: Box


@dataclass(frozen=True)
class Pair:
    """The matcher's item. The result is the probability that the phrase describes the crop."""

    crop: Image.Image
    phrase: str


@dataclass(frozen=True)
class ComposeRequest:
    """The composer's item: a record with its layers, and the upright RGB image if the composer uses it."""

    record: Record
    image: Image.Image | None = None


class Stage(ABC, Generic[StageItem, StageResult]):
    """One model's work on a batch.

    Captioner: CaptionRequest -> str. Detector: image -> list[Detection]. Segmenter: image -> list[Segment].
    Ocr: image -> list[ReadLine]. Matcher: Pair -> float. Composer: ComposeRequest -> str.

    usage: the tokens and requests of each item of the last `run`; empty for a stage that asks no server.
    """

    name: ClassVar[str]
    usage: Sequence[Usage] = ()

    def __init__(self, settings: StageSettings) -> None:
        self.settings = settings
        self._size = settings.batch_size  # the largest batch that fits in memory, as far as is known
        self._good = 0  # batches of that size that fitted since it changed

    @abstractmethod
    def load(self) -> None:
        """Bring the weights into memory. Raises WeightsMissing."""

    def prepare(self, batch: Sequence[StageItem]) -> Any:
        """The input of `compute` for a batch: its pixels and tokens on the model's device, or the batch as it is.

        Called in a thread, while `compute` may be running on the batch before. May raise.
        """
        return batch

    @abstractmethod
    def compute(self, batch: Any) -> list[StageResult]:
        """Run the model on the output of `prepare` for at most `settings.batch_size` items; results in order.

        May raise.
        """

    def run(self, batch: Sequence[StageItem]) -> list[StageResult | Failure]:
        """A result for each item of a batch of any length, in order; a Failure for items that cannot be processed.

        Raises StageUnavailable or StageUnfit when the fault is the stage's own.
        """
        done: list[StageResult | Failure] = []
        prepared: dict[tuple[int, int], Future[Any]] = {}
        with ThreadPoolExecutor(1, thread_name_prefix=self.name) as preparing:
            while len(done) < len(batch):
                # prepare this batch, if that has not been done, and the next one in the thread
                here = len(done), min(len(done) + self._size, len(batch))
                following = here[1], min(here[1] + self._size, len(batch))
                for span in (here, following):
                    if span[0] < span[1] and span not in prepared:
                        prepared[span] = preparing.submit(self.prepare, batch[slice(*span)])
                # compute; if it did not fit in memory, batches are smaller now and are prepared anew
                results = self._attempt(batch[slice(*here)], prepared.pop(here))
                if results is None:
                    prepared.clear()
                else:
                    done += results
        return done

    def bound(self, item: StageItem) -> tuple[Usage, Usage]:
        """An upper bound on what an item uses of a server: with one try, and with all tries that the stage makes."""
        return Usage(), Usage()

    def release(self) -> None:
        """Forget kept answers: the micro-batch is complete. Until then a stage may keep them, so that a micro-batch
        that StageUnavailable interrupted is not paid twice when it runs again."""

    def _attempt(self, batch: Sequence[StageItem], prepared: Future[Any]) -> list[StageResult | Failure] | None:
        """The results of one batch, or None if it did not fit in memory; then the next ones are half as large."""
        try:
            results = self._isolated(batch, prepared.result)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            results = None
        # after the except clause, so that the error's frames no longer hold the tensors
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

    def _isolated(self, batch: Sequence[StageItem], prepared: Callable[[], Any]) -> list[StageResult | Failure]:
        """The results of one batch. Raises an out-of-memory error if half of the batch may fit."""
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
    """Whether a GPU ran out of memory. torch is not imported here: workers without models import this module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


CaptionerStage = Stage[CaptionRequest, str]
DetectorStage = Stage[Image.Image, list[Detection]]
SegmenterStage = Stage[Image.Image, list[Segment]]
OcrStage = Stage[Image.Image, list[ReadLine]]
MatcherStage = Stage[Pair, float]
ComposerStage = Stage[ComposeRequest, str]
