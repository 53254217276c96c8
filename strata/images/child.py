"""The template process and the decoding processes, which are its forks.

Started by `pool.py` as `python -m strata.images.child SOCKET`. The template imports Pillow and numpy, decodes a picture
of each format and mode, so that nothing is left to import, and forks (`strata.forks`); it never sees a caller's bytes.
A fork enters the sandbox, reads requests from a socket of its own, and puts pixels into memory that it shares with the
process that asks. Each ends when its socket does.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import mmap
import os
import socket
import sys
import warnings
from typing import Any

from PIL import Image

from strata.forks import fork_when_asked
from strata.images.decoding import Frame, decode
from strata.images.formats import FORMATS, MIB, ImageError
from strata.images.sandbox import Sandbox

# what Pillow and Python import only when an image needs it; a test compares this with Pillow's source
_IMPORTED_LATE = (
    *("ImageCms", "ImageColor", "ImageFilter", "ImageMath", "ImageOps", "ImagePalette", "MpoImagePlugin"),
    *("BmpImagePlugin", "GifImagePlugin", "JpegImagePlugin", "PngImagePlugin", "PpmImagePlugin", "TiffImagePlugin"),
    *("TiffTags", "WebPImagePlugin", "AvifImagePlugin", "ImageChops", "ImageMorph", "ImageSequence", "ImageTransform"),
)
_ENCODINGS = ("ascii", "latin_1", "utf_8", "utf_8_sig", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "cp1252")
_MODES = (
    *(("I;16", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("F", "TIFF"), ("1", "TIFF")),
    *(("LAB", "TIFF"), ("YCbCr", "TIFF"), ("CMYK", "TIFF"), ("RGBA", "TIFF"), ("I", "TIFF"), ("RGBA", "WEBP")),
)
# pictures of 8 × 8 pixels, written by Pillow and pillow-heif
_AVIF = (
    b"AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAO"
    b"cGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAIQAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAA"
    b"AABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAACAAAAAgAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAG"
    b"gAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAKW1kYXQSAAoIGAi/aICGg0IyEx7Hh4VZ3///4s/AAJA2IJvX7LA="
)
_HEIC = (
    b"AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    b"AAAAAERAAAEAAQAAAAABoAABAAAAAAAAACIAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/Glw"
    b"cnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AA"
    b"AAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABA"
    b"AAAAQAAAAChjbGFwAAAACAAAAAEAAAAIAAAAAf///8gAAAAC////yAAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYEC"
    b"AwWEAAAAKm1kYXQAAAAeKAGvBBISTOD4BE5j/ulUVQEgrOi0dKHIlxCTu2rA"
)
LEAK = 16 * MIB  # of address space that a process may keep after an image; then it asks to be replaced


def main() -> None:
    """Fork a decoding process for each that is asked for."""
    _warm_up()
    # messages of libraries would fill the log of the service; errors of the start go there
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)
    task = fork_when_asked(int(sys.argv[1]))
    if task is not None:
        connection, memory = task.descriptors
        _serve(socket.socket(fileno=connection), mmap.mmap(memory, task.task))


def _serve(connection: socket.socket, memory: mmap.mmap) -> None:
    """Answer requests in the sandbox until the socket is closed."""
    sandbox = Sandbox(threads="HEIF" in Image.OPEN)
    connection.sendall(b'{"ready": true}\n')
    with connection.makefile("rb") as requests:
        for request in requests:
            reply = _reply(json.loads(request), memory, sandbox)
            connection.sendall(json.dumps(reply).encode() + b"\n")


def _reply(request: dict[str, Any], memory: mmap.mmap, sandbox: Sandbox) -> dict[str, Any]:
    """The answers for the images of a request, whose files lie one after another in the shared memory.

    The pixels of those that are decoded take the place of the files, one after another too.
    """
    files, position = [], 0
    for image in request["images"]:
        files.append(memory[position : position + image["size"]])
        position += image["size"]
    enough = sandbox.allow(request["memory"], request["seconds"])
    answers, position = [], 0
    for image, data in zip(request["images"], files, strict=True):
        answers.append(_answer(image, data, memory, position, enough))
        position += 3 * answers[-1].get("width", 0) * answers[-1].get("height", 0)
    sandbox.rest()
    return {"images": answers, "grown": sandbox.grown > LEAK}


def _answer(image: dict[str, Any], data: bytes, memory: mmap.mmap, position: int, enough: bool) -> dict[str, Any]:
    """The size of an image's pixels, which lie at a position of the shared memory, or why there are none."""
    try:
        reply = _decoded(image, data, memory, position)
    except ImageError as error:
        reply = {"kind": error.kind, "detail": error.detail}
    except MemoryError:
        reply = {"kind": "too_costly", "detail": "decoding takes more memory than its size allows"}
    # an error that is not foreseen: the parent judges it
    except Exception as error:
        reply = {"fault": f"{type(error).__name__}: {error}"[:300]}
    # the service's own limit, and not the image, may be the cause
    if not enough and reply.get("kind") in ("too_costly", "truncated", "decoder_crashed"):
        reply = {"short": f"the service's limit of address space is too low: {reply['detail']}"[:300]}
    return reply


def _decoded(image: dict[str, Any], data: bytes, memory: mmap.mmap, position: int) -> dict[str, Any]:
    frame = Frame(data, image["max_pixels"], image["whole"])
    # shrink a picture that has more pixels than are wanted, by a whole number
    factor = 1
    while -(-frame.width // factor) * -(-frame.height // factor) > image["most"]:
        factor += 1
    width, height = -(-frame.width // factor), -(-frame.height // factor)
    for band in frame.bands(factor):
        pixels = (band if factor == 1 else band.reduce(factor)).tobytes()
        # if only a check is wanted, it is enough that the pixels can be made
        if image["pixels"]:
            memory[position : position + len(pixels)] = pixels
            position += len(pixels)
    full = [frame.width, frame.height]
    return {"width": width, "height": height, "full": full, "missing": frame.missing}


def _warm_up() -> None:
    """Import all that decoding may need, and decode a picture of each format and mode: in the sandbox, no file can be
    opened, so that nothing can be imported.
    """
    warnings.simplefilter("ignore")  # to show a warning, Python imports modules
    for name in _IMPORTED_LATE:
        importlib.import_module(f"PIL.{name}")
    for name in _ENCODINGS:
        importlib.import_module(f"encodings.{name}")
    for picture in (_AVIF, _HEIC):
        # without pillow-heif, HEIC is not decoded
        with contextlib.suppress(ImageError):
            decode(base64.b64decode(picture), 64 * 64)
    for name in FORMATS[:6]:
        for options in ({}, {"compression": "tiff_lzw"}) if name == "TIFF" else ({},):
            buffer, exif = io.BytesIO(), Image.Exif()
            exif[0x0112] = 6
            Image.new("RGB", (8, 8)).save(buffer, name, **({} if name in ("GIF", "BMP") else {"exif": exif}), **options)
            decode(buffer.getvalue(), 64)
    for mode, name in _MODES:
        buffer = io.BytesIO()
        Image.new(mode, (8, 8)).save(buffer, name)
        decode(buffer.getvalue(), 64)


if __name__ == "__main__":
    main()
