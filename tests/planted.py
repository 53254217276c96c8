"""Described rows with images of their own, of the demo profile, for tests of features and duplicates."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from models.weights.inventory import PROFILES
from strata.core.chunks import Chunk
from strata.core.profiles import Profile, load_profile
from strata.core.records import ImageReference, Record
from strata.store.part_paths import Part
from strata.store.provenance import keep_profile
from strata.store.store import Store
from tests.checkout import CHECKOUT
from tests.described import described

PROFILE = load_profile("demo", PROFILES)
NAMES = ("coffee.jpg", "giraffe-and-zebra.jpg")
IDENTITY = "a" * 16


def with_stages(*names: str, profile: Profile = PROFILE, **changes: object) -> Profile:
    """The demo profile whose stages of the group `features` are these alone."""
    ways = profile.feature_ways()
    stages = {name: stage for name, stage in profile.stages.items() if name not in ways or name in names}
    return profile.model_copy(update={"stages": stages, **changes})


def photograph(name: str = NAMES[0], size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A photograph of the checkout, made smaller."""
    with Image.open(CHECKOUT / "samples" / "photographs" / name) as image:
        return image.convert("RGB").resize(size)


def saved(image: Image.Image, quality: int = 90, form: str = "JPEG") -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, form, **({"quality": quality} if form == "JPEG" else {}))
    return file.getvalue()


def plant(
    store: Store,
    folder: Path,
    images: Sequence[bytes],
    profile: Profile = PROFILE,
    records: Sequence[Record] | None = None,
    attempt: int = 0,
) -> list[Part]:
    """`llm` parts of a profile, in chunks of its size, whose rows have these images, as files of `folder/images`."""
    keep_profile(store, profile)
    path, found = folder / "images", []
    path.mkdir(exist_ok=True)
    for number, data in enumerate(images):
        (path / f"{number}").write_bytes(data)
        image = ImageReference(uri=str(path / f"{number}"), size=len(data))
        record = records[number] if records else described(f"k{number}")
        found.append(record.model_copy(update={"image": image}))
    parts, size = [], profile.chunk_size
    for number, start in enumerate(range(0, len(found), size)):
        some = found[start : start + size]
        chunk = Chunk("llm", profile.name, profile.fingerprint("llm"), str(path), IDENTITY, number, len(some), attempt)
        store.write_records(chunk, some)
        parts.append(Part.of_chunk(chunk))
    return parts
