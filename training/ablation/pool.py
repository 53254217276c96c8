"""A pool of scenes as the web has pictures: a few things are common, and a few scenes are there many times."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from samples.copies import KINDS, encoded
from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from samples.shards import add_member

FIRST_POOLED = HELD_OUT_SEED + 7_000_000  # no other program draws scenes from here on
OPTIONS = SceneOptions(min_objects=1, max_objects=3)
SKEW = 0.7  # a thing is drawn in proportion to 1 / (its rank from 1) ** SKEW
COPIES = 0.4  # share of the images that are copies
COPIED = 0.1  # share of the scenes that have copies
SHARD_SIZE = 500
TRUTH = "pool.json"


@dataclass(frozen=True)
class Pooled:
    """An image of the pool. scene: its seed; kind: of the copy, "" for the scene itself; things: the names in it."""

    key: str
    scene: int
    kind: str
    things: tuple[str, ...]


def popularity(name: str) -> float:
    """How often a thing is drawn, 0..1, as a share of the commonest one's number."""
    # a rank from 0 to 39 by the hash of the name, so that it does not depend on the list of things
    rank = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") % 40
    return float((rank + 1.0) ** -SKEW)


def skewed_scenes(count: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Seeds of scenes with the names of their things: each scene is drawn with the product of their popularities."""
    found, seed = 0, FIRST_POOLED
    while found < count:
        names = tuple(thing.name for thing in make_scene(seed, OPTIONS).objects)
        chance = float(np.prod([popularity(name) for name in names]))
        if names and np.random.default_rng(seed).random() < chance:
            yield seed, names
            found += 1
        seed += 1


def pooled(images: int) -> list[Pooled]:
    """The images of a pool, in a random order; of the copied scenes a few have most of the copies."""
    random = np.random.default_rng(0)
    copies = round(COPIES * images)
    scenes = list(skewed_scenes(images - copies))
    famous = max(1, round(COPIED * len(scenes)))
    shares = 1 / np.arange(1, famous + 1)
    copied = random.choice(famous, copies, p=shares / shares.sum())
    kinds = random.choice(list(KINDS), copies)
    drawn = [(*scene, "") for scene in scenes]
    drawn += [(*scenes[place], str(kind)) for place, kind in zip(copied.tolist(), kinds, strict=True)]
    order = random.permutation(images).tolist()
    return [
        Pooled(f"{number // SHARD_SIZE:05d}{number % SHARD_SIZE:04d}", scene, kind, names)
        for number, (scene, names, kind) in enumerate(drawn[place] for place in order)
    ]


def write_pool(folder: Path, images: int) -> None:
    """Write the images of a pool as shards, and what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = pooled(images)
    random = np.random.default_rng(1)
    for shard, first in enumerate(range(0, images, SHARD_SIZE)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for image in pool[first : first + SHARD_SIZE]:
                scene = make_scene(image.scene, OPTIONS)
                picture, quality = scene.image, 92
                if image.kind:
                    change, (least, most) = KINDS[image.kind]
                    picture, quality = change(picture, random), int(random.integers(least, most + 1))
                add_member(tar, f"{image.key}.jpg", encoded(picture, quality))
                add_member(tar, f"{image.key}.txt", scene.alt_text.encode())
    (folder / TRUTH).write_text(json.dumps([asdict(image) for image in pool]), encoding="utf-8")


def read_pool(folder: Path) -> dict[str, Pooled]:
    """What `write_pool` wrote, by key."""
    found = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
    return {one["key"]: Pooled(**{**one, "things": tuple(one["things"])}) for one in found}


def rare_things(pool: Sequence[Pooled]) -> frozenset[str]:
    """The rarer half of the things of a pool."""
    counts = Counter(name for image in pool for name in image.things)
    ranked = sorted(counts, key=lambda name: (counts[name], name))
    return frozenset(ranked[: len(ranked) // 2])
