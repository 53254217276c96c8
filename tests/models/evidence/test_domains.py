"""Rows of pictures that a profile's models do not know carry a warning."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image

from models.evidence.domains import (
    DOMAINS,
    MOSTLY_TEXT,
    NAMED_COLOURS,
    OUTSIDE,
    looks_drawn,
    warned,
)
from models.pipeline import VisionPipeline
from samples.backgrounds import BACKGROUND_COLOURS
from samples.labels import photographs
from samples.scenes import SceneOptions, make_scene
from strata.core import ImageReference, Profile, Record, load_profile
from strata.core.layers import TextLine
from tests.checkout import CHECKOUT

ROW = Record(key="a", image=ImageReference(uri="a.jpg", size=1))
FIRST = 12_000_000  # seeds that no threshold was chosen on


def demo() -> Profile:
    return load_profile("demo", CHECKOUT / "models" / "profiles")


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def scenes() -> Iterable[Image.Image]:
    """Scenes as they are drawn, as JPEG, empty ones, and ones with drawings that no model was trained on."""
    options = [SceneOptions(), SceneOptions(), SceneOptions(max_objects=0), SceneOptions(sprites="unseen")]
    for number in range(150):
        image = make_scene(FIRST + number, options[number % 4]).image
        yield image if number % 3 else as_jpeg(image, 75 + number % 20)


def test_photographs_are_warned_of_and_scenes_are_not() -> None:
    pictures = photographs()
    for half in ("tuning", "held-out"):
        chosen = [picture for picture in pictures if picture.half == half]
        known = [picture.name for picture in chosen if looks_drawn(Image.open(picture.file).convert("RGB"))]
        assert len(known) <= 0.05 * len(chosen), known
    refused = [number for number, image in enumerate(scenes()) if not looks_drawn(image)]
    assert len(refused) <= 3, refused  # 2 % of 150


def test_the_named_colours_are_those_of_the_scenes() -> None:
    assert tuple(BACKGROUND_COLOURS.values()) == NAMED_COLOURS


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3000, 2), (7, 9)])
def test_odd_sizes_are_judged(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    assert isinstance(looks_drawn(Image.fromarray(noise)), bool)


def test_the_demo_warns_of_what_it_does_not_know_and_other_profiles_do_not() -> None:
    coffee = next(picture for picture in photographs() if picture.name == "coffee")
    photograph, scene = Image.open(coffee.file).convert("RGB"), make_scene(FIRST).image
    batch = [(ROW, photograph), (ROW, scene), (ROW.failed("decode", "OSError", "cut off"), photograph)]
    records = VisionPipeline(demo(), stages={}).run(batch[:2])
    assert [[warning.type for warning in record.warnings] for record in records] == [[OUTSIDE], []]
    assert records[0].warnings[0].detail == (
        "the models of profile demo know only drawn scenes; this picture does not look like one"
    )
    unbounded = demo().model_copy(update={"domain": None})
    assert not VisionPipeline(unbounded, stages={}).run(batch[:1])[0].warnings
    # a row without layers says why it has none, and nothing else
    assert not warned(*batch[2], "demo", "drawn_scenes").warnings


def test_a_domain_is_not_part_of_a_fingerprint() -> None:
    elsewhere = demo().model_copy(update={"domain": None})
    assert demo().domain in DOMAINS
    assert demo().fingerprint("llm") == elsewhere.fingerprint("llm")


def lines_of(count: int, share: float, kept: bool = True) -> list[TextLine]:
    """Lines that cover a share of a picture of 100 by 100 pixels together."""
    one = TextLine(box=(0, 0, 100, 100 * share / max(1, count)), text="a", score=0.9)
    return [one if kept else one.model_copy(update={"kept": False, "reason": "low_score"})] * count


@pytest.mark.parametrize(
    ("lines", "mostly"),
    [
        # a page, a photographed one, a screenshot; a photograph of a sign, and of books
        (lines_of(34, 0.59), True),
        (lines_of(7, 0.827), True),
        (lines_of(79, 0.19), True),
        (lines_of(5, 0.079), False),
        (lines_of(6, 0.073), False),
        # one large word, and small letters all over
        (lines_of(1, 0.9), False),
        (lines_of(200, 0.02), False),
        (lines_of(60, 0.5), True),
        (lines_of(60, 0.5, kept=False), False),
        ([], False),
        (None, False),
    ],
)
def test_a_picture_that_is_mostly_text_is_warned_of(lines: list[TextLine] | None, mostly: bool) -> None:
    scene = make_scene(FIRST).image
    row = ROW.model_copy(update={"text": lines, "width": 100, "height": 100})
    found = {
        domain: [one.type for one in warned(row, scene, "p", domain).warnings] for domain in (None, "drawn_scenes")
    }
    assert found[None] == ([MOSTLY_TEXT] if mostly else [])
    # and a page is no drawn scene, whatever its pixels are
    assert found["drawn_scenes"] == ([OUTSIDE, MOSTLY_TEXT] if mostly else [])
