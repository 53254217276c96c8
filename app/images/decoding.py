"""Images of requests are decoded in a pool of processes, with a bound on those that wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from app.problems import ProblemError
from strata.images import DecodersUnavailable, DecodingPool, ImageError, without_metadata

Result = TypeVar("Result")

PROCESSES = 2
MAX_WAITING = 64  # requests that wait for their turn
WAITING_BYTES = 24 * 2**20  # of their images; the first one may have more
PICTURE_PIXELS = 16_000_000  # of an image that is drawn on: a larger one is shrunk
PICTURE_BYTES = 320 * 2**20  # that drawing on it and encoding it may take


class Decoder:
    """Decodes the images of some requests at a time; the others wait for their turn.

    max_pixels: the largest image. keep_metadata: leave what images say beside their pixels. waiting: how many images
    wait or are decoded now.
    """

    def __init__(self, max_pixels: int, keep_metadata: bool = False) -> None:
        self.keep_metadata = keep_metadata
        self.pool = DecodingPool(max_pixels, PROCESSES)
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="decode")
        self.waiting = self._bytes = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the processes, so that the first image need not wait for them."""
        self.pool.start()

    async def checked(self, data: bytes) -> bytes:
        """An upload as it is stored, without metadata; it is decoded once.

        Raises ProblemError if it cannot be decoded, or if too many requests wait.
        """
        try:
            return await self._in_turn(data, lambda: self._checked(data))
        except ImageError as error:
            errors = [{"type": error.kind, "location": ["body", "file"], "message": error.detail}]
            raise ProblemError("invalid-image", str(error), errors) from error

    def _checked(self, data: bytes) -> bytes:
        try:
            clean = data if self.keep_metadata else without_metadata(data)
        except ImageError:
            self.pool.check(data)  # what cannot be decoded has an error that tells more
            raise
        self.pool.check(clean)
        return clean

    async def shown(self, data: bytes) -> bytes:
        """An image of a shard as it is sent to callers, without metadata. Raises ImageError."""
        return data if self.keep_metadata else await self._in_turn(data, lambda: without_metadata(data))

    async def use(
        self, data: bytes, act: Callable[[Image.Image], Result], most: int = PICTURE_PIXELS, extra: int = PICTURE_BYTES
    ) -> Result:
        """The result of act for an image's pixels, in a thread. An image of more than `most` pixels is shrunk.

        extra: the bytes that act may take. Raises ImageError, and ProblemError if too many requests wait.
        """

        def decode_and_act() -> Result:
            with self.pool.decoded(data, most=most, extra=extra) as image:
                return act(image)

        return await self._in_turn(data, decode_and_act)

    async def _in_turn(self, data: bytes, act: Callable[[], Result]) -> Result:
        """The result of act, in a thread, after those who came before. Raises ProblemError if too many wait."""
        with self._lock:
            if self.waiting >= PROCESSES + MAX_WAITING or (self._bytes and self._bytes + len(data) > WAITING_BYTES):
                raise ProblemError("too-busy", f"{self.waiting} images wait to be decoded; send this one again later")
            self.waiting += 1
            self._bytes += len(data)
        future = self._threads.submit(act)
        future.add_done_callback(lambda _: self._leave(len(data)))
        try:
            # a caller that goes away before its turn is passed over
            return await asyncio.wrap_future(future)
        except DecodersUnavailable as error:
            raise ProblemError("too-busy", str(error)) from error

    def _leave(self, size: int) -> None:
        with self._lock:
            self.waiting -= 1
            self._bytes -= size

    def close(self) -> None:
        """End the processes and the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.pool.close()
