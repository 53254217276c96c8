"""Pixels with a colour profile become those of sRGB; without one, with that of sRGB or a broken one they stay."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from bench.hostile.images import encoded, png_chunk, wide_profile
from strata.images import DecodingPool, as_jpeg, decode

LIMIT = 10_000_000
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE = wide_profile()


def colour(data: bytes) -> tuple[int, ...]:
    found = decode(data, LIMIT).getpixel((4, 4))
    assert isinstance(found, tuple)
    return found


def close(found: tuple[int, ...], expected: tuple[int, ...], steps: int = 2) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= steps


def srgb_of(rgb: tuple[int, int, int]) -> tuple[int, ...]:
    """What a colour of `wide_profile` is in sRGB, by the matrices of both: IEC 61966-2-1, adapted to D50."""
    wide = np.array([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0, 0.0, 0.8249]])
    srgb = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    linear = np.linalg.solve(srgb, wide @ (np.array(rgb) / 255) ** 1.8).clip(0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(round(value) for value in curved * 255)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 100, "subsampling": 0}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("TIFF", "RGB", {}),
        ("AVIF", "RGB", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_a_wide_profile_is_converted(kind: str, mode: str, options: dict[str, Any]) -> None:
    image = Image.new("RGB", (16, 16), (130, 100, 90))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    assert srgb_of((130, 100, 90)) != (130, 100, 90)
    found = colour(encoded(image, kind, icc_profile=WIDE, **options))
    assert close(found, srgb_of((130, 100, 90)), 4), (found, srgb_of((130, 100, 90)))
    with DecodingPool(LIMIT, processes=1) as decoders:
        assert decoders.decode(encoded(image, kind, icc_profile=WIDE, **options)).getpixel((4, 4)) == found


@pytest.mark.parametrize("profile", [SRGB, b"", b"nonsense" * 40, WIDE[:200], WIDE[:16] + b"CMYK" + WIDE[20:]])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_srgb_and_broken_profiles_change_nothing(kind: str, profile: bytes) -> None:
    image = Image.effect_noise((32, 32), 80).convert("RGB")
    data = encoded(image, kind, icc_profile=profile)
    assert decode(data, LIMIT).tobytes() == image.tobytes()


def test_transparent_pixels_are_on_pure_white() -> None:
    image = Image.new("RGBA", (16, 16), (130, 100, 90, 0))
    assert colour(encoded(image, "PNG", icc_profile=WIDE)) == (255, 255, 255)


def test_grey_with_a_profile_for_colours() -> None:
    found = colour(encoded(Image.new("L", (16, 16), 100), "PNG", icc_profile=WIDE))
    assert close(found, srgb_of((100, 100, 100))) and found != (100, 100, 100)


def test_a_profile_that_is_damaged_in_its_chunk_is_ignored() -> None:
    data = encoded(Image.new("RGB", (16, 16), (130, 100, 90)), "PNG")
    for body in (b"", b"icc", b"icc\0\0" + b"nonsense", b"icc\0\0" + zlib.compress(WIDE)[:-20]):
        assert colour(data[:33] + png_chunk(b"iCCP", body) + data[33:]) == (130, 100, 90)


def test_a_jpeg_for_others_is_in_srgb() -> None:
    """Training tools ignore profiles, as they ignore the orientation."""
    data = encoded(Image.new("RGB", (16, 16), (130, 100, 90)), "JPEG", quality=100, icc_profile=WIDE)
    jpeg, _ = as_jpeg(data, LIMIT)
    with Image.open(io.BytesIO(jpeg)) as image:
        assert "icc_profile" not in image.info
    assert close(colour(jpeg), srgb_of((130, 100, 90)), 4)
    same = encoded(Image.new("RGB", (16, 16), (130, 100, 90)), "JPEG", icc_profile=SRGB)
    assert as_jpeg(same, LIMIT)[0] == encoded(Image.new("RGB", (16, 16), (130, 100, 90)), "JPEG")
