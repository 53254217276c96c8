"""JPEG files whose end is missing: a few lines may lack, and the row says so; more is an error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from bench.hostile.images import encoded
from strata.images import DecodingPool, ImageError, as_jpeg, decode
from strata.images.decoding import MISSING

LIMIT = 10_000_000
rng = np.random.default_rng(1)
PHOTO = Image.fromarray(rng.integers(0, 255, (60, 40, 3), np.uint8)).resize((320, 480), Image.Resampling.BICUBIC)
GREY = Image.new("RGB", (320, 480), (128, 128, 128))  # as the pixels that libjpeg makes where they are missing


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecodingPool]:
    with DecodingPool(LIMIT, processes=1) as made:
        yield made


@pytest.mark.parametrize("image", [PHOTO, GREY, PHOTO.convert("L"), PHOTO.convert("CMYK")])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("end", [b"", b"\xff", bytes(4096)], ids=["nothing", "half a marker", "zeros"])
def test_without_its_end_marker(
    decoders: DecodingPool, image: Image.Image, options: dict[str, bool], end: bytes
) -> None:
    data = encoded(image, "JPEG", **options)
    for act in (lambda cut: decode(cut, LIMIT), decoders.decode):
        found = act(data[:-2] + end)
        assert found.tobytes() == decode(data, LIMIT).tobytes()
        assert found.info[MISSING] == "the end marker is missing"
    assert MISSING not in decoders.decode(data).info


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_without_its_last_lines(decoders: DecodingPool, options: dict[str, bool]) -> None:
    data = encoded(PHOTO, "JPEG", **options)
    whole, found = np.asarray(decode(data, LIMIT)), decoders.decode(data[:-200])
    assert (np.asarray(found)[:450] == whole[:450]).all()
    assert found.info[MISSING].startswith("the end of the file is missing, with ")
    lines = int(found.info[MISSING].split()[8])
    assert 0 < lines <= 24 and (np.asarray(found)[: 480 - lines] == whole[: 480 - lines]).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_without_much_of_it(decoders: DecodingPool, options: dict[str, bool]) -> None:
    data = encoded(PHOTO, "JPEG", **options)
    for part in (0.2, 0.5, 0.8):
        with pytest.raises(ImageError, match="end of the file is missing, with") as caught:
            decoders.decode(data[: int(len(data) * part)])
        assert caught.value.kind == "truncated"
        assert str(caught.value).count("truncated") == 1


def test_with_bytes_after_its_end(decoders: DecodingPool) -> None:
    data = encoded(PHOTO, "JPEG")
    found = decoders.decode(data + b"a film of the moment before" * 50)
    assert found.tobytes() == decode(data, LIMIT).tobytes() and MISSING not in found.info


def test_a_jpeg_for_others_has_an_end() -> None:
    data = encoded(PHOTO, "JPEG")
    jpeg, size = as_jpeg(data[:-2], LIMIT)
    assert jpeg.endswith(b"\xff\xd9") and size == PHOTO.size
    assert MISSING not in decode(jpeg, LIMIT).info
