"""The truth of drawn scenes, from the JSON files that `strata samples` writes beside the images in shards."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from strata.core import Record
from strata.evaluation.truth import Thing, Truth
from strata.shards import ImageReader, read_file
from strata.store import file_system

SIGN = "sign"
MAX_JSON = 2**20  # bytes of the JSON of one scene; the scenes of `strata samples` have about 2,000


def scene_truths(
    reader: ImageReader, records: Iterable[Record], advance: Callable[[int, int | None], None] = lambda done, all: None
) -> dict[str, Truth]:
    """The truths of those records whose images have one beside them, by key.

    The shards of the records are walked once; only the first one, if it has no scenes. A shard that cannot be read now
    has none.
    """
    by_file: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for record in records:
        by_file[record.image.uri][record.image.offset] = record.key
    truths: dict[str, Truth] = {}
    for number, (uri, keys) in enumerate(by_file.items(), 1):
        for key, content in _beside(reader, uri, keys):
            if truth := scene_truth(content):
                truths[key] = truth
        advance(number, len(by_file))
        if not truths:
            break
    return truths


def _beside(reader: ImageReader, uri: str, keys: Mapping[int, str]) -> Iterator[tuple[str, bytes]]:
    """The JSON files beside images, by the images' keys. keys: by the images' offsets in the file."""
    try:
        at = reader.locate(uri)
        # an image that is a file of its own has its JSON beside it
        if list(keys) == [0]:
            yield keys[0], read_file(f"{posixpath.splitext(at)[0]}.json")
            return
        filesystem, path = file_system(at)
        with filesystem.open(path, "rb") as file:
            yield from _in_tar(file, keys)
    except (OSError, tarfile.TarError, ValueError):
        return


def _in_tar(file: IO[bytes], keys: Mapping[int, str]) -> Iterator[tuple[str, bytes]]:
    # the members of a sample have one name up to the first full stop, and stand together
    images: dict[str, str] = {}
    waiting: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            stem, _, extension = posixpath.basename(member.name).partition(".")
            stem = posixpath.join(posixpath.dirname(member.name), stem)
            if member.offset_data in keys:
                images[stem] = keys[member.offset_data]
            elif extension.lower() == "json" and member.isfile() and member.size <= MAX_JSON:
                content = tar.extractfile(member)
                waiting[stem] = content.read() if content else b""
            if stem in images and stem in waiting:
                yield images.pop(stem), waiting.pop(stem)
            if len(waiting) > 64:
                waiting.pop(next(iter(waiting)))


def scene_truth(content: bytes) -> Truth | None:
    """The truth under "scene" of a sample's JSON; None for other JSON."""
    try:
        scene = json.loads(content)["scene"]
        return of_scene(scene)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def of_scene(scene: Mapping[str, Any]) -> Truth:
    """The truth of a scene as `samples.shards` writes it. Signs are read and placed, but need not be named."""
    things = [
        Thing(str(one["name"]), _box(one["box"]), frozenset({one["colour"]} if one["colour"] else ()))
        for one in scene["objects"]
    ]
    things += [Thing(SIGN, _box(sign["box"]), judged=False) for sign in scene["signs"]]
    texts = tuple(str(sign["text"]) for sign in scene["signs"])
    known = frozenset({"attributes", "counts", "text"})
    return Truth(tuple(things), texts, (), known, allowed=frozenset({SIGN}))  # type: ignore[arg-type]


def _box(sides: Iterable[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, sides)
    return left, top, right, bottom
