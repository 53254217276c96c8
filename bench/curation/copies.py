"""Pictures with copies that were changed, as one file of images, with what is a copy of what."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from samples.copies import KINDS, encoded
from samples.labels import photographs
from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from strata.core import Caption, Chunk, Description, ImageReference, Profile, Record
from strata.shards import shard_stamp
from strata.store import Part, Store, keep_profile

IDENTITY = "5" * 16  # of the file
FIRST_SEED = HELD_OUT_SEED + 60_000_000
WORLD = 10_000_000  # scenes of a world


class Pictures(Protocol):
    """Originals, by their number."""

    def picture(self, number: int) -> Image.Image:
        """The picture of a number, as RGB."""


@dataclass(frozen=True)
class Scenes:
    """Drawn scenes. world: thresholds are chosen in another one than that of the figures."""

    world: int = 0

    def picture(self, number: int) -> Image.Image:
        """A scene with at least one thing: two empty backgrounds may be the same picture."""
        return make_scene(FIRST_SEED + self.world * WORLD + number, SceneOptions(min_objects=1)).image


@dataclass(frozen=True)
class Photographs:
    """The labelled photographs of `samples/`. files: their paths."""

    files: tuple[str, ...] = tuple(str(one.file) for one in photographs())

    def picture(self, number: int) -> Image.Image:
        """A photograph."""
        with Image.open(self.files[number]) as opened:
            return opened.convert("RGB")


Wanted = tuple[int, str, int]  # the number of a picture, the kind of its copy or "" for itself, a seed


@dataclass(frozen=True)
class Planted:
    """Rows of a store. kinds: of each row, "" for an original; of: the row that it is a copy of, itself for these."""

    parts: list[str]
    kinds: list[str]
    of: list[int]


def file_of(pictures: Pictures, wanted: Wanted) -> bytes:
    """A picture, or a changed copy of it, as a JPEG."""
    number, kind, seed = wanted
    image, quality = pictures.picture(number), 92
    if kind:
        change, (least, most) = KINDS[kind]
        random = np.random.default_rng((seed, number))
        image, quality = change(image, random), int(random.integers(least, most + 1))
    return encoded(image, quality)


def files_of(pictures: Pictures, wanted: Sequence[Wanted]) -> Iterator[bytes]:
    """The files of pictures and copies, in order, made in as many processes as there are cores."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for number, data in enumerate(pool.map(file_of, [pictures] * len(wanted), wanted, chunksize=50), 1):
            if number % 1000 == 0 or number == len(wanted):
                print(f"drawn: {number:,} of {len(wanted):,}", file=sys.stderr, flush=True)
            yield data


def chosen_of(originals: int, each: int, seed: int) -> dict[str, list[int]]:
    """For each kind of copy other pictures, `each` of them."""
    chosen = np.random.default_rng(seed).permutation(originals)[: each * len(KINDS)].reshape(len(KINDS), each)
    return dict(zip(KINDS, chosen.tolist(), strict=True))


def plant(store: Store, profile: Profile, folder: Path, source: tuple[Pictures, int], each: int, seed: int) -> Planted:
    """Write originals, and of each kind copies of `each` of them, as `llm` parts over one file of images.

    source: pictures, and how many. The copies are rows after all originals. What the folder has already is taken.
    """
    kept = folder / "planted.json"
    if kept.is_file():
        return Planted(**json.loads(kept.read_text(encoding="utf-8")))
    pictures, originals = source
    wanted = [(number, "", 0) for number in range(originals)]
    for number, (kind, some) in enumerate(chosen_of(originals, each, seed).items()):
        wanted += [(original, kind, 1000 * seed + number) for original in some]
    path, references = folder / "images.bin", []
    with path.open("wb") as file:
        for data in files_of(pictures, wanted):
            references.append(ImageReference(uri=str(path), offset=file.tell(), size=len(data)))
            file.write(data)
    # the file is no tar of which an identity could be read
    store.keep_identity(shard_stamp(str(path)), IDENTITY)
    parts = _described(store, profile, references)
    planted = Planted(parts, [kind for _, kind, _ in wanted], [original for original, _, _ in wanted])
    kept.write_text(json.dumps(asdict(planted)), encoding="utf-8")
    return planted


def _described(store: Store, profile: Profile, references: list[ImageReference]) -> list[str]:
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
        parts.append(Part.of_chunk(chunk).path)
    return parts
