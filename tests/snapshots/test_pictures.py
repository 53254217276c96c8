"""Rows with the same picture, by equal bytes or alike: each once, also within one tar, and on one side of a split."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from strata.core.records import ImageReference, Record
from strata.data.picture_hashes import PictureHasher
from strata.shards import shard_stamp
from strata.snapshots.duplicates.pictures import MOST_DIFFERENT, PictureHashes, same_pictures
from strata.snapshots.selection import Selection, SelectionError
from strata.snapshots.snapshot import Snapshot
from strata.snapshots.snapshots import Snapshots
from strata.store.part_paths import Part
from strata.store.store import Store
from tests.checkout import CHECKOUT
from tests.described import described, write_part

NAMES = ("coffee.jpg", "giraffe-and-zebra.jpg")


def photograph(name: str) -> Image.Image:
    with Image.open(CHECKOUT / "samples" / "photographs" / name) as image:
        return image.convert("RGB").resize((320, 240))


def saved(image: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def resized(image: Image.Image) -> bytes:
    return saved(image.resize((image.width * 2 // 3, image.height * 2 // 3)))


def cropped(image: Image.Image) -> bytes:
    return saved(image.crop((3, 2, image.width - 3, image.height - 2)))


def write_images(store: Store, folder: Path, images: list[bytes], identity: str = "a" * 16) -> Part:
    """A part whose rows have these images, one after the other in one file."""
    path, records, offset = folder / f"{identity}.bin", [], 0
    path.write_bytes(b"".join(images))
    store.keep_identity(shard_stamp(str(path)), identity)  # as if it were a tar of which it was read
    for number, data in enumerate(images):
        image = ImageReference(uri=str(path), offset=offset, size=len(data))
        records.append(described(f"{identity[0]}{number}").model_copy(update={"image": image}))
        offset += len(data)
    rows: list[Record] = records
    return write_part(store, rows, identity)


def keys(store: Store, snapshot: Snapshot) -> list[str]:
    return [
        store.read_columns(snapshot.parts[row["part"]], ["key"]).column("key")[row["row"]].as_py()
        for row in snapshot.rows().to_pylist()
    ]


def test_each_picture_once(store: Store, tmp_path: Path) -> None:
    one, other = map(photograph, NAMES)
    again: list[Callable[[Image.Image], bytes]] = [lambda image: saved(image, 40), resized, cropped]
    flat = [saved(Image.new("RGB", (64, 64), colour)) for colour in ("white", "black")]
    images = [saved(one), saved(one), saved(other), *(change(one) for change in again), *flat, b"no image", b"no image"]
    part = write_images(store, tmp_path, images)
    snapshots = Snapshots(store)

    def once(name: str, **values: str) -> list[str]:
        hasher = PictureHasher(store, "near" if values.get("same") == "near" else "bytes", tmp_path / "cache")
        selection = Selection.model_validate({"unique": True, **values})
        return keys(store, snapshots.create(name, [part], selection, pictures=hasher.hashes))

    assert once("listed") == [f"a{n}" for n in range(10)]
    assert once("bytes", same="bytes") == [f"a{n}" for n in (0, 2, 3, 4, 5, 6, 7, 8)]
    # pictures of one colour have no hash that says anything; the photograph and its copies are one
    assert once("near", same="near") == ["a0", "a2", "a6", "a7", "a8"]
    # what was read once is read no more
    (tmp_path / f"{'a' * 16}.bin").unlink()
    assert once("again", same="near") == ["a0", "a2", "a6", "a7", "a8"]
    with pytest.raises(SelectionError, match="compares pictures"):
        snapshots.create("none", [part], Selection(unique=True, same="near"))


def test_images_that_cannot_be_read_count_each(store: Store, tmp_path: Path) -> None:
    part = write_images(store, tmp_path, [saved(photograph(NAMES[0]))] * 2)
    (tmp_path / f"{'a' * 16}.bin").unlink()
    made = Snapshots(store).create("all", [part], Selection())
    hashes = PictureHasher(store, "near", tmp_path / "cache").hashes(made.parts, made.rows())
    assert hashes.unread == 2 and len(set(hashes.sha256)) == 2
    assert same_pictures(hashes, "near").tolist() == [0, 1]


def test_images_of_a_replaced_tar_are_not_read(store: Store, tmp_path: Path) -> None:
    one, other = (saved(photograph(name)) for name in NAMES)
    part = write_images(store, tmp_path, [one, other])
    made = Snapshots(store).create("all", [part], Selection())
    (tmp_path / f"{'a' * 16}.bin").write_bytes(one + one + other)
    hashes = PictureHasher(store, "near", tmp_path / "cache").hashes(made.parts, made.rows())
    assert hashes.unread == 2 and same_pictures(hashes, "near").tolist() == [0, 1]


def test_no_picture_is_on_both_sides_of_a_split(store: Store, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = [saved(Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).resize((64, 64))) for _ in range(40)]
    first = write_images(store, tmp_path, [*noise, *noise])
    snapshots, hasher = Snapshots(store), PictureHasher(store, "bytes", tmp_path / "cache")
    snapshots.create("old", [first], Selection(method="balanced"))
    train, validation = snapshots.split("old", 0.25, 0, "bytes", hasher.hashes)
    sides = [set(keys(store, part)) for part in (train, validation)]
    assert len(sides[0]) + len(sides[1]) == 80 and 4 < len(sides[1]) < 36
    assert all((f"a{n}" in sides[1]) == (f"a{n + 40}" in sides[1]) for n in range(40))
    assert validation.manifest.counts.selected == len(sides[1]) and validation.fault() is None
    assert sum(after for _, after in validation.manifest.composition["text"].values()) == len(sides[1])
    # the same pictures are held out when there are more, also in another shard
    second = write_images(store, tmp_path, [noise[0], noise[7], b"new"], "b" * 16)
    snapshots.create("new", [first, second], Selection())
    held_out = set(keys(store, snapshots.split("new", 0.25, 0, "bytes", hasher.hashes)[1]))
    assert held_out & {f"a{n}" for n in range(80)} == sides[1]
    assert ("b0" in held_out, "b1" in held_out) == ("a0" in sides[1], "a7" in sides[1])
    # a part without rows, and a part of a part, are told
    snapshots.create("few", [second], Selection(count=1))
    with pytest.raises(SelectionError, match="one part would have none"):
        snapshots.split("few", 0.25, 0, "bytes", hasher.hashes)
    with pytest.raises(SelectionError, match="cannot be repeated"):
        snapshots.create("like", [first], train.manifest.selection)


@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 255), max_size=60)), max_size=12), st.data())
@settings(max_examples=100, deadline=None)
def test_alike_is_what_differs_in_few_bits(pictures: list[tuple[int, set[int]]], data: st.DataObject) -> None:
    bases = np.random.default_rng(1).integers(0, 2, (4, 256)).astype(np.uint8)
    rows = [bases[base] ^ np.isin(np.arange(256), list(flipped)) for base, flipped in pictures]
    quality = np.array([data.draw(st.sampled_from([0, 49, 50, 100])) for _ in rows], np.int64)
    packed = np.packbits(np.array(rows, np.uint8).reshape(-1, 256), axis=1).view(np.dtype("<u2"))
    hashes = PictureHashes([str(number) for number in range(len(rows))], packed, quality)
    found = same_pictures(hashes, "near")
    # the groups by comparing all pairs, until nothing changes
    wanted = list(range(len(rows)))
    for _ in rows:
        for one, other in itertools.combinations(range(len(rows)), 2):
            if min(quality[one], quality[other]) >= 50 and (rows[one] != rows[other]).sum() <= MOST_DIFFERENT:
                wanted[one] = wanted[other] = min(wanted[one], wanted[other])
    assert found.tolist() == wanted
    assert same_pictures(hashes, "bytes").tolist() == list(range(len(rows)))
