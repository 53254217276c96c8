"""Uploaded images are decoded once, to refuse those that cannot be decoded, with a bound on the pixels in flight."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from PIL import Image

from app.problems import ProblemError
from strata.core import ImageError, decode, size_of

Result = TypeVar("Result")

PIXELS_IN_FLIGHT = 100_000_000  # of all images that are decoded at a time; a decoded pixel takes 3 to 8 bytes
MAX_WAITING = 64  # requests that wait for their turn, each with its body in memory
RETRY_SECONDS = 2


class PixelGate:
    """Lets so many pixels through at a time, in the order in which they came. Use it in one event loop.

    An image with more pixels than all of them passes alone.
    """

    def __init__(self, pixels: int = PIXELS_IN_FLIGHT, max_waiting: int = MAX_WAITING) -> None:
        self.pixels, self.max_waiting = pixels, max_waiting
        self.in_flight = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def passing(self, pixels: int) -> AsyncIterator[None]:
        """Wait for the turn of an image, which ends with the block. Raises ProblemError if too many requests wait."""
        weight = min(pixels, self.pixels)
        if self._waiting or self.in_flight + weight > self.pixels:
            await self._wait(weight)
        else:
            self.in_flight += weight
        try:
            yield
        finally:
            self.in_flight -= weight
            self._admit()

    async def _wait(self, weight: int) -> None:
        if len(self._waiting) >= self.max_waiting:
            detail = f"{len(self._waiting)} images wait to be decoded; send this one again later"
            raise ProblemError("too-busy", detail, headers={"Retry-After": str(RETRY_SECONDS)})
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((weight, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # the caller went away: in the queue, or in the moment of its turn
            if turn.done() and not turn.cancelled():
                self.in_flight -= weight
            self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
            self._admit()
            raise

    def _admit(self) -> None:
        """Give those who wait their turn, as far as there is room for the first of them."""
        while self._waiting and self.in_flight + self._waiting[0][0] <= self.pixels:
            weight, turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += weight
                turn.set_result(None)


class Decoder:
    """Decodes images in threads of its own. max_pixels: the largest image; close: end the threads."""

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels, self.gate = max_pixels, PixelGate()
        # the decoders of Pillow use one core each, and let other threads run
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")

    async def check(self, data: bytes) -> None:
        """Decode an upload and forget it. Raises ProblemError if it cannot be decoded, or if too many requests wait."""
        try:
            await self.use(data, lambda image: None)
        except ImageError as error:
            errors = [{"type": error.kind, "location": ["body", "file"], "message": error.detail}]
            raise ProblemError("invalid-image", str(error), errors) from error

    async def use(self, data: bytes, act: Callable[[Image.Image], Result]) -> Result:
        """The result of act for an image's pixels, in a thread. Raises ImageError, and ProblemError as `check` does."""
        # the size is in the header, so it is known before the pixels need memory
        loop = asyncio.get_running_loop()
        width, height = await loop.run_in_executor(self._threads, size_of, data, self.max_pixels)
        # the pixels are freed in the thread, before the gate lets others pass
        async with self.gate.passing(width * height):
            return await loop.run_in_executor(self._threads, lambda: act(decode(data, self.max_pixels)))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
