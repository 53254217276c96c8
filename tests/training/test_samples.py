"""The demo world: scenes repeat by seed and their truth holds; shards have img2dataset's layout."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from samples.scenes import HELD_OUT_SEED, KNOWN, PHRASES, POOLS, UNSEEN, SceneOptions, make_scene
from samples.shards import ShardOptions, encode_sample, write_shards
from samples.sprites import CELL, Sprite, render_sprite
from samples.training.matcher_crops import UNNAMED, distractor_pool

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(HELD_OUT_SEED, HELD_OUT_SEED + 120)


def members(tar: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(tar) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def metas(tar: Path) -> list[dict[str, Any]]:
    return [json.loads(data) for name, data in members(tar) if name.endswith(".json")]


def test_same_seed_same_scene() -> None:
    a, b = make_scene(HELD_OUT_SEED), make_scene(HELD_OUT_SEED)
    assert a.image.tobytes() == b.image.tobytes() and a.caption == b.caption
    assert make_scene(HELD_OUT_SEED + 1).image.tobytes() != a.image.tobytes()


def test_boxes_masks_and_phrases() -> None:
    counts = set()
    for seed in SEEDS:
        scene = make_scene(seed)
        width, height = scene.image.size
        counts.add(len(scene.objects))
        phrases = [thing.phrase for thing in scene.objects]
        assert len(set(phrases)) == len(phrases) and set(phrases) <= set(PHRASES)
        masks = [thing.mask for thing in (*scene.objects, *scene.signs)]
        for thing, mask in zip((*scene.objects, *scene.signs), masks, strict=True):
            x1, y1, x2, y2 = thing.box
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            assert mask.shape == (height, width) and mask.any()
            outside = mask.copy()
            outside[y1:y2, x1:x2] = False
            assert not outside.any()
            assert mask.sum() > 0.12 * (x2 - x1) * (y2 - y1), "nearly nothing of it is visible"
        assert not masks or np.sum(masks, axis=0).max() <= 1, "a pixel belongs to one thing"
    assert counts == set(range(7))


def test_relations_hold() -> None:
    for seed in SEEDS:
        scene = make_scene(seed)
        centres = {thing.phrase: thing.centre for thing in (*scene.objects, *scene.signs)}
        for a, relation, b in scene.relations:
            if "a sign" in (a, b) and len(scene.signs) > 1:
                continue  # two signs share a phrase
            (ax, ay), (bx, by) = centres[a], centres[b]
            assert {"to the left of": ax < bx, "above": ay < by, "below": ay > by}[relation]


def test_unseen_sprites_stay_apart() -> None:
    unseen = {sprite.name for sprite in UNSEEN}
    assert unseen.isdisjoint(sprite.name for sprite in KNOWN)
    assert {sprite.emoji for sprite in UNSEEN}.isdisjoint(sprite.emoji for sprite in KNOWN)
    for seed in SEEDS:
        assert unseen.isdisjoint(thing.name for thing in make_scene(seed).objects)
        assert {thing.name for thing in make_scene(seed, SceneOptions(sprites="unseen")).objects} <= unseen


def test_layout(tmp_path: Path) -> None:
    ticks: list[int] = []
    tars = write_shards(tmp_path, ShardOptions(count=5, shard_size=2), lambda: ticks.append(1))
    assert [tar.name for tar in tars] == ["00000.tar", "00001.tar", "00002.tar"] and len(ticks) == 5
    files = members(tars[1])
    assert [name for name, _ in files] == [
        f"{key}.{kind}" for key in ("000010000", "000010001") for kind in ("jpg", "json", "txt")
    ]
    content = dict(files)
    meta = json.loads(content["000010000.json"])
    image = Image.open(io.BytesIO(content["000010000.jpg"]))
    assert image.size == (meta["width"], meta["height"])
    assert meta["sha256"] == hashlib.sha256(content["000010000.jpg"]).hexdigest()
    assert meta["caption"] == content["000010000.txt"].decode() and meta["status"] == "success"
    truth = make_scene(HELD_OUT_SEED + 2)
    assert meta["scene"]["caption"] == truth.caption
    boxes = [tuple(thing["box"]) for thing in meta["scene"]["objects"]]
    assert boxes == [thing.box for thing in truth.objects]
    table = pq.read_table(tmp_path / "00001.parquet")
    assert table["key"].to_pylist() == ["000010000", "000010001"]
    assert table["sha256"].to_pylist()[0] == meta["sha256"]
    stats = json.loads((tmp_path / "00002_stats.json").read_text())
    assert stats["count"] == stats["successes"] == 1 and stats["status_dict"] == {"success": 1}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shards(tmp_path / name, ShardOptions(count=3, seed=7))
    write_shards(tmp_path / "c", ShardOptions(count=3, seed=8))
    for file in ("00000.tar", "00000.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a/00000.tar").read_bytes() != (tmp_path / "c/00000.tar").read_bytes()


def test_refused_options() -> None:
    for make in (
        lambda: ShardOptions(count=-1),
        lambda: ShardOptions(count=1, seed=-1),
        lambda: ShardOptions(count=1, shard_size=0),
        lambda: ShardOptions(count=1, shard_size=10_001),
        lambda: ShardOptions(count=1, scenes=SceneOptions(min_objects=4, max_objects=2)),
    ):
        with pytest.raises(ValueError):
            make()


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "strata", "samples", "--count", "2", "--out", str(tmp_path), "--sprites", "unseen"]
    command += ["--min-objects", "2", "--max-objects", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "" and "2 images in 1 shard" in done.stdout
    names = {sprite.name for sprite in UNSEEN}
    for meta in metas(tmp_path / "00000.tar"):
        assert {thing["name"] for thing in meta["scene"]["objects"]} <= names


def test_bundled_shard() -> None:
    """The repository's shard: 64 scenes of seeds from HELD_OUT_SEED on."""
    bundled = metas(ROOT / "samples/shards/00000.tar")
    assert len(bundled) == 64
    for i in (0, 31, 63):
        assert bundled[i]["scene"]["caption"] == make_scene(HELD_OUT_SEED + i).caption


@pytest.mark.parametrize(("name", "seed"), [("one", 2677), ("two", 4952)])
def test_sample_images(name: str, seed: int) -> None:
    """The single images are scenes too, with 3 and 4 objects and a sign."""
    scene = make_scene(HELD_OUT_SEED + seed)
    assert len(scene.objects) in (3, 4) and len(scene.signs) == 1
    data = (ROOT / f"samples/images/{name}.jpg").read_bytes()
    expected = Image.open(io.BytesIO(encode_sample(scene, name, seed)[0]))
    difference = np.asarray(Image.open(io.BytesIO(data))).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 1


def test_what_the_matcher_must_reject_is_neither_known_nor_measured_on() -> None:
    scenes = {sprite.emoji for sprite in (*KNOWN, *UNSEEN)}
    pools = [{sprite.emoji for sprite in POOLS[distractor_pool(held_out=held)]} for held in (False, True)]
    assert [len(pool) for pool in pools] == [653, 184]
    # the unseen drawings are for the last figures alone, the held-out ones for fitting weights
    assert not pools[0] & pools[1] and not scenes & (pools[0] | pools[1])
    for emoji in (UNNAMED[0].emoji, UNNAMED[-1].emoji):
        sprite = render_sprite(Sprite("", emoji))
        assert 60 <= max(sprite.size) <= CELL and np.asarray(sprite)[..., 3].max() > 250
