"""What every script does with an image: read it from a tar, decode it, wait a fixed time, say its size and colour.

With --demo it is described by the demo's real stages instead (`demo.py`). Each call is noted with its time in a file of
the process, so that what was computed twice can be counted.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from bench.peers.scripts import demo

BATCH = 32  # images of one call


def images_of(shard: Path) -> Iterator[tuple[str, bytes]]:
    """The keys and bytes of a tar's images."""
    with tarfile.open(shard) as tar:
        for member in tar:
            if member.name.endswith(".jpg"):
                file = tar.extractfile(member)
                assert file is not None
                yield member.name.removesuffix(".jpg"), file.read()


def describe_batch(pairs: Sequence[tuple[str, bytes]], given: argparse.Namespace) -> list[str]:
    """The captions of a batch of keys and files."""
    return describe_images([(key, Image.open(io.BytesIO(data)).convert("RGB")) for key, data in pairs], given)


def describe_images(pairs: Sequence[tuple[str, Image.Image]], given: argparse.Namespace) -> list[str]:
    """The captions of a batch of keys and images. given: seconds, demo, calls."""
    if given.demo:
        demo.pipelines()  # loading is not a call's time
        note(given.calls, [key for key, _ in pairs])
        return demo.describe(pairs)
    return [_waited(key, image, given.seconds, given.calls) for key, image in pairs]


def _waited(key: str, image: Image.Image, seconds: float, calls: Path) -> str:
    wait(key, seconds, calls)
    return caption_of(image)


def wait(key: str, seconds: float, calls: Path) -> None:
    """Note a call, and wait for as long as it costs."""
    note(calls, [key])
    if seconds:
        time.sleep(seconds)


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
