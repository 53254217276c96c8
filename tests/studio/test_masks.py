"""Masks in the browser are those of COCO's own code, and their outlines enclose their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page
from pycocotools import mask as coco

from tests.studio.conftest import Opener, Scenes

# the masks of a list decoded, and the area within each outline (by the shoelace formula over its loops)
SCRIPT = """async (masks) => {
  const { outlineOf, pixelsOf } = await import(new URL("static/studio/masks.js", document.baseURI));
  const area = (path) => path.split("Z").filter(Boolean).reduce((sum, loop) => {
    const points = loop.slice(1).split("L").map((point) => point.split(" ").map(Number));
    return sum + points.reduce((part, [x, y], index) => {
      const [nextX, nextY] = points[(index + 1) % points.length];
      return part + (x * nextY - nextX * y) / 2;
    }, 0);
  }, 0);
  return masks.map((mask) => ({ pixels: [...pixelsOf(mask)], area: area(outlineOf(mask)) }));
}"""


@pytest.fixture
def page(scenes: Scenes, opened: Opener) -> Iterator[Page]:
    with opened(f"{scenes.url}/#/gallery") as page:
        yield page


def test_masks_are_decoded_and_outlined(page: Page) -> None:
    random = np.random.default_rng(3)
    arrays = [
        random.random(tuple(random.integers(1, 60, 2))) < share
        for share in (0, 0.02, 0.3, 0.7, 0.98, 1)
        for _ in range(5)
    ]
    # long runs have differences that are negative and large
    arrays += [np.tri(200, 300, k, dtype=bool) for k in (-50, 0, 80)]
    masks: list[dict[str, Any]] = []
    for array in arrays:
        found = coco.encode(np.asfortranarray(array.astype(np.uint8)))
        masks.append({"size": list(found["size"]), "counts": found["counts"].decode()})
    for array, found in zip(arrays, page.evaluate(SCRIPT, masks), strict=True):
        assert found["pixels"] == array.astype(int).flatten(order="F").tolist()
        assert found["area"] == array.sum()
