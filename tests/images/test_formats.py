"""Headers: the size and the cost of an image are known before Pillow reads a byte, whatever the bytes are."""

from __future__ import annotations

import io
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.hostile.images import bombs, encoded_jpeg_of_size, good_images, jpeg_scans, mutated, tiff_strips
from strata.images import ImageError
from strata.images.formats import KINDS, MAX_SCANS, MEMORY, inspect, memory_limit, refuse_costly

LIMIT = 100_000_000
GOOD = good_images()
BOMBS = bombs()
# what decoding itself must stop, because nothing in the header tells it
ONLY_WHILE_DECODING = {"png rgba", "png text", "png chunks", "gif frame", "gif comments", "jpeg exif"}
MAGIC = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"BM", b"BM" + bytes(12) + b"\x28\0\0\0"]
MAGIC += [b"RIFF1234WEBP" + kind for kind in (b"VP8X", b"VP8 ", b"VP8L")]
MAGIC += [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"]


@pytest.mark.parametrize("name", GOOD)
def test_the_header_gives_the_size_and_a_small_cost(name: str) -> None:
    header = inspect(GOOD[name])
    with Image.open(io.BytesIO(GOOD[name])) as image:
        assert header is not None and (header.width, header.height) == image.size
    assert header.memory <= 17 * header.pixels + 20_000
    refuse_costly(header, LIMIT)


@pytest.mark.parametrize("name", sorted(BOMBS.keys() - ONLY_WHILE_DECODING))
def test_a_bomb_is_refused_by_its_header(name: str) -> None:
    start = time.thread_time()
    with pytest.raises(ImageError) as caught:
        refuse_costly(inspect(BOMBS[name]), LIMIT)
    assert caught.value.kind in ("too_costly", "too_many_pixels")
    assert time.thread_time() - start < 1


def test_what_is_exceeded_is_told() -> None:
    for data, words in (
        (jpeg_scans(10_000, 10_000, 60), "61 scans of 10000 × 10000"),
        (tiff_strips(200_000), "200,000 tiles or strips"),
        (encoded_jpeg_of_size(9000, 9000), "takes 820 MiB"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            refuse_costly(inspect(data), LIMIT)
        assert caught.value.kind == "too_costly"
    # as many scans of few pixels are decoded
    refuse_costly(inspect(jpeg_scans(100, 100, MAX_SCANS - 1)), LIMIT)


def test_the_memory_follows_the_limit_of_pixels() -> None:
    assert memory_limit(1000) == memory_limit(LIMIT) == MEMORY
    assert memory_limit(4 * LIMIT) > 4 * 4 * LIMIT
    assert set(KINDS) >= {"too_costly", "decoder_crashed", "truncated"}


@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=300))
def test_any_bytes_give_a_header_or_an_image_error(magic: bytes, rest: bytes) -> None:
    with suppress(ImageError):
        header = inspect(magic + rest)
        assert header is None or header.memory >= 0
        refuse_costly(header, LIMIT)


def test_damaged_images_give_a_header_or_an_image_error() -> None:
    for _, data in mutated(3, 2000):
        with suppress(ImageError):
            refuse_costly(inspect(data), LIMIT)
