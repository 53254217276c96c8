"""What a calibration reads: described images of a job with their records, and pairs that a person has labelled."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from strata.core import Box, Record, Status
from strata.errors import InvalidInput, plain_line
from strata.images import ImageError, decode
from strata.shards import ImageReader
from strata.store import PartsOf, Source, Store

READ_TOGETHER = 16  # images of one part
LAYERS = ("region", "object")
_SEED = 0  # of the choice of images, so that the same job gives the same images


class LabelledPair(NamedTuple):
    """An image, a box in it (None: all of it), and whether a phrase is right for it. layer: "region" or "object"."""

    image: Image.Image
    box: Box | None
    phrase: str
    right: bool
    layer: str


def described_images(
    store: Store, source: str, most: int, max_pixels: int, advance: Callable[[int], None]
) -> Iterator[tuple[Record, Image.Image]]:
    """Records with regions or objects, and their images, at most `most`, chosen at random.

    source: a job or a data set, see `PartsOf.sources`. An image that cannot be read now is left out. advance: is called
    with the number of images so far. Raises UnknownSource, BrokenPart and OSError.
    """
    parts = PartsOf(store).sources([source])
    random.Random(_SEED).shuffle(parts)
    count = 0
    for part in parts:
        if count >= most:
            return
        records = store.first(Source(part, part.path), lambda at: store.to_records(store.decoded(at)[0], at))
        for found in _with_images(store, records, most - count, max_pixels):
            yield found
            count += 1
            advance(count)


def _with_images(
    store: Store, records: Sequence[Record], most: int, max_pixels: int
) -> Iterator[tuple[Record, Image.Image]]:
    reader = ImageReader(store)
    told = [one for one in records if one.status is Status.SUCCEEDED and (one.regions or one.objects)]
    chosen = random.Random(_SEED).sample(told, min(most, len(told)))
    for first in range(0, len(chosen), READ_TOGETHER):
        batch = chosen[first : first + READ_TOGETHER]
        for record, data in zip(batch, reader.read([one.image for one in batch]), strict=True):
            if isinstance(data, Exception):
                continue
            try:
                yield record, decode(data, max_pixels)
            except ImageError:
                continue


def labelled_pairs(path: Path, max_pixels: int) -> list[LabelledPair]:
    """The pairs of a file of JSON lines: `image` (a path, relative to the file), `box`, `phrase`, `right` and `layer`.

    Raises InvalidInput with the number of the line, and OSError for a file that cannot be read.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_labelled(json.loads(line), path.parent, max_pixels))
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
            raise InvalidInput(f"{path}, line {number}: {kind}{plain_line(error)[:200]}") from error
    return found


def _labelled(entry: dict[str, object], folder: Path, max_pixels: int) -> LabelledPair:
    """Raises ValueError, LookupError, TypeError, AttributeError and OSError for an entry that is none."""
    box: Box | None = None
    if entry.get("box") is not None:
        x1, y1, x2, y2 = map(float, entry["box"])  # type: ignore[call-overload]  # a TypeError is the caller's
        box = (x1, y1, x2, y2)
        if not (x1 < x2 and y1 < y2):
            raise ValueError("box is not [x1, y1, x2, y2]")
    layer, right = entry.get("layer", "region"), entry["right"]
    if layer not in LAYERS or not isinstance(right, bool):
        raise ValueError(f"right must be true or false, and layer {' or '.join(LAYERS)}")
    image = decode((folder / str(entry["image"])).read_bytes(), max_pixels)
    return LabelledPair(image, box, str(entry["phrase"]), right, str(layer))
