"""One decoding process, as who asks it sees it: it is started, sent a file, and its reply is checked.

The process has read hostile bytes, so that nothing it sends or leaves in the shared memory is trusted. `child.py` is
what runs in it.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

from PIL import Image

from strata.errors import StrataError
from strata.forks import Template, TemplateEnded
from strata.images.decoding import FULL_SIZE, MISSING
from strata.images.formats import KINDS, MIB, ImageError

KEPT_BYTES = 16 * MIB  # of shared memory that stays allocated between two images
START_SECONDS = 120.0  # for a process to enter its sandbox, on a machine that is busy
# a process that is starved, stopped or swapped out is given up; its own clock of processor time ends a busy one
PATIENCE, SLOWNESS = 60.0, 4.0  # seconds on the clock: these, and so many for each second of processor time
_REPLY_BYTES = 4096  # for each image


class DecodersUnavailable(StrataError):
    """The decoding processes cannot be started, or are ended from outside: no image is at fault. Try again later."""


class DecoderEnded(StrataError):
    """The process ended, or was given up, while it decoded an image. code: its exit code, None if it was given up."""

    def __init__(self, code: int | None) -> None:
        told = "gave no answer in time" if code is None else f"ended with {code}"
        with suppress(ValueError, TypeError):
            told = f"was ended by {signal.Signals(-cast(int, code)).name}"
        super().__init__(f"the decoder {told}")
        self.code = code


class DecoderFault(DecoderEnded):
    """An error in the process that is not foreseen. The process may be damaged, and is not used any more."""

    def __init__(self, detail: str) -> None:
        super().__init__(0)
        self.args = (f"the decoder failed: {detail}",)


class Wanted(NamedTuple):
    """What is wanted of a file of `size` bytes, and what decoding it may take at most.

    most: pixels of a picture, above which it is shrunk by a whole number; memory: bytes; seconds: of processor time.
    pixels: False if it is only to be found out whether the file can be decoded. whole: whether it is known to be a JPEG
    with its end, so that its segments need not be read once more.
    """

    size: int
    max_pixels: int
    most: int
    memory: int
    seconds: float
    pixels: bool = True
    whole: bool = False


class DecodingProcess:
    """One decoding process, and the memory that it shares with this one. It may be used by one thread at a time.

    template: what it is forked from; room: bytes of a file or of pixels, of which memory is taken only for what is
    used. Raises DecodersUnavailable.
    """

    def __init__(self, template: Template, room: int) -> None:
        self._template, self._usable, self._ready, self._used = template, True, False, 0
        try:
            file = _shared_file(room)
        except OSError as error:
            raise not_started(error) from error
        try:
            self._socket, theirs = socket.socketpair()
        except OSError as error:
            os.close(file)
            raise not_started(error) from error
        try:
            self._memory = mmap.mmap(file, room)
            self._process = template.fork(room, [theirs.fileno(), file])
        except (OSError, TemplateEnded) as error:
            self._socket.close()
            raise not_started(error) from error
        finally:
            theirs.close()
            os.close(file)

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._usable and self._template.alive

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def decode(
        self, files: Sequence[bytes], wanted: Sequence[Wanted], memory: int, seconds: float
    ) -> list[Image.Image | ImageError]:
        """The pixels of files, empty images where none are wanted, or why there are none.

        memory, seconds: that the process may take for all of them. Raises DecoderEnded and DecodersUnavailable.
        """
        self._await_start()
        self._memory[: sum(map(len, files))] = b"".join(files)
        self._used = max(self._used, sum(map(len, files)))
        request = {"images": [one._asdict() for one in wanted], "memory": memory, "seconds": seconds}
        with suppress(OSError):  # it has ended: the reply tells that
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        reply = self._reply(PATIENCE + SLOWNESS * seconds, len(files))
        self._usable = not reply.get("grown")
        found: list[Image.Image | ImageError] = []
        position = 0
        for answer, one in zip(reply["images"], wanted, strict=True):
            found.append(self._found(answer, one, position))
            position += 3 * answer.get("width", 0) * answer.get("height", 0)
        self._forget()
        return found

    def _found(self, answer: dict[str, Any], wanted: Wanted, position: int) -> Image.Image | ImageError:
        """What the process has found of one file, whose pixels lie at a position of the shared memory."""
        if "kind" in answer:
            return ImageError(answer["kind"], answer["detail"])
        if "short" in answer:
            raise DecodersUnavailable(answer["short"])
        if "fault" in answer:
            self._usable = False
            raise DecoderFault(answer["fault"])
        size = answer["width"], answer["height"]
        try:
            image = self._image(size, position) if wanted.pixels else Image.new("RGB", (0, 0))
        except MemoryError:
            detail = f"there is no memory for a picture of {size[0]} × {size[1]} pixels"
            raise DecodersUnavailable(detail) from None
        if answer["missing"]:
            image.info[MISSING] = answer["missing"]
        if tuple(answer["full"]) != size:
            image.info[FULL_SIZE] = tuple(answer["full"])
        return image

    def _image(self, size: tuple[int, int], position: int) -> Image.Image:
        """The pixels at a position of the shared memory."""
        end = position + 3 * size[0] * size[1]
        self._used = max(self._used, end)
        if end == position:
            return Image.new("RGB", size)
        with memoryview(self._memory) as whole, whole[position:end] as pixels:
            return Image.frombytes("RGB", size, pixels)

    def _await_start(self) -> None:
        if self._ready:
            return
        try:
            self._ready = "ready" in self._reply(START_SECONDS)
        except DecoderEnded as error:
            raise DecodersUnavailable(f"a decoding process does not start: {error}") from error

    def _reply(self, seconds: float, images: int = 0) -> dict[str, Any]:
        """The next message, which is about so many images. Raises DecoderEnded; the process cannot be used then."""
        self._socket.settimeout(seconds)
        line, most = b"", _REPLY_BYTES * max(images, 1)
        try:
            while not line.endswith(b"\n") and len(line) < most:
                piece = self._socket.recv(most)
                if not piece:
                    break
                line += piece
            # the process has read hostile bytes: what it says is checked
            return _checked(json.loads(line), len(self._memory), images)
        except TimeoutError:
            code = None
        except (OSError, ValueError):
            code = self._code()
        self._usable = False
        raise DecoderEnded(code)

    def _code(self) -> int | None:
        """How the process has ended; it is killed if it has closed its socket, or has sent nonsense."""
        try:
            return self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return -signal.SIGABRT

    def _forget(self) -> None:
        """Give the memory of a large image back to the machine."""
        if self._used > KEPT_BYTES and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, 0, -(-self._used // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._used = 0

    def end(self) -> None:
        """End the process."""
        self._usable = False
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._memory.close()


def not_started(error: Exception) -> DecodersUnavailable:
    """The error for a process that cannot be started."""
    return DecodersUnavailable(f"a decoding process cannot be started: {error}")


def _shared_file(size: int) -> int:
    """A file in memory whose size cannot be changed: a process that shrinks it would end those that read it."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    number = os.memfd_create("strata-images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(number, size)
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return number


def _checked(reply: Any, room: int, images: int) -> dict[str, Any]:
    """A reply of the known form: that the process has started, or the answers for so many images. Raises ValueError."""
    match reply:
        case {"ready": True} if not images:
            return dict(reply)
        case {"images": [*answers]} if len(answers) == images > 0:
            if sum(map(_length, answers)) <= room:
                return dict(reply)
    raise ValueError("not a reply")


def _length(answer: Any) -> int:
    """The bytes of the pixels that an answer tells of. Raises ValueError if it has none of the known forms."""
    match answer:
        case {"fault": str(), **rest} | {"short": str(), **rest} if not rest:
            return 0
        case {"kind": str(kind), "detail": str(), **rest} if kind in KINDS and not rest:
            return 0
        case {
            "width": int(width),
            "height": int(height),
            "full": [int(), int()] as full,
            "missing": str(missing),
            **rest,
        }:
            is_size = 0 <= width <= full[0] and 0 <= height <= full[1] and not rest
            if is_size and len(missing) <= 200 and missing.isprintable():
                return 3 * width * height
    raise ValueError("not an answer")
