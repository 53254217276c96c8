"""Measure the bare forward passes: the time of a vision group's models alone.

The features of all items are on the device before. Counted are the seconds inside the models' own calls (encode,
generate, forward, the OCR's network), at the fastest batch size. A stage's work around these calls (copying results
back, boxes, thresholds, non-maximum suppression) is not counted. Items and lengths are those of our pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from models.base import Stage
from models.stages.captioner import Blip2Captioner, FlorenceCaptioner
from models.stages.detector import FlorenceDetector, LabelDetector
from models.stages.matcher import Blip2Matcher, OpenClipMatcher
from models.stages.ocr import RapidOcr
from models.stages.qwen_vl import QwenVLCaptioner, QwenVLMatcher
from models.stages.segmenter import ClassicalSegmenter, SamSegmenter

SIZES = (8, 16, 32, 64, 128, 256)  # batches tried, one of each


@dataclass(frozen=True)
class Bare:
    """The seconds of one stage's models for all its items, and the batch size."""

    seconds: float
    batch_size: int
    items: int


def calls_of(stage: Any) -> list[tuple[Any, str]]:
    """The calls in which a stage's models compute, as (object, method name). Raises KeyError for an unknown stage."""
    if isinstance(stage, RapidOcr):
        return [(network.session, "run") for network in networks_of(stage)]
    if isinstance(stage, ClassicalSegmenter):
        return [(stage, "compute")]  # without weights the algorithm itself is measured
    if isinstance(stage, SamSegmenter):
        return [(stage._model, "get_image_embeddings"), (stage._decoder, "forward")]
    names = {
        FlorenceCaptioner: ("generate",),
        Blip2Captioner: ("generate",),
        QwenVLCaptioner: ("generate",),
        FlorenceDetector: ("generate",),
        LabelDetector: ("forward",),
        OpenClipMatcher: ("encode_image", "encode_text"),
        Blip2Matcher: ("forward",),
        QwenVLMatcher: ("forward",),
    }
    # subclasses count as their base class
    kind = next(kind for kind in names if isinstance(stage, kind))
    model = stage._encoders.model if isinstance(stage, OpenClipMatcher) else stage._model
    return [(model, name) for name in names[kind]]


def networks_of(stage: RapidOcr) -> list[Any]:
    """The `session` of each of rapidocr's wrappers around onnxruntime's sessions, in all engines of the stage."""
    parts = [part for engine in stage._engines for part in (engine.text_det, engine.text_cls, engine.text_rec)]
    return [part.session for part in parts if part is not None]


class Clock:
    """The seconds spent in some calls while the block runs; a GPU's work is waited for.

    threads: that share the calls.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self.spent: list[float] = []

    @property
    def seconds(self) -> float:
        """The seconds per thread if the work were equally distributed."""
        return sum(self.spent) / self.threads

    @contextmanager
    def around(self, calls: Sequence[tuple[Any, str]]) -> Iterator[None]:
        for owner, name in calls:
            setattr(owner, name, self._timed(getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name in calls:
                delattr(owner, name)  # restores the class's own method

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            finish()
            started = time.perf_counter()
            answer = call(*arguments, **named)
            finish()
            self.spent.append(time.perf_counter() - started)
            return answer

        return timed


def finish() -> None:
    """Wait until the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bare(stage: Stage[Any, Any], items: Sequence[Any]) -> Bare:
    """Measure a stage's models on all items, at the largest batch size before the time per item grows."""
    sizes = [size for size in SIZES if size // 2 < len(items)] or [SIZES[0]]
    _seconds(stage, items[: sizes[0]], sizes[0])  # to warm up
    # try growing batch sizes while the time per item falls
    best, fastest = sizes[0], float("inf")
    for size in sizes:
        some = items[:size]
        try:
            an_item = _seconds(stage, some, size) / len(some)
        except torch.OutOfMemoryError:
            break
        if an_item > fastest:
            break
        best, fastest = size, an_item
    return Bare(_seconds(stage, items, best), best, len(items))


def _seconds(stage: Stage[Any, Any], items: Sequence[Any], size: int) -> float:
    # preparation is not counted
    prepared = [stage.prepare(items[start : start + size]) for start in range(0, len(items), size)]
    clock = Clock(len(stage._engines) if isinstance(stage, RapidOcr) else 1)
    with clock.around(calls_of(stage)):
        for batch in prepared:
            stage.compute(batch)
    return clock.seconds
