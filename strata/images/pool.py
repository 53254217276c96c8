"""A pool of processes that decode images: a hostile image costs bounded memory and time, and harms no other image.

The parent reads the header in Python (`formats.py`), waits until the memory that the image needs fits into the budget
of the pool, and gives the file to one process (`process.py`), which has limits of its own (`sandbox.py`). A process
that ends, or that does not answer in time, is replaced. All are forks of one that has imported what they need
(`child.py`).
"""

from __future__ import annotations

import logging
import os
import signal
import struct
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image

from strata.forks import ONE_THREAD, Template
from strata.images.formats import (
    CPU_SECONDS,
    MEMORY,
    MIB,
    SPARE_MEMORY,
    ImageError,
    Kind,
    inspect,
    memory_limit,
    memory_of,
    refuse_costly,
    seconds_of,
)
from strata.images.process import (
    DecoderEnded,
    DecoderFault,
    DecodersUnavailable,
    DecodingProcess,
    Wanted,
    not_started,
)

log = logging.getLogger(__name__)

PROCESSES = 2
# of the processes: the parent's own variables may have secrets; malloc gives large blocks back
ENVIRONMENT = {
    **ONE_THREAD,
    "MALLOC_MMAP_THRESHOLD_": str(4 * MIB),
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(16 * MIB),
    "PYTHONUTF8": "1",
}
LARGEST_FILE = 512 * MIB
# of files that are decoded with one question, since asking takes as long as decoding a small one: bytes of pixels
MEMORY_TOGETHER = 8 * MIB
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

    max_pixels: the largest image. processes: how many there are at most; each starts with the first image that finds
    none free. memory: bytes that all decoding may take at a time, beside what the processes need at rest.
    """

    def __init__(self, max_pixels: int, processes: int = PROCESSES, memory: int = MEMORY) -> None:
        self.max_pixels = max_pixels
        self.budget = Budget(max(memory, memory_limit(max_pixels)))
        self._free: deque[DecodingProcess] = deque()
        self._room = max(3 * max_pixels, LARGEST_FILE)
        self._unstarted, self._closed = processes, False
        self._changed = threading.Condition()
        self._template: Template | None = None

    def start(self) -> None:
        """Start now what the processes are forked from, without waiting for it. Raises DecodersUnavailable."""
        with self._changed:
            self._living_template()

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
        with ExitStack() as held:
            yield self._image(data, _wanted(data, self._limit(max_pixels), most), extra, held)

    def decode_all(
        self, files: Sequence[bytes], max_pixels: Sequence[int | None], most: int | None = None
    ) -> list[Image.Image | ImageError]:
        """The pixels of many files, in order, or why there are none. max_pixels, most: of each file, as for `decode`.

        Raises DecodersUnavailable.
        """
        found: list[Image.Image | ImageError | Wanted] = []
        for data, limit in zip(files, max_pixels, strict=True):
            try:
                found.append(_wanted(data, self._limit(limit), most))
            except ImageError as error:
                found.append(error)
        asked = [(row, one) for row, one in enumerate(found) if isinstance(one, Wanted)]
        for together in _together(asked):
            images = self._images([files[row] for row, _ in together], [one for _, one in together])
            for (row, _), image in zip(together, images, strict=True):
                found[row] = image
        return [one for one in found if not isinstance(one, Wanted)]

    def _limit(self, max_pixels: int | None) -> int:
        return min(max_pixels or self.max_pixels, self._room // 3)

    def check(self, data: bytes) -> None:
        """Decode an image and forget it. Raises ImageError and DecodersUnavailable."""
        with ExitStack() as held:
            self._image(data, _wanted(data, self.max_pixels, None)._replace(pixels=False), 0, held)

    def close(self) -> None:
        """End all processes."""
        with self._changed:
            self._closed, self._unstarted = True, 0
            processes, self._free = list(self._free), deque()
            template, self._template = self._template, None
            self._changed.notify_all()
        for process in processes:
            process.end()
        if template is not None:
            template.end()

    def __enter__(self) -> DecodingPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _images(self, files: Sequence[bytes], wanted: Sequence[Wanted]) -> list[Image.Image | ImageError]:
        """Decode files together, and those that are not decoded then, each alone.

        So no image fails by another one, which may have ended the process or have used up its memory.
        """
        found: Sequence[Image.Image | ImageError | None] = [None] * len(files)
        if len(files) > 1:
            try:
                with self.budget.holding(_memory(wanted)):
                    found = self._asked(files, wanted)
            except DecoderEnded as error:
                log.warning("%d images are decoded once more, each alone: %s", len(files), error)
        asked = zip(files, wanted, found, strict=True)
        return [image if isinstance(image, Image.Image) else self._alone(data, one) for data, one, image in asked]

    def _alone(self, data: bytes, wanted: Wanted) -> Image.Image | ImageError:
        with ExitStack() as held:
            try:
                return self._image(data, wanted, 0, held)
            except ImageError as error:
                return error

    def _image(self, data: bytes, wanted: Wanted, extra: int, held: ExitStack) -> Image.Image:
        """The decoded pixels. If the process ends, and that may not be the image's fault, it is tried once more, alone.

        held: gets what is held of the budget.
        """
        try:
            held.enter_context(self.budget.holding(max(wanted.memory, extra)))
            return self._only(data, wanted)
        except DecoderEnded as error:
            if error.code in ENDED_BY_TIME:
                raise _too_slow(wanted) from None
            log.warning("an image of %d bytes is decoded once more, alone: %s", len(data), error)
        held.close()
        held.enter_context(self.budget.holding(self.budget.size))
        try:
            return self._only(data, wanted)
        except DecoderEnded as error:
            if error.code in ENDED_BY_TIME:
                raise _too_slow(wanted) from None
            # from outside, as by the kernel for lack of memory; or nothing can be decoded on this machine
            if error.code in ENDED_FROM_OUTSIDE or not self._is_able():
                raise DecodersUnavailable(f"an image of {len(data):,} bytes cannot be decoded: {error}") from None
            kind: Kind = "unsupported" if isinstance(error, DecoderFault) else "decoder_crashed"
            raise ImageError(kind, str(error)) from None

    def _is_able(self) -> bool:
        """Whether a process can decode the pool's own small picture."""
        try:
            return self._only(_PICTURE, _wanted(_PICTURE, self.max_pixels, None)).size == (1, 1)
        except (DecoderEnded, ImageError):
            return False

    def _only(self, data: bytes, wanted: Wanted) -> Image.Image:
        (found,) = self._asked([data], [wanted])
        if isinstance(found, ImageError):
            raise found
        return found

    def _asked(self, files: Sequence[bytes], wanted: Sequence[Wanted]) -> list[Image.Image | ImageError]:
        process = self._take()
        try:
            # a hostile image among several may use no more time than alone, beside what the others need
            seconds = CPU_SECONDS + sum(one.seconds - CPU_SECONDS for one in wanted)
            return process.decode(files, wanted, _memory(wanted), seconds)
        finally:
            self._give_back(process)

    def _take(self) -> DecodingProcess:
        with self._changed:
            while not self._free:
                if self._closed:
                    raise DecodersUnavailable("the decoding processes are closed")
                if self._unstarted:
                    self._unstarted -= 1
                    break
                self._changed.wait()
            else:
                # the process that was used last has its memory in the caches
                return self._free.pop()
        try:
            return self._new()
        except BaseException:
            with self._changed:
                self._unstarted += 1
                self._changed.notify()
            raise

    def _give_back(self, process: DecodingProcess) -> None:
        with self._changed:
            self._free.append(process)
            # with what they are forked from, all have ended
            ended = [one for one in self._free if self._closed or not one.alive]
            self._free = deque(one for one in self._free if one not in ended)
            self._unstarted += 0 if self._closed else len(ended)
            self._changed.notify_all()
        for one in ended:
            one.end()

    def _new(self) -> DecodingProcess:
        """A new process, also if what it is forked from has ended. Raises DecodersUnavailable."""
        with self._changed:
            template = self._living_template()
        try:
            return DecodingProcess(template, self._room)
        except DecodersUnavailable:
            if template.alive or not template.was_ready:
                raise
        with self._changed:
            template = self._living_template()
        return DecodingProcess(template, self._room)

    def _living_template(self) -> Template:
        if self._closed:
            raise DecodersUnavailable("the decoding processes are closed")
        if self._template is None or not self._template.alive:
            folders = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
            command = [sys.executable, "-P", "-S", "-m", "strata.images.child"]
            try:
                self._template = Template("decoding processes", command, {**ENVIRONMENT, "PYTHONPATH": folders})
            except OSError as error:
                raise not_started(error) from error
        return self._template


def _together(asked: Sequence[tuple[int, Wanted]]) -> Iterator[list[tuple[int, Wanted]]]:
    """Files in groups of small ones, in order; a large one is alone."""
    group, total = list[tuple[int, Wanted]](), 0
    for row, one in asked:
        own = one.memory - SPARE_MEMORY
        if group and total + own > MEMORY_TOGETHER:
            yield group
            group, total = [], 0
        group.append((row, one))
        total += own
    if group:
        yield group


def _memory(wanted: Sequence[Wanted]) -> int:
    """Bytes that decoding files one after another may take: what the largest needs, and all files."""
    return max(one.memory for one in wanted) + (sum(one.size for one in wanted) if len(wanted) > 1 else 0)


def _wanted(data: bytes, max_pixels: int, most: int | None) -> Wanted:
    """What a process is asked for. Raises ImageError for what its header shows already."""
    if not data:
        raise ImageError("empty", "there are no bytes")
    if len(data) > LARGEST_FILE:
        raise ImageError("too_costly", f"a file of {len(data):,} bytes; at most {LARGEST_FILE:,} are decoded")
    header = inspect(data)
    refuse_costly(header, max_pixels)
    memory, seconds = memory_of(header, len(data), max_pixels), seconds_of(header, len(data), max_pixels)
    whole = header is not None and header.format == "JPEG" and header.ended
    return Wanted(len(data), max_pixels, max_pixels if most is None else most, memory, seconds, whole=whole)


def _too_slow(wanted: Wanted) -> ImageError:
    return ImageError("too_costly", f"decoding takes more than {wanted.seconds:.1f} s of processor time")
