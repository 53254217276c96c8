"""Scenes with copies that were changed, as one file of images, with what is a copy of what."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from samples.copies import KINDS, encoded
from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from strata.core import Caption, Chunk, Description, ImageReference, Profile, Record
from strata.store import Part, Store, keep_profile

FIRST_SEED = HELD_OUT_SEED + 60_000_000


@dataclass(frozen=True)
class Planted:
    """Rows of a store. kinds: of each row, "" for a scene; of: the row that it is a copy of, itself for a scene."""

    parts: list[Part]
    kinds: list[str]
    of: list[int]


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
        chunk = Chunk("llm", profile.name, profile.fingerprint("llm"), "scenes", "5" * 16, number, len(some))
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
