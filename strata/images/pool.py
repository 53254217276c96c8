"""A pool of processes that decode images: a hostile image costs bounded memory and time, and harms no other image.

The parent reads the header in Python (`formats.py`), waits until the memory that the image needs fits into the budget
of the pool, and gives the file to one process (`process.py`), which has limits of its own (`sandbox.py`). A process
that ends, or that does not answer in time, is replaced.
"""

from __future__ import annotations

import logging
import signal
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from PIL import Image

from strata.images.formats import (
    MEMORY,
    MIB,
    ImageError,
    Kind,
    inspect,
    memory_limit,
    memory_of,
    refuse_costly,
    seconds_of,
)
from strata.images.process import DecoderEnded, DecoderFault, DecodersUnavailable, DecodingProcess

log = logging.getLogger(__name__)

PROCESSES = 2
LARGEST_FILE = 512 * MIB
ENDED_BY_TIME = (-signal.SIGPROF, -signal.SIGXCPU)
ENDED_FROM_OUTSIDE = (None, -signal.SIGKILL, -signal.SIGTERM)  # None: it gave no answer in time
# a BMP of one white pixel, which any process can decode unless the machine prevents it
_PICTURE = b"BM" + struct.pack("<IIIIiiHHIIiiII", 58, 0, 54, 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + b"\xff\xff\xff\0"


class Budget:
    """Lets so many bytes be in use at a time, in the order in which they were asked for.

    Who asks for more than all of them passes alone. in_use: now; most: at any time so far.
    """

    def __init__(self, size: int) -> None:
        self.size, self.in_use, self.most = size, 0, 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def holding(self, wanted: int) -> Iterator[None]:
        """Wait for the turn, which ends with the block."""
        weight, ticket = min(wanted, self.size), object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self.in_use + weight <= self.size)
                self.in_use += weight
                self.most = max(self.most, self.in_use)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.in_use -= weight
                self._changed.notify_all()


class DecodingPool:
    """Decodes images in processes of its own, from any number of threads. Close it, or use it as a context manager.

    max_pixels: the largest image. processes: how many there are at most; they start with the first image, or with
    `start`. memory: bytes that all decoding may take at a time, beside what the processes need at rest.
    """

    def __init__(self, max_pixels: int, processes: int = PROCESSES, memory: int = MEMORY) -> None:
        self.max_pixels = max_pixels
        self.budget = Budget(max(memory, memory_limit(max_pixels)))
        self._free: deque[DecodingProcess] = deque()
        self._room = max(3 * max_pixels, LARGEST_FILE)
        self._unstarted, self._closed = processes, False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start all processes now, without waiting for them."""
        with self._changed:
            while self._unstarted and not self._closed:
                self._free.append(self._new())
                self._unstarted -= 1
            self._changed.notify_all()

    def decode(self, data: bytes, max_pixels: int | None = None, most: int | None = None) -> Image.Image:
        """As `decoding.decode` does. max_pixels: another limit for this image.

        most: a picture with more pixels is shrunk by a whole number, and `info[FULL_SIZE]` has its size before. Raises
        ImageError and DecodersUnavailable.
        """
        with self.decoded(data, max_pixels, most) as image:
            return image

    @contextmanager
    def decoded(
        self, data: bytes, max_pixels: int | None = None, most: int | None = None, extra: int = 0
    ) -> Iterator[Image.Image]:
        """An image's pixels for the block, which may take `extra` bytes; its part of the budget is held until its end.

        Raises ImageError and DecodersUnavailable.
        """
        limit = min(max_pixels or self.max_pixels, self._room // 3)
        with ExitStack() as held:
            yield self._image(data, _request(data, limit, most), extra, held)

    def check(self, data: bytes) -> None:
        """Decode an image and forget it. Raises ImageError and DecodersUnavailable."""
        with ExitStack() as held:
            self._image(data, _request(data, self.max_pixels, None) | {"pixels": False}, 0, held)

    def close(self) -> None:
        """End all processes."""
        with self._changed:
            self._closed, self._unstarted = True, 0
            processes, self._free = list(self._free), deque()
            self._changed.notify_all()
        for process in processes:
            process.end()

    def __enter__(self) -> DecodingPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _image(self, data: bytes, request: Mapping[str, Any], extra: int, held: ExitStack) -> Image.Image:
        """The decoded pixels. If the process ends, and that may not be the image's fault, it is tried once more, alone.

        held: gets what is held of the budget.
        """
        try:
            held.enter_context(self.budget.holding(max(request["memory"], extra)))
            return self._asked(data, request)
        except DecoderEnded as error:
            if error.code in ENDED_BY_TIME:
                raise _too_slow(request) from None
            log.warning("an image of %d bytes is decoded once more, alone: %s", len(data), error)
        held.close()
        held.enter_context(self.budget.holding(self.budget.size))
        try:
            return self._asked(data, request)
        except DecoderEnded as error:
            if error.code in ENDED_BY_TIME:
                raise _too_slow(request) from None
            # from outside, as by the kernel for lack of memory; or nothing can be decoded on this machine
            if error.code in ENDED_FROM_OUTSIDE or not self._is_able():
                raise DecodersUnavailable(f"an image of {len(data):,} bytes cannot be decoded: {error}") from None
            kind: Kind = "unsupported" if isinstance(error, DecoderFault) else "decoder_crashed"
            raise ImageError(kind, str(error)) from None

    def _is_able(self) -> bool:
        """Whether a process can decode the pool's own small picture."""
        try:
            return self._asked(_PICTURE, _request(_PICTURE, self.max_pixels, None)).size == (1, 1)
        except (DecoderEnded, ImageError):
            return False

    def _asked(self, data: bytes, request: Mapping[str, Any]) -> Image.Image:
        process = self._take()
        try:
            return process.decode(data, request)
        finally:
            self._give_back(process)

    def _take(self) -> DecodingProcess:
        with self._changed:
            while not self._free:
                if self._closed:
                    raise DecodersUnavailable("the decoding processes are closed")
                if self._unstarted:
                    process = self._new()
                    self._unstarted -= 1
                    return process
                self._changed.wait()
            # the process that was used last has its memory in the caches
            return self._free.pop()

    def _give_back(self, process: DecodingProcess) -> None:
        with self._changed:
            usable = process.alive and not self._closed
            if usable:
                self._free.append(process)
            elif not self._closed:
                self._unstarted += 1
            self._changed.notify()
        if not usable:
            process.end()

    def _new(self) -> DecodingProcess:
        return DecodingProcess(self._room)


def _request(data: bytes, max_pixels: int, most: int | None) -> dict[str, Any]:
    """What a process is asked for. Raises ImageError for what its header shows already."""
    if not data:
        raise ImageError("empty", "there are no bytes")
    if len(data) > LARGEST_FILE:
        raise ImageError("too_costly", f"a file of {len(data):,} bytes; at most {LARGEST_FILE:,} are decoded")
    header = inspect(data)
    refuse_costly(header, max_pixels)
    return {
        "size": len(data),
        "max_pixels": max_pixels,
        "most": max_pixels if most is None else most,
        "memory": memory_of(header, len(data), max_pixels),
        "seconds": seconds_of(header, len(data), max_pixels),
        "pixels": True,
    }


def _too_slow(request: Mapping[str, Any]) -> ImageError:
    return ImageError("too_costly", f"decoding takes more than {request['seconds']:.1f} s of processor time")
