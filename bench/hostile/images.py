"""Hostile images: bombs of each format, written by hand, and mutations of good images from a seed."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

LARGE = 10_000  # pixels of a side: 100 million in all, which is the default limit


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bombs() -> dict[str, bytes]:
    """Small files that would take much memory or time, by name. None of them may take more than the stated bounds."""
    return {
        "jpeg scans": jpeg_scans(LARGE, LARGE, 3000),
        "jpeg scans of few pixels": jpeg_scans(64, 64, 5000),
        "jpeg segments": b"\xff\xd8" + b"\xff\xe1\x00\x02" * 300_000 + jpeg_scans(8, 8, 1)[2:],
        "jpeg coefficients": encoded_jpeg_of_size(9000, 9000),
        "jpeg exif": jpeg_exif(),
        "png size": png(60_000, 60_000, zlib.compress(bytes(100_000))),
        "png rgba": png(5000, 5000, zlib.compress(bytes(5000 * 20_001), 9), colour=6),
        "png text": png_text(),
        "png chunks": png(8, 8, zlib.compress(bytes(8 * 25)), before=png_chunk(b"teXt", b"") * 150_000),
        "webp canvas": webp_canvas(LARGE, LARGE),
        "webp largest canvas": webp_canvas(2**24, 2**24),
        "webp lossless": webp_lossless(12_000, 8000),
        "gif frame": gif(1, 1, 65_535, 65_535),
        "gif canvas": gif(65_535, 65_535, 1, 1),
        "gif comments": gif(1, 1, 1, 1, b"\x21\xfe" + b"\x01a" * 2_000_000 + b"\0"),
        "tiff tile": tiff(64, 64, {322: 65_536, 323: 32_752, 324: 8, 325: 64}, compression=8),
        "tiff strips": tiff_strips(400_000),
        "tiff tags": tiff_tags(4000, 200_000),
        "tiff size": tiff(LARGE, LARGE, {273: 8, 279: 64, 278: LARGE}, compression=8),
        "bmp runs": bmp_runs(LARGE, 9000),
        "bmp size": bmp_runs(2**31 - 1, 2**31 - 1),
    }


def mutated(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Good images of all formats with some damage, and what was done to each."""
    rng = random.Random(seed)
    bases = list(good_images().items())
    for number in range(count):
        name, data = rng.choice(bases)
        damaged = bytearray(data)
        done = []
        for _ in range(rng.randint(1, 4)):
            act = rng.choice(_DAMAGE)
            act(damaged, rng, rng.choice(bases)[1])
            done.append(act.__name__.strip("_"))
        yield f"{number}: {name}, {', '.join(done)}", bytes(damaged)


def good_images(width: int = 61, height: int = 43) -> dict[str, bytes]:
    """An image of each format and mode that can be decoded, also turned ones and those of many frames."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 4), np.uint8)
    rgba = Image.fromarray(noise, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    images = _deep_images(np.asarray(grey)) | {
        "png transparent colour": encoded(rgb, "PNG", transparency=(1, 2, 3)),
        "png transparent palette": encoded(rgba.quantize(32), "PNG", transparency=bytes(range(0, 256, 8))),
        "gif transparent": encoded(rgb.quantize(32), "GIF", transparency=3),
        "gif frames": encoded(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90), grey]),
        "webp frames": encoded(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]),
        "webp lossless": encoded(rgba, "WEBP", lossless=True),
        "png frames": encoded(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)]),
        "jpeg frames": encoded(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)]),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg progressive cmyk": encoded(rgb.convert("CMYK"), "JPEG", progressive=True),
        "jpeg 444": encoded(rgb, "JPEG", subsampling=0),
        "tiff pages": encoded(rgb, "TIFF", save_all=True, append_images=[grey]),
    }
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        images[f"png {mode}"] = encoded(rgba.convert(mode), "PNG")
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"):
        images[f"tiff {mode}"] = encoded(rgb.convert("YCbCr") if mode == "LAB" else rgba.convert(mode), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        images[f"tiff {compression}"] = encoded(rgb, "TIFF", compression=compression)
    images["tiff group4"] = encoded(rgb.convert("1"), "TIFF", compression="group4")
    for mode, kind in (("L", "JPEG"), ("CMYK", "JPEG"), ("1", "BMP"), ("P", "BMP"), ("RGB", "BMP"), ("RGBA", "BMP")):
        images[f"{kind.lower()} {mode}"] = encoded(rgba.convert(mode), kind)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        for kind, image in (("JPEG", rgb), ("PNG", rgba), ("WEBP", rgb), ("TIFF", rgba)):
            images[f"{kind.lower()} turned {turn}"] = encoded(image, kind, exif=exif)
    return images | _coloured_images(rgba)


def _coloured_images(rgba: Image.Image) -> dict[str, bytes]:
    """Images in AVIF, and images with colour profiles."""
    rgb = rgba.convert("RGB")
    return {
        "avif": encoded(rgb, "AVIF"),
        "avif RGBA": encoded(rgba, "AVIF", speed=10),
        "jpeg profile": encoded(rgb, "JPEG", icc_profile=wide_profile()),
        "png profile": encoded(rgba, "PNG", icc_profile=wide_profile()),
    }


def _deep_images(grey: np.typing.NDArray[np.uint8]) -> dict[str, bytes]:
    """Images with more than 8 bits for each value."""
    deep = Image.fromarray(grey.astype(np.uint16) * 251 + 13)
    return {
        "png 16": encoded(deep, "PNG"),
        "tiff 16": encoded(deep, "TIFF"),
        "tiff 32": encoded(Image.fromarray(grey.astype(np.int32) * 99_991), "TIFF"),
        "tiff float": encoded(Image.fromarray(grey.astype(np.float32) / 255), "TIFF", compression="tiff_lzw"),
        "tiff float large": encoded(Image.fromarray(grey.astype(np.float32) * 3e4), "TIFF"),
    }


# profiles


def wide_profile(gamma: float = 1.8) -> bytes:
    """A colour profile whose primaries are those of ProPhoto RGB (ISO 22028-2), written by hand: ICC.1:2001-04."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    primaries = {b"rXYZ": (0.7977, 0.2880, 0.0), b"gXYZ": (0.1352, 0.7119, 0.0), b"bXYZ": (0.0313, 0.0001, 0.8249)}
    white = b"XYZ \0\0\0\0" + b"".join(map(number, (0.9642, 1.0, 0.8249)))
    tags = {b"wtpt": white, b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(79)}
    tags |= {name: b"XYZ \0\0\0\0" + b"".join(map(number, value)) for name, value in primaries.items()}
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = 132 + 12 * len(tags) + len(body)
    start = struct.pack(">I4xI", size, 0x02400000) + b"mntrRGB XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    return start + bytes(28) + b"".join(map(number, (0.9642, 1.0, 0.8249))) + bytes(48) + table + body


# JPEG


def jpeg_scans(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG with so many scans that say nothing, each of about 200 bytes for 100 million pixels."""
    blocks = -(-width // 8) * -(-height // 8)
    # tables with one code, the bit 0: no difference, and a run of 32,767 blocks without coefficients
    tables = _segment(0xDB, b"\0" + b"\1" * 64)
    for table, symbol in ((0x00, 0x00), (0x10, 0xE0)):
        tables += _segment(0xC4, bytes([table, 1]) + bytes(15) + bytes([symbol]))
    frame = _segment(0xC2, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))
    first = _segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(-(-blocks // 8))
    runs = int(("0" + "1" * 14) * -(-blocks // 32_767) + "1" * 7, 2)
    bits = 15 * -(-blocks // 32_767) + 7
    entropy = (runs >> bits % 8).to_bytes(bits // 8, "big").replace(b"\xff", b"\xff\0")
    empty = _segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + entropy
    return b"\xff\xd8" + tables + frame + first + empty * scans + b"\xff\xd9"


def encoded_jpeg_of_size(width: int, height: int) -> bytes:
    """A progressive JPEG in colour whose header says that it is large; its scans are those of a small one."""
    data = bytearray(encoded(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True, subsampling=0))
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_exif() -> bytes:
    """A JPEG whose EXIF has thousands of tags with the same 60,000 bytes."""
    tags = tiff_tags(4000, 12_000)[: 65_000 - 6]
    return b"\xff\xd8" + _segment(0xE1, b"Exif\0\0" + tags) + encoded(Image.new("RGB", (8, 8)), "JPEG")[2:]


def _segment(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


# PNG


def png(width: int, height: int, pixels: bytes, colour: int = 2, before: bytes = b"") -> bytes:
    """A PNG of 8 bits with the given compressed pixels. before: chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_text() -> bytes:
    """A PNG with compressed text of 100 times a million characters, and a colour profile of 50 million bytes."""
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9)) * 100
    profile = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    return png(8, 8, zlib.compress(bytes(8 * 25)), before=profile + text)


# WebP


def webp_canvas(width: int, height: int) -> bytes:
    """A WebP animation with one frame of one pixel on a canvas of any size."""
    pixel = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = bytes(12) + (100).to_bytes(3, "little") + b"\0" + pixel
    body = _riff(b"VP8X", b"\x02\0\0\0" + canvas) + _riff(b"ANIM", bytes(6)) + _riff(b"ANMF", frame)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_lossless(width: int, height: int) -> bytes:
    """A lossless WebP whose header says that it is large."""
    data = bytearray(encoded(Image.new("RGB", (16, 16), "red"), "WEBP", lossless=True))
    bits = struct.unpack_from("<I", data, 21)[0] & ~0xFFFFFFF
    struct.pack_into("<I", data, 21, bits | (width - 1) | (height - 1) << 14)
    return bytes(data)


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


# GIF and BMP


def gif(width: int, height: int, across: int, down: int, before: bytes = b"") -> bytes:
    """A GIF with a canvas and one frame of any size. before: extensions before the frame."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, across, down, 0) + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + before + frame + b";"


def bmp_runs(width: int, height: int) -> bytes:
    """A BMP in run lengths, each of 255 pixels, which Pillow decodes in Python."""
    runs = b"\xff\x01" * 200_000
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024) + header + bytes(1024) + runs


# TIFF


def tiff(width: int, height: int, tags: dict[int, int], compression: int = 1) -> bytes:
    """A grey TIFF with some more tags; its pixels are 64 bytes."""
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1} | tags
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + struct.pack("<H", len(tags)) + entries + bytes(4)


def tiff_strips(count: int) -> bytes:
    """A TIFF with one pixel in each row and strip; the strips lie at the same place."""
    tags = {256: 1, 257: count, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    lists = b"".join(struct.pack(f"<{count}I", *([8] * count)) for _ in range(2))
    start = 16 + len(lists)
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()}
    entries[273] = struct.pack("<HHII", 273, 4, count, 16)
    entries[279] = struct.pack("<HHII", 279, 4, count, 16 + 4 * count)
    listed = b"".join(entries[tag] for tag in sorted(entries))
    return b"II*\0" + struct.pack("<I", start) + bytes(8) + lists + struct.pack("<H", len(entries)) + listed + bytes(4)


def tiff_tags(count: int, size: int) -> bytes:
    """A TIFF of one pixel with so many tags, which all have the same bytes: each of them is copied."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    entries += [struct.pack("<HHII", 1000 + tag, 7, size, 16) for tag in range(count)]
    body = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + body + bytes(size)


# damage


def _flip(data: bytearray, rng: random.Random, other: bytes) -> None:
    for _ in range(rng.randint(1, 20)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_header(data: bytearray, rng: random.Random, other: bytes) -> None:
    if data:
        data[rng.randrange(min(len(data), 128))] = rng.randrange(256)


def _number(data: bytearray, rng: random.Random, other: bytes) -> None:
    if len(data) > 8:
        at = rng.randrange(min(len(data) - 4, 400))
        value = rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)])
        struct.pack_into(rng.choice("<>") + "I", data, at, value)


def _cut(data: bytearray, rng: random.Random, other: bytes) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _repeat(data: bytearray, rng: random.Random, other: bytes) -> None:
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.randint(1, 500))
    data[end:end] = data[start:end] * rng.randint(1, 50)


def _drop(data: bytearray, rng: random.Random, other: bytes) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.randint(1, 60)]


def _splice(data: bytearray, rng: random.Random, other: bytes) -> None:
    at = rng.randrange(min(len(data), len(other)) + 1)
    data[at:] = other[at:]


_DAMAGE = (_flip, _flip, _flip_header, _number, _number, _cut, _repeat, _drop, _splice)
