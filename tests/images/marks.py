"""Pictures whose files have a mark in every place that their format has for metadata."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from bench.hostile.images import encoded, png_chunk, wide_profile

KINDS = ("JPEG", "MPO", "PNG", "APNG", "GIF", "WEBP", "TIFF", "AVIF", "HEIF")
MARK = "Zaphod's garden, 48.8584 N"
PHOTO = Image.linear_gradient("L").resize((48, 32)).convert("RGB")


def exif(turn: int | None = None) -> Image.Exif:
    """EXIF with a place, maker notes, names and dates, all of which hold the mark."""
    made = Image.Exif()
    made[ExifTags.Base.Artist] = made[ExifTags.Base.ImageDescription] = made[ExifTags.Base.Copyright] = MARK
    made.get_ifd(ExifTags.IFD.Exif).update({0x927C: MARK.encode(), 0x9286: MARK.encode(), 0x9003: MARK})
    made.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 51.0, 30.0), 29: MARK})
    if turn:
        made[0x0112] = turn
    return made


def xmp(turn: int | None = None) -> bytes:
    told = f' tiff:Orientation="{turn}"' if turn else ""
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description{told}>{MARK}</rdf:Description></x:xmpmeta>'.encode()


def marked(kind: str, turn: int | None = None, image: Image.Image = PHOTO, profile: bool = True) -> bytes:
    """A picture whose file has the mark in every place that its format has for such things."""
    icc = wide_profile() if profile else b""
    if kind in ("PNG", "APNG"):
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", MARK)
        texts.add_text("parameters", MARK * 100, zip=True)
        texts.add_itxt("XML:com.adobe.xmp", xmp().decode())
        more = {"save_all": True, "append_images": [image.rotate(90)]} if kind == "APNG" else {}
        data = encoded(image, "PNG", pnginfo=texts, exif=exif(turn), **more)
        return data[:33] + png_chunk(b"prVt", MARK.encode()) + data[33:] + MARK.encode()
    if kind in ("JPEG", "MPO"):
        more = {"save_all": True, "append_images": [image]} if kind == "MPO" else {}
        data = encoded(image, kind, exif=exif(turn), xmp=xmp(), comment=MARK, icc_profile=icc, **more)
        parts = b"".join(segment(code, MARK.encode()) for code in (0xE3, 0xEB, 0xED, 0xEF, 0xFE))
        return data[:2] + parts + data[2:] + MARK.encode()
    if kind == "GIF":
        return (
            encoded(image, "GIF", comment=MARK, save_all=True, append_images=[image.rotate(90)], loop=3) + MARK.encode()
        )
    if kind == "WEBP":
        data = encoded(image, "WEBP", exif=exif(turn).tobytes(), xmp=xmp(), icc_profile=icc)
        data += b"note" + struct.pack("<I", 26) + MARK.encode()
        return data[:4] + struct.pack("<I", len(data) - 8) + data[8:] + MARK.encode()
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for tag in (270, 271, 272, 305, 306, 315, 33432, 700, 33723, 34377, 37724):
            tags[tag] = MARK if tag < 34000 and tag not in (700, 33723) else MARK.encode()
        if turn:
            tags[274] = turn
        return encoded(image, "TIFF", tiffinfo=tags, exif=exif(turn)) + MARK.encode()
    options = {"exif": exif(turn).tobytes(), "xmp": xmp()}
    data = encoded(image, kind, **options)
    return data + struct.pack(">I4s", 8 + len(MARK), b"uuid") + MARK.encode()


def segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def has_mark(data: bytes) -> bool:
    """Whether the mark stands in a file, as text or compressed."""
    if MARK.encode() in data:
        return True
    with suppress(Exception):
        for name, body in Image.open(io.BytesIO(data)).info.items():
            if MARK in str(body) or MARK in str(name):
                return True
    return False
