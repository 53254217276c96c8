"""A pool of processes that decode images: a hostile image costs bounded memory and time, and harms no other image.

The parent reads the header in Python (`formats.py`), waits until the memory that the image needs fits into the budget
of the pool, copies the file into memory that it shares with one process, and waits for the reply. The process has
limits of its own (`sandbox.py`). One that ends, or that does not answer in time, is replaced.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from PIL import Image

from strata.errors import StrataError
from strata.images.formats import (
    KINDS,
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

log = logging.getLogger(__name__)

PROCESSES = 2
LARGEST_FILE = 512 * MIB
KEPT_BYTES = 16 * MIB  # of shared memory that stays allocated between two images
START_SECONDS = 120.0  # for a process to import Pillow, on a machine that is busy
# a process that is starved, stopped or swapped out is given up; its own clock of processor time ends a busy one
PATIENCE, SLOWNESS = 60.0, 4.0  # seconds on the clock: these, and so many for each second of processor time
ENDED_BY_TIME = (-signal.SIGPROF, -signal.SIGXCPU)
ENDED_FROM_OUTSIDE = (None, -signal.SIGKILL, -signal.SIGTERM)  # None: it gave no answer in time
_REPLY_BYTES = 4096
# a BMP of one white pixel, which any process can decode unless the machine prevents it
_PICTURE = b"BM" + struct.pack("<IIIIiiHHIIiiII", 58, 0, 54, 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + b"\xff\xff\xff\0"
# the parent's own variables may have secrets; malloc gives large blocks back, and numpy starts no threads
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * MIB),
    "MALLOC_TRIM_THRESHOLD_": str(16 * MIB),
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUTF8": "1",
}


class DecodersUnavailable(StrataError):
    """The decoding processes cannot be started, or are ended from outside: no image is at fault. Try again later."""


class _Ended(Exception):
    """The process ended, or was given up, while it decoded an image. code: its exit code, None if it was given up."""

    def __init__(self, code: int | None) -> None:
        told = "gave no answer in time" if code is None else f"ended with {code}"
        with suppress(ValueError, TypeError):
            told = f"was ended by {signal.Signals(-cast(int, code)).name}"
        super().__init__(f"the decoder {told}")
        self.code = code


class _Fault(_Ended):
    """An error in the process that is not foreseen. The process may be damaged, and is not used any more."""

    def __init__(self, detail: str) -> None:
        super().__init__(0)
        self.args = (f"the decoder failed: {detail}",)


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
        self._free: deque[_Process] = deque()
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

        most: a picture with more pixels is shrunk by a whole number. Raises ImageError and DecodersUnavailable.
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
        except _Ended as error:
            if error.code in ENDED_BY_TIME:
                raise _too_slow(request) from None
            log.warning("an image of %d bytes is decoded once more, alone: %s", len(data), error)
        held.close()
        held.enter_context(self.budget.holding(self.budget.size))
        try:
            return self._asked(data, request)
        except _Ended as error:
            if error.code in ENDED_BY_TIME:
                raise _too_slow(request) from None
            # from outside, as by the kernel for lack of memory; or nothing can be decoded on this machine
            if error.code in ENDED_FROM_OUTSIDE or not self._is_able():
                raise DecodersUnavailable(f"an image of {len(data):,} bytes cannot be decoded: {error}") from None
            kind: Kind = "unsupported" if isinstance(error, _Fault) else "decoder_crashed"
            raise ImageError(kind, str(error)) from None

    def _is_able(self) -> bool:
        """Whether a process can decode the pool's own small picture."""
        try:
            return self._asked(_PICTURE, _request(_PICTURE, self.max_pixels, None)).size == (1, 1)
        except (_Ended, ImageError):
            return False

    def _asked(self, data: bytes, request: Mapping[str, Any]) -> Image.Image:
        process = self._take()
        try:
            return process.decode(data, request)
        finally:
            self._give_back(process)

    def _take(self) -> _Process:
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

    def _give_back(self, process: _Process) -> None:
        with self._changed:
            usable = process.alive and not self._closed
            if usable:
                self._free.append(process)
            elif not self._closed:
                self._unstarted += 1
            self._changed.notify()
        if not usable:
            process.end()

    def _new(self) -> _Process:
        return _Process(self._room)


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


class _Process:
    """One decoding process, and the memory that it shares with this one. It may be used by one thread at a time.

    room: bytes of a file or of pixels; memory is taken only for what is used. alive: whether it can be asked again.
    """

    def __init__(self, room: int) -> None:
        self.alive, self._ready, self._used = True, False, 0
        try:
            file = _shared_file(room)
        except OSError as error:
            raise _no_process(error) from error
        try:
            self._socket, theirs = socket.socketpair()
        except OSError as error:
            os.close(file)
            raise _no_process(error) from error
        try:
            self._memory = mmap.mmap(file, room)
            numbers = (theirs.fileno(), file)
            command = [sys.executable, "-P", "-S", "-m", "strata.images.child", *map(str, numbers), str(room)]
            folders = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
            self._process = subprocess.Popen(
                command,
                env={**_ENVIRONMENT, "PYTHONPATH": folders},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=numbers,
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends its children
            )
        except OSError as error:
            self._socket.close()
            raise _no_process(error) from error
        finally:
            theirs.close()
            os.close(file)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def decode(self, data: bytes, request: Mapping[str, Any]) -> Image.Image:
        """The pixels of a file, or an empty image if none are wanted.

        Raises ImageError, _Ended and DecodersUnavailable.
        """
        self._await_start()
        self._memory[: len(data)] = data
        self._used = max(self._used, len(data))
        with suppress(OSError):  # it has ended: the reply tells that
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        reply = self._reply(PATIENCE + SLOWNESS * request["seconds"])
        self.alive = not reply.get("grown")
        if "kind" in reply:
            raise ImageError(reply["kind"], reply["detail"])
        if "short" in reply:
            raise DecodersUnavailable(reply["short"])
        if "fault" in reply:
            self.alive = False
            raise _Fault(reply["fault"])
        size = reply["width"], reply["height"]
        try:
            image = self._image(size) if request["pixels"] else Image.new("RGB", (0, 0))
        except MemoryError:
            detail = f"there is no memory for a picture of {size[0]} × {size[1]} pixels"
            raise DecodersUnavailable(detail) from None
        self._forget()
        return image

    def _image(self, size: tuple[int, int]) -> Image.Image:
        """The pixels in the shared memory."""
        length = 3 * size[0] * size[1]
        self._used = max(self._used, length)
        if not length:
            return Image.new("RGB", size)
        with memoryview(self._memory) as whole, whole[:length] as pixels:
            return Image.frombytes("RGB", size, pixels)

    def _await_start(self) -> None:
        if self._ready:
            return
        try:
            self._ready = "ready" in self._reply(START_SECONDS)
        except _Ended as error:
            raise DecodersUnavailable(f"a decoding process does not start: {error}") from error

    def _reply(self, seconds: float) -> dict[str, Any]:
        """The next message. Raises _Ended; the process cannot be used any more then."""
        self._socket.settimeout(seconds)
        line = b""
        try:
            while not line.endswith(b"\n") and len(line) < _REPLY_BYTES:
                piece = self._socket.recv(_REPLY_BYTES)
                if not piece:
                    break
                line += piece
            # the process has read hostile bytes: what it says is checked
            return _checked(json.loads(line), len(self._memory))
        except TimeoutError:
            code = None
        except (OSError, ValueError):
            code = self._code()
        self.alive = False
        raise _Ended(code)

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
        self.alive = False
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._memory.close()


def _no_process(error: OSError) -> DecodersUnavailable:
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


def _checked(reply: Any, room: int) -> dict[str, Any]:
    """A reply of the known form. Raises ValueError."""
    match reply:
        case {"ready": True} | {"fault": str()} | {"short": str()}:
            return dict(reply)
        case {"kind": str(kind), "detail": str()} if kind in KINDS:
            return dict(reply)
        case {"width": int(width), "height": int(height)} if min(width, height) >= 0 and 3 * width * height <= room:
            return dict(reply)
    raise ValueError("not a reply")
