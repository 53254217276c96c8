"""Stages that fail when the harness orders it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from bench.faults.orders import Orders

# kinds of `Orders`: CUDA errors that stay in the process, out of memory once and until the process ends, a stage that
# ends the process, and an error in building a pipeline
STICKY_CUDA, OUT_OF_MEMORY, MEMORY_STUCK, STAGE_EXITS, BUILD_ERROR = (
    "sticky_cuda",
    "out_of_memory",
    "memory_stuck",
    "stage_exits",
    "build_error",
)


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
            if isinstance(batch, list | tuple):
                time.sleep(self._seconds * len(batch))
            return compute(batch)

        return call
