"""Write webdataset shards of scenes in img2dataset's layout: tar (KEY.jpg, KEY.json, KEY.txt), parquet, stats."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from samples.scenes import HELD_OUT_SEED, Scene, SceneOptions, make_scene

QUALITY = 92
MAX_SHARD_SIZE = 10_000  # img2dataset's keys have four digits for the index in the shard
META_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("caption", "url", "key", "status", "error_message")),
        *(pa.field(name, pa.int32()) for name in ("width", "height", "original_width", "original_height")),
        *(pa.field(name, pa.string()) for name in ("exif", "sha256")),
    ]
)


@dataclass(frozen=True)
class ShardOptions:
    """What to write: image i is the scene of seed HELD_OUT_SEED + seed + i.

    Raises ValueError on a negative count or seed, or a shard size outside 1..10,000.
    """

    count: int
    seed: int = 0
    shard_size: int = MAX_SHARD_SIZE
    scenes: SceneOptions = field(default_factory=SceneOptions)

    def __post_init__(self) -> None:
        if self.count < 0 or self.seed < 0:
            raise ValueError("count and seed must not be negative")
        if not 1 <= self.shard_size <= MAX_SHARD_SIZE:
            raise ValueError(f"the shard size must lie in 1..{MAX_SHARD_SIZE}")
        if not 0 <= self.scenes.min_objects <= self.scenes.max_objects <= 6:
            raise ValueError("the numbers of objects must lie in 0..6, the smallest first")


def write_shards(out: Path, options: ShardOptions, on_image: Callable[[], None] = lambda: None) -> list[Path]:
    """Write `00000.tar`, `00000.parquet`, `00000_stats.json` and so on into `out`; return the tars' paths.

    The same options give the same bytes in tars and Parquet files. on_image: called after each image.
    """
    out.mkdir(parents=True, exist_ok=True)
    tars = []
    for shard, first in enumerate(range(0, options.count, options.shard_size)):
        size = min(options.shard_size, options.count - first)
        tars.append(_write_shard(out, shard, first, size, options, on_image))
    return tars


def _write_shard(
    out: Path, shard: int, first: int, size: int, options: ShardOptions, on_image: Callable[[], None]
) -> Path:
    start = time.time()
    metas: list[dict[str, Any]] = []
    target, temporary = out / f"{shard:05d}.tar", out / f".{shard:05d}.tar.tmp"
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(size):
            # three members per image, in img2dataset's order
            seed = HELD_OUT_SEED + options.seed + first + i
            scene = make_scene(seed, options.scenes)
            jpg, meta = encode_sample(scene, f"{shard:05d}{i:04d}", seed)
            add_member(tar, f"{meta['key']}.jpg", jpg)
            add_member(tar, f"{meta['key']}.json", json.dumps(meta, indent=4).encode())
            add_member(tar, f"{meta['key']}.txt", scene.alt_text.encode())
            metas.append(meta)
            on_image()
    # the tar appears when it is complete; then the files that img2dataset writes beside it
    temporary.replace(target)
    rows = [{name: meta[name] for name in META_SCHEMA.names} for meta in metas]
    pq.write_table(pa.Table.from_pylist(rows, META_SCHEMA), out / f"{shard:05d}.parquet")
    (out / f"{shard:05d}_stats.json").write_text(json.dumps(_stats(size, start), indent=4), encoding="utf-8")
    return target


def encode_sample(scene: Scene, key: str, seed: int) -> tuple[bytes, dict[str, Any]]:
    """Encode a scene as JPEG bytes and img2dataset's metadata, with the truth under "scene" (boxes in pixels)."""
    # the image, as img2dataset stores it
    buffer = io.BytesIO()
    scene.image.save(buffer, "JPEG", quality=QUALITY)
    jpg = buffer.getvalue()
    width, height = scene.image.size
    # its metadata, with the scene's truth
    meta = {
        "caption": scene.alt_text,
        "url": f"scene:{seed}",
        "key": key,
        "status": "success",
        "error_message": None,
        "width": width,
        "height": height,
        "original_width": width,
        "original_height": height,
        "exif": "{}",
        "sha256": hashlib.sha256(jpg).hexdigest(),
        "scene": {
            "objects": [
                {"phrase": thing.phrase, "name": thing.name, "colour": thing.colour, "box": thing.box}
                for thing in scene.objects
            ],
            "signs": [{"text": sign.text, "box": sign.box} for sign in scene.signs],
            "relations": scene.relations,
            "background": scene.background,
            "caption": scene.caption,
        },
    }
    return jpg, meta


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar; the same files give the same bytes."""
    info = tarfile.TarInfo(name)  # mtime 0 and no owner: the bytes depend only on the scenes
    info.size = len(data)
    info.mode = 0o444
    tar.addfile(info, io.BytesIO(data))


def _stats(size: int, start: float) -> dict[str, Any]:
    """The statistics that img2dataset writes beside a complete shard, with the times of this run."""
    end = time.time()
    return {
        "count": size,
        "successes": size,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": end - start,
        "start_time": start,
        "end_time": end,
        "status_dict": {"success": size},
    }
