"""Scenes with copies that were changed, as one file of images, with what is a copy of what."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from strata.core import Caption, Chunk, Description, ImageReference, Profile, Record
from strata.shards import shard_stamp
from strata.store import Part, Store, keep_profile

FIRST_SEED = HELD_OUT_SEED + 60_000_000
IDENTITY = "5" * 16  # of the file
CROPPED = 0.05  # share of width and height that is cut off, in all
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _recoloured(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Saturation, brightness and contrast changed by up to a third, and the hue by up to 14 degrees."""
    hue, saturation, value = image.convert("HSV").split()
    shift = int(random.integers(4, 11)) * int(random.choice([-1, 1]))
    image = Image.merge("HSV", (hue.point(lambda at: (at + shift) % 256), saturation, value)).convert("RGB")
    for enhance in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = enhance(image).enhance(float(random.choice([random.uniform(0.67, 0.9), random.uniform(1.1, 1.33)])))
    return image


def _cropped(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """CROPPED of each side cut off, at a random place."""
    width, height = (round(side * (1 - CROPPED)) for side in image.size)
    left, top = (int(random.integers(0, more + 1)) for more in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


def _mirrored(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _resized(image: Image.Image, random: np.random.Generator) -> Image.Image:
    factor = random.uniform(0.5, 1.5)
    return image.resize((round(image.width * factor), round(image.height * factor)))


def _same(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image


# how each kind of copy is made, and the JPEG qualities with which it is saved; originals have 92
KINDS: dict[str, tuple[Change, tuple[int, int]]] = {
    "recompressed": (_same, (30, 60)),
    "resized": (_resized, (70, 90)),
    "recoloured": (_recoloured, (70, 90)),
    "cropped": (_cropped, (70, 90)),
    "mirrored": (_mirrored, (70, 90)),
}


@dataclass(frozen=True)
class Planted:
    """Rows of a store. kinds: of each row, "" for a scene; of: the row that it is a copy of, itself for a scene."""

    parts: list[Part]
    kinds: list[str]
    of: list[int]


def encoded(image: Image.Image, quality: int) -> bytes:
    """The image as a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def scene(number: int) -> Image.Image:
    """A scene with at least one thing: two empty backgrounds may be the same picture."""
    return make_scene(FIRST_SEED + number, SceneOptions(min_objects=1)).image


def copies(numbers: list[int], kind: str, seed: int) -> Iterator[bytes]:
    """A copy of a kind of each scene."""
    change, (least, most) = KINDS[kind]
    random = np.random.default_rng(seed)
    for number in numbers:
        yield encoded(change(scene(number), random), int(random.integers(least, most + 1)))


def plant(store: Store, profile: Profile, folder: Path, scenes: int, each: int) -> Planted:
    """Write scenes, and of each kind copies of `each` of them, as `llm` parts over one file of images.

    Different scenes are copied for each kind. The copies are rows after all scenes.
    """
    random = np.random.default_rng(0)
    chosen = random.permutation(scenes)[: each * len(KINDS)].reshape(len(KINDS), each)
    kinds, of, references = [""] * scenes, list(range(scenes)), []
    path = folder / "scenes.bin"
    with path.open("wb") as file:
        for number in range(scenes):
            references.append(_written(file, path, encoded(scene(number), 92)))
        for number, kind in enumerate(KINDS):
            originals = chosen[number].tolist()
            for original, data in zip(originals, copies(originals, kind, number), strict=True):
                references.append(_written(file, path, data))
                kinds.append(kind)
                of.append(original)
    # the file is no tar of which an identity could be read
    store.keep_identity(shard_stamp(str(path)), IDENTITY)
    return Planted(_described(store, profile, references), kinds, of)


def _written(file: io.BufferedWriter, path: Path, data: bytes) -> ImageReference:
    offset = file.tell()
    file.write(data)
    return ImageReference(uri=str(path), offset=offset, size=len(data))


def _described(store: Store, profile: Profile, references: list[ImageReference]) -> list[Part]:
    """`llm` parts of the profile, in chunks of its size, whose rows have these images."""
    keep_profile(store, profile)
    parts, size = [], profile.chunk_size
    for number, start in enumerate(range(0, len(references), size)):
        some = references[start : start + size]
        chunk = Chunk("llm", profile.name, profile.fingerprint("llm"), "scenes", IDENTITY, number, len(some))
        records = [
            Record(
                key=f"{start + place:06d}",
                image=image,
                width=224,
                height=224,
                caption=Caption(text="A picture."),
                description=Description(text="A picture.", sentences=[]),
            )
            for place, image in enumerate(some)
        ]
        store.write_records(chunk, records)
        parts.append(Part.of_chunk(chunk))
    return parts
