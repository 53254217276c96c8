"""What a file says beside its pixels, and how it is removed: EXIF with places and maker notes, XMP, comments, text.

`without_metadata` copies a file without it. No pixel is decoded or encoded again. Kept is what decides how the pixels
look: the colour profile, transparency, and the orientation, as EXIF with this one tag. Each format has an allow-list of
parts, so that a part that nobody foresaw is removed too, and so are bytes after the end of the image.

The parts that are kept are not parsed further, so that bytes can still be hidden in a file on purpose: after the last
pixel in a JPEG's scan, in the compressed pixels of a PNG or WebP, or in an item of AVIF and HEIC; in tables of a JPEG
that no scan uses; in the fixed fields of JFIF and Adobe segments and of a PNG's chunks, and in their checksums; in
colours of a palette that no pixel has; in a colour profile; and in a BMP with run lengths or an old header.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Container, Iterator
from contextlib import suppress

from strata.images.boxes import family_of, without_metadata_boxes
from strata.images.formats import (
    JPEG_END,
    JPEG_FRAMES,
    JPEG_MARKER,
    JPEG_SCAN,
    JPEG_START,
    MIB,
    TIFF_MAGIC,
    ImageError,
    orientation_of,
)
from strata.images.tiff_copies import tiff_copy

MAX_PARTS = 100_000  # of a file that are walked: real ones have up to some thousands
MAX_BLOCKS = 1_000_000  # of a GIF: one of 255 MB has as many
MAX_PROFILE = 4 * MIB  # bytes; those of printers, the largest, have up to 3 MB
MAX_TEXT = MIB  # bytes of a text that is inflated to find an orientation
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')  # as Pillow finds it


def without_metadata(data: bytes) -> bytes:
    """The same image without its metadata. A file that is cut off is copied up to its end.

    Raises ImageError for what is no image, and for a file whose structure cannot be followed.
    """
    found = [copy for magic, copy in _COPIES.items() if data.startswith(magic)]
    copy = without_metadata_boxes if family_of(data) else found[0] if found else None
    if copy is None:
        raise ImageError("not_an_image", "the first bytes match no image format")
    try:
        return copy(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError("truncated", "its metadata cannot be removed: the file is cut off or damaged") from None


def orientation_tag(turn: int) -> bytes:
    """EXIF with an orientation alone (Exif 2.3, tag 0x0112); without the name that JPEG puts before it."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, turn, 0, 0)


def _turn(exif: bytes, xmp: bytes) -> int:
    """The orientation of an image, 1 to 8, by its EXIF, or by its XMP if the EXIF has none; 1 if neither tells it."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    turn = None
    with suppress(struct.error, IndexError, OverflowError, ImageError):
        turn = orientation_of(exif)
    if turn is None and (found := _XMP_ORIENTATION.search(xmp)):
        turn = int(found[1])
    return turn if turn is not None and 1 <= turn <= 8 else 1


# JPEG


def jpeg_pixels(data: bytes) -> bytes:
    """As `without_metadata`, for a JPEG, and without its colour profile."""
    return _jpeg(data, profile=False)


_ICC, _ADOBE, _JFIF = b"ICC_PROFILE\0", b"Adobe", b"JFIF\0"
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_TABLES = (0xC4, 0xCC, 0xDB, 0xDD)  # DHT, DAC, DQT, DRI
_LINES = 0xDC  # DNL, after the first scan


def _jpeg(data: bytes, profile: bool = True) -> bytes:
    pieces: list[bytes] = []
    exif: list[bytes] = []
    xmp: list[bytes] = []
    jfif, adobe, scanned = b"", -1, False
    parts = list(_jpeg_parts(data))
    # a profile counts only as a whole, before the first scan
    first = next((at for at, part in enumerate(parts) if part[0] == JPEG_SCAN), len(parts))
    profile = profile and _is_jpeg_profile([body for code, body, _ in parts[:first] if _has_profile(code, body)])
    # everything that is not named here is left out
    for code, body, end in parts:
        if code == 0xE0 and body.startswith(_JFIF) and len(body) >= 14 and not jfif:
            jfif = _segment(code, body[:12] + b"\0\0")  # without its thumbnail
        elif code == 0xE1:
            exif += [body[len(_EXIF) :]] if body.startswith(_EXIF) else []
            xmp += [body] if body.startswith(_XMP) else []
        elif code == 0xEE and body.startswith(_ADOBE) and len(body) >= 12 and not scanned:
            if adobe >= 0:  # the last one counts
                pieces[adobe] = b""
            adobe = len(pieces)
            pieces.append(_segment(code, body[:12]))
        elif code == JPEG_END:
            pieces.append(b"\xff\xd9")
        elif (
            code in (JPEG_SCAN, *JPEG_FRAMES, *_TABLES)
            or (code == _LINES and scanned and len(body) == 2)
            or (profile and not scanned and _has_profile(code, body))
        ):
            pieces += [_segment(code, body), end]
            scanned = scanned or code == JPEG_SCAN
    turn = _turn(b"".join(exif), b"".join(xmp))
    turned = _segment(0xE1, _EXIF + orientation_tag(turn)) if turn != 1 else b""
    return b"".join((b"\xff\xd8", jfif, turned, *pieces))


def _has_profile(code: int, body: bytes) -> bool:
    return code == 0xE2 and body.startswith(_ICC)


def _is_jpeg_profile(bodies: list[bytes]) -> bool:
    """Whether segments are a colour profile: each has its number, and how many they are, before its piece."""
    pieces = sorted(body[len(_ICC) :] for body in bodies)
    whole = 0 < len(pieces) < 256 and pieces[0][1:2] == bytes([len(pieces)])
    return whole and _is_profile(b"".join(piece[2:] for piece in pieces))


def _is_profile(data: bytes | None) -> bool:
    """Whether bytes begin as a colour profile does (ICC.1, 7.2.1: the signature in its header)."""
    return data is not None and data[36:40] == b"acsp"


def _jpeg_parts(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The code and the content of each segment, the end of the image included, and the pixels after a scan's header."""
    position = 2
    for _ in range(MAX_PARTS):
        if not (found := JPEG_MARKER.search(data, position)):
            return
        code, position = data[found.end() - 1], found.end()
        if code == JPEG_END:
            yield code, b"", b""
            return
        if code in (0x01, JPEG_START):  # without content
            continue
        (length,) = struct.unpack_from(">H", data, position)
        end = position + max(length, 2)
        pixels = b""
        if code == JPEG_SCAN:
            following = JPEG_MARKER.search(data, end)
            pixels = data[end : following.start() if following else len(data)]
        yield code, data[position + 2 : end], pixels
        position = end + len(pixels)
    raise _too_many("JPEG", "segments")


def _segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


# PNG

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# the lengths of the chunks of which an image has one at most (PNG, third edition, 11)
_ONCE: dict[bytes, Container[int]] = {
    b"IHDR": (13,),
    b"PLTE": range(3, 769, 3),
    b"tRNS": range(1, 257),
    b"gAMA": (4,),
    b"cHRM": (32,),
    b"sRGB": (1,),
    b"cICP": (4,),
    b"sBIT": range(1, 5),
    b"bKGD": (1, 2, 6),
    b"pHYs": (9,),
    b"acTL": (8,),
}
_FRAME_CHUNKS = (b"fcTL", b"fdAT")  # of an animation


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The name, the content and all bytes of each chunk up to the end of the image. Raises ImageError."""
    position = len(_SIGNATURE)
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, data[position + 8 : position + 8 + length], data[position : position + 12 + length]
        position += 12 + length
        if name == b"IEND":
            return
    raise _too_many("PNG", "chunks")


def inflated(data: bytes, most: int) -> bytes | None:
    """What compressed bytes hold; None if they are damaged, or hold more than `most` bytes."""
    engine = zlib.decompressobj()
    with suppress(zlib.error):
        content = engine.decompress(data, most)
        return content if engine.eof else None
    return None


def png_pixels(data: bytes) -> bytes:
    """As `without_metadata`, for a PNG, and without its colour profile."""
    return _png(data, profile=False)


def _png(data: bytes, profile: bool = True) -> bytes:
    pieces, exif, xmp, raw = [_SIGNATURE], b"", b"", b""
    seen: set[bytes] = set()
    last = b""
    for name, body, whole in png_chunks(data):
        if _is_kept(name, len(body), last, seen):
            pieces.append(whole)
        elif name == b"IEND":
            pieces.append(_chunk(name, b""))
        elif name == b"iCCP" and profile and name not in seen and _is_profile(compressed_profile(body)):
            pieces.append(_chunk(name, b"ICC" + body[body.find(b"\0") :]))  # its name is a text
        elif name == b"eXIf":
            exif = exif or body
        elif name == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0\0"):
            xmp = xmp or body
        elif (
            not raw
            and name in (b"tEXt", b"zTXt")
            and body.startswith((b"Raw profile type exif\0", b"Raw profile type APP1\0"))
        ):
            raw = (body[22:] if name == b"tEXt" else inflated(body[23:], MAX_TEXT)) or b"\n"
        seen.add(name)
        last = name
    turn = _turn(exif or _raw_profile(raw), xmp)
    if turn != 1:
        pieces.insert(2, _chunk(b"eXIf", orientation_tag(turn)))
    return b"".join(pieces)


def _is_kept(name: bytes, length: int, last: bytes, seen: set[bytes]) -> bool:
    """Whether the pixels need a chunk. last: the name of the chunk before it. seen: those of all before it."""
    if name == b"IDAT":  # what follows after another chunk is no part of the pixels
        return last == name or name not in seen
    if name in _FRAME_CHUNKS:
        return b"acTL" in seen and (length == 26 if name == b"fcTL" else length > 4)
    return name not in seen and length in _ONCE.get(name, ())


def compressed_profile(body: bytes) -> bytes | None:
    """The profile in a chunk `iCCP`: a name, a zero, the method of compression, the compressed bytes."""
    return inflated(body[body.find(b"\0") + 2 :], MAX_PROFILE)


def _raw_profile(text: bytes) -> bytes:
    """The EXIF that ImageMagick writes as hexadecimal digits, after a line with the name and one with the length."""
    with suppress(ValueError):
        return bytes.fromhex(text.split(b"\n", 3)[3].decode("ascii")) if text.count(b"\n") > 2 else b""
    return b""


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _too_many(form: str, parts: str) -> ImageError:
    return ImageError("too_costly", f"{form}: too many {parts}")


# WebP

_WEBP_KEPT = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF")
_HAS_PROFILE, _HAS_EXIF, _HAS_XMP = 0x20, 0x08, 0x04  # of VP8X
_FRAME_HEADER = 16  # bytes of ANMF before its own chunks


def _webp(data: bytes) -> bytes:
    if data[8:12] != b"WEBP":
        raise ImageError("not_an_image", "the first bytes match no image format")
    chunks, exif, xmp, gone = [], b"", b"", _HAS_EXIF | _HAS_XMP
    for name, body in _riff_chunks(data, 12, min(len(data), 8 + struct.unpack_from("<I", data, 4)[0])):
        exif, xmp = exif or (body if name == b"EXIF" else b""), xmp or (body if name == b"XMP " else b"")
        if name == b"ANMF":
            inner = _riff_chunks(body, _FRAME_HEADER, len(body))
            body = body[:_FRAME_HEADER] + b"".join(_riff(*one) for one in inner if one[0] in _WEBP_KEPT)
        if name == b"ICCP" and not _is_profile(body):
            gone |= _HAS_PROFILE
        elif name in _WEBP_KEPT:
            chunks.append([name, body])
    turn = _turn(exif, xmp)
    if chunks and chunks[0][0] == b"VP8X":
        flags = chunks[0][1][0] & ~gone | (_HAS_EXIF if turn != 1 else 0)
        chunks[0][1] = bytes([flags]) + chunks[0][1][1:]
        if turn != 1:
            chunks.append([b"EXIF", orientation_tag(turn)])
    content = b"WEBP" + b"".join(_riff(name, body) for name, body in chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _riff_chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    for _ in range(MAX_PARTS):
        if position + 8 > end:
            return
        name, length = struct.unpack_from("<4sI", data, position)
        yield name, data[position + 8 : min(position + 8 + length, end)]
        position += 8 + length + length % 2
    raise _too_many("WebP", "chunks")


def _riff(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


# GIF and BMP

_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def _gif(data: bytes) -> bytes:
    position = 13 + _table(data[10])
    pieces = [data[:position]]
    for _ in range(MAX_BLOCKS):
        start, kind = position, data[position : position + 1]
        if kind == b"!":
            position = _blocks_end(data, position + 2)
            # how a frame is shown, and how often; no comment, text or other application
            if data[start + 1] == 0xF9 or (data[start + 1] == 0xFF and data[start + 3 : start + 14] in _LOOPS):
                pieces.append(data[start:position])
        elif kind == b",":
            position = _blocks_end(data, position + 11 + _table(data[position + 9]))
            pieces.append(data[start:position])
        elif kind in (b";", b""):
            return b"".join((*pieces, kind))
        else:  # a byte that belongs to nothing
            position += 1
    raise _too_many("GIF", "blocks")


def _table(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks_end(data: bytes, position: int) -> int:
    """Where some blocks end, each of which begins with its length; the last one has the length 0."""
    for _ in range(MAX_BLOCKS):
        length = data[position] if position < len(data) else 0
        position += 1 + length
        if not length:
            return min(position, len(data))
    raise _too_many("GIF", "blocks")


def _bmp(data: bytes) -> bytes:
    start, header, width, height = struct.unpack_from("<IIii", data, 10)
    if header < 40:
        return data
    bits, packing = struct.unpack_from("<HI", data, 28)
    rows = -(-width * bits // 32) * 4 * abs(height)
    # the size of pixels in run lengths is not known
    return data if packing in (1, 2) else data[: start + rows]


_COPIES: dict[bytes, Callable[[bytes], bytes]] = {
    b"\xff\xd8\xff": _jpeg,
    _SIGNATURE: _png,
    b"RIFF": _webp,
    b"GIF8": _gif,
    b"BM": _bmp,
    **dict.fromkeys(TIFF_MAGIC, tiff_copy),
}
