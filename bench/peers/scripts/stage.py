"""What every script does with an image: read it from a tar, decode it, wait a fixed time, say its size and colour.

Each call is noted with its time in a file of the process, so that what was computed twice can be counted.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

BATCH = 32  # images of one call


def options(description: str | None) -> argparse.Namespace:
    """What all scripts are told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--shards", type=Path, required=True, help="folder with tars")
    parser.add_argument("--out", type=Path, required=True, help="folder for Parquet files: key, caption")
    parser.add_argument("--calls", type=Path, required=True, help="folder for the notes of calls")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.0, help="what an image costs")
    given = parser.parse_args()
    for folder in (given.out, given.calls):
        folder.mkdir(parents=True, exist_ok=True)
    return given


def images_of(shard: Path) -> Iterator[tuple[str, bytes]]:
    """The keys and bytes of a tar's images."""
    with tarfile.open(shard) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                file = tar.extractfile(member)
                assert file is not None
                yield member.name.removesuffix(".jpg"), file.read()


def describe(key: str, data: bytes, seconds: float, calls: Path) -> str:
    """The caption of an image."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    note(calls, [key])
    if seconds:
        time.sleep(seconds)
    return caption_of(image)


def caption_of(image: Image.Image) -> str:
    """An image's size and mean colour."""
    colour = tuple(int(value) for value in np.asarray(image).reshape(-1, 3).mean(axis=0).round())
    return f"{image.width} by {image.height} pixels of {colour}"


def note(calls: Path, keys: list[str]) -> None:
    """Note calls."""
    now = time.time()
    os.write(_file(calls, os.getpid()), "".join(f"{now:.6f} {key}\n" for key in keys).encode())


@cache
def _file(calls: Path, pid: int) -> int:
    return os.open(calls / f"{pid}-{time.time_ns()}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
