"""Stages that fail or hang when the harness orders it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.faults.orders import Orders
from models.items import CaptionRequest

# kinds of `Orders`: CUDA errors that stay in the process, out of memory once and until the process ends, a stage that
# ends the process, an error in building a pipeline, and a call that never ends, also with the interpreter's lock
STICKY_CUDA, OUT_OF_MEMORY, MEMORY_STUCK, STAGE_EXITS, BUILD_ERROR, HANG, HANG_LOCKED = (
    "sticky_cuda",
    "out_of_memory",
    "memory_stuck",
    "stage_exits",
    "build_error",
    "hang",
    "hang_locked",
)
HANG_IMAGE = "hang_image"  # a state: every call hangs that has an image of HANGING_SIZE
HANGING_SIZE = (8, 8)
FOR_EVER = 100_000  # seconds


class FaultyStages:
    """Wraps the stages of a process's pipelines. seconds: what a call costs for each item."""

    def __init__(self, orders: Orders, seconds: float) -> None:
        self._orders, self._seconds = orders, seconds
        self._broken = self._stuck = False

    def wrap(self, stage: Any) -> None:
        """Let a stage fail when it is ordered."""
        stage.compute = self._failing(stage.compute)

    def build_fails(self) -> None:
        """Raise the error that was ordered for the next building of a pipeline."""
        if self._orders.take(BUILD_ERROR):
            raise KeyError("image_processor_type")

    def _failing(self, compute: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
        def call(batch: Any) -> list[Any]:
            self._broken = self._broken or self._orders.take(STICKY_CUDA)
            if self._broken:
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            self._stuck = self._stuck or self._orders.take(MEMORY_STUCK)
            if self._stuck or self._orders.take(OUT_OF_MEMORY):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            if self._orders.take(STAGE_EXITS):
                raise SystemExit(1)
            if self._orders.take(HANG_LOCKED):
                ctypes.PyDLL(None).sleep(FOR_EVER)  # PyDLL keeps the lock
            if self._orders.take(HANG):
                time.sleep(FOR_EVER)
            if _has_hanging(batch) and self._orders.holds(HANG_IMAGE):
                self._orders.meet(HANG_IMAGE)
                time.sleep(FOR_EVER)
            if isinstance(batch, list | tuple):
                time.sleep(self._seconds * len(batch))
            return compute(batch)

        return call


def _has_hanging(batch: Any) -> bool:
    """Whether an image of the captioner's batch has HANGING_SIZE."""
    requests = batch if isinstance(batch, list | tuple) else ()
    return any(isinstance(one, CaptionRequest) and one.image.size == HANGING_SIZE for one in requests)
