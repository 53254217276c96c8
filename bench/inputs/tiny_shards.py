"""Write shards for load measurement and chaos: tars of tiny JPEGs, all different, in img2dataset's layout."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def tiny_jpeg(number: int) -> bytes:
    """A JPEG of some 350 bytes whose size and colour distinguish its number from neighbouring ones."""
    buffer = io.BytesIO()
    colour = (number * 37 % 200, number * 101 % 256, number // 7 % 256)  # red below 200: never the deadly colour
    Image.new("RGB", (16 + number % 31, 16 + number % 29), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def write_shard(path: Path, first: int, count: int, special: dict[int, bytes] | None = None) -> None:
    """Write a tar of samples (KEY.jpg, KEY.txt, KEY.json) from number `first` on. special: other images, by number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in range(first, first + count):
            text = f"image {number}"
            image = (special or {}).get(number) or tiny_jpeg(number)
            note = json.dumps({"caption": text, "key": f"{number:09d}", "status": "success"})
            for suffix, data in (("jpg", image), ("txt", text.encode()), ("json", note.encode())):
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def plain_image(colour: tuple[int, int, int]) -> bytes:
    """A PNG of one exact colour."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
