"""What the stages of the group `features` are asked: what must hold of their values, whatever the pictures show.

Whether a score is worth anything for a user's pictures is not asked here: see `python -m bench.curation scores`.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from models.prove.checks import share_at_least
from models.prove.pictures import Picture
from models.prove.questions import Questions
from strata.core import Check

COPIED = 31  # of the 256 bits of a PDQ hash: two hashes that differ by less are of one picture, says its specification
SAFE = 0.5
NEAR = 0.01  # a probability on another machine
# what the wheel's own code gives for the photographs of the proof
OPEN_NSFW = {"cat": 0.0002, "cup": 0.0143, "astronaut": 0.0318, "sign": 0.0015}
FACES = {"astronaut": 1}
Vectors = np.typing.NDArray[np.float64]


def feature_questions(stage: str, pictures: Sequence[Picture], rated: Sequence[Any] = ()) -> Questions | None:
    """The questions to a stage of the group `features`; None for one that is not known here.

    rated: embeddings for rising ratings, of a stage that has them.
    """
    match stage:
        case "aesthetic" if len(rated):
            return Questions(list(rated), [f"rating {rating}" for rating in range(len(rated))], _rises)
        case "hash":
            return _twice(pictures, _copy, lambda results: _near(stage, pictures, results, _bits))
        case "embedding":
            return _twice(pictures, _copy, lambda results: _near(stage, pictures, results, _angles(stage)))
        case "sharpness":
            return _twice(pictures, _blurred, lambda results: _falls(stage, pictures, results))
        case "text_embedding":
            return _of_texts(stage, pictures)
        case "faces":
            return _once(pictures, lambda results: _counted(stage, pictures, results))
        case "nsfw":
            return _once(pictures, lambda results: _safe(stage, pictures, results))
    return None


def _once(pictures: Sequence[Picture], judge: Callable[[list[Any]], list[Check]]) -> Questions:
    return Questions([picture.image for picture in pictures], [picture.name for picture in pictures], judge)


def _twice(
    pictures: Sequence[Picture],
    change: Callable[[Image.Image], Image.Image],
    judge: Callable[[list[Any]], list[Check]],
) -> Questions:
    """All pictures, then all of them changed."""
    images = [picture.image for picture in pictures]
    names = [picture.name for picture in pictures]
    return Questions([*images, *map(change, images)], [*names, *(f"{name}, changed" for name in names)], judge)


def _of_texts(stage: str, pictures: Sequence[Picture]) -> Questions:
    """The captions, then the same in small letters without their full stops."""
    captions = [picture.caption for picture in pictures]
    texts = [*captions, *(caption.lower().rstrip(".") for caption in captions)]
    return Questions(texts, texts, lambda results: _near(stage, pictures, results, _angles(stage)))


def _copy(image: Image.Image) -> Image.Image:
    """The picture at three quarters of its size, from a JPEG file of low quality."""
    file: Any = io.BytesIO()
    image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(file, "JPEG", quality=50)
    with Image.open(file) as opened:
        return opened.convert("RGB")


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 256))


def _bits(results: Sequence[Any]) -> Vectors:
    """By how many bits hashes differ, over the most of one picture: (results, results)."""
    hashes = np.array([np.frombuffer(one["pdq"], np.uint8) for one in results])
    differing: Vectors = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2) / (COPIED + 1)
    return differing


def _angles(stage: str) -> Callable[[Sequence[Any]], Vectors]:
    """A function that gives one minus the cosines of vectors, which have length 1: (results, results)."""

    def angles(results: Sequence[Any]) -> Vectors:
        vectors = np.array([np.asarray(one[stage], np.float64) for one in results])
        apart: Vectors = 1 - vectors @ vectors.T
        return apart

    return angles


def _near(
    stage: str, pictures: Sequence[Picture], results: list[Any], distances: Callable[[Sequence[Any]], Vectors]
) -> list[Check]:
    """Whether each copy is nearer to its picture than another picture is, and below 1."""
    if None in results:
        return [share_at_least(stage, "copies", ["an item has failed"], 1.0)]
    apart, count = distances(results), len(pictures)
    faults = []
    for number, picture in enumerate(pictures):
        others = np.delete(apart[number, :count], number)
        own = apart[number, count + number]
        right = own < min(1.0, *others)
        faults.append(None if right else f"{picture.name}: {own:.3f} to its copy, {min(others):.3f} to another picture")
    return [share_at_least(stage, "copies", faults, 1.0)]


def _falls(stage: str, pictures: Sequence[Picture], results: list[Any]) -> list[Check]:
    faults = [
        None if one and other and one[stage] > other[stage] else f"{picture.name}: {one} sharp, {other} blurred"
        for picture, one, other in zip(pictures, results, results[len(pictures) :], strict=False)
    ]
    return [share_at_least(stage, "blurred", faults, 1.0)]


def _rises(results: list[Any]) -> list[Check]:
    """Whether each rating's score is above that of the one below."""
    scores = [one["aesthetic"] if one else math.nan for one in results]
    faults = [
        None if lower < higher else f"rating {rating}: {higher:.2f}, and {lower:.2f} of the one below"
        for rating, (lower, higher) in enumerate(itertools.pairwise(scores), start=1)
    ]
    return [share_at_least("aesthetic", "rises", faults, 1.0)]


def _counted(stage: str, pictures: Sequence[Picture], results: list[Any]) -> list[Check]:
    wanted = [(picture.name, FACES.get(picture.name, 0)) for picture in pictures]
    faults = [
        None if one and one[stage] == number else f"{name}: {one and one[stage]} and not {number}"
        for (name, number), one in zip(wanted, results, strict=True)
    ]
    return [share_at_least(stage, "counts", faults, 1.0)]


def _safe(stage: str, pictures: Sequence[Picture], results: list[Any]) -> list[Check]:
    """All pictures are safe; for the photographs the numbers of the wheel's own code are known."""
    found = [(picture.name, one[stage] if one else 1.0) for picture, one in zip(pictures, results, strict=True)]
    faults = [None if value < SAFE else f"{name}: {value:.3f}" for name, value in found]
    known = [(name, value, OPEN_NSFW[name]) for name, value in found if name in OPEN_NSFW]
    others = [
        None if abs(value - right) <= NEAR else f"{name}: {value:.4f}, not {right}" for name, value, right in known
    ]
    return [
        share_at_least(stage, "safe", faults, 1.0),
        *([share_at_least(stage, "published", others, 1.0)] if known else []),
    ]
