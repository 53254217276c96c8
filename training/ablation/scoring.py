"""Score a text about a scene of the demo world: its objects, sign words, positions and relations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from samples.scenes import Scene, SceneObject
from samples.truth import is_recalled, is_true, things_named

RESAMPLES = 1000  # of the bootstrap
_NAMED = r"(?:the|an?) ([a-z][a-z -]*?)(?: that says \"[^\"]*\")?"
_RELATION = re.compile(_NAMED + r" is (to the left of|to the right of|above|below) " + _NAMED + r"(?=[.,;]|$)", re.I)
_PLACE = re.compile(_NAMED + r" is at the ((?:top|bottom)(?: left| right)?|left|right|centre)\b", re.I)
_QUOTED = re.compile(r"\"([^\"]+)\"")


@dataclass(frozen=True)
class Tally:
    """Counts over scenes.

    present, recalled: objects without signs, and those that the text names. named, invented: things that the text
    names, and those that are not there. words, read: signs, and those whose word the text quotes. told, right:
    statements on a thing's position in the image or relative to another, and those that are true.
    """

    present: int = 0
    recalled: int = 0
    named: int = 0
    invented: int = 0
    words: int = 0
    read: int = 0
    told: int = 0
    right: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Tally)))


def tally(scene: Scene, text: str) -> Tally:
    """Count for one scene and one text about it."""
    things = {(thing.name, thing.colour) for thing in scene.objects}
    named = things_named(text)
    quoted = {word.upper() for word in _QUOTED.findall(text)}
    statements = statements_of(scene, text)
    return Tally(
        present=len(things),
        recalled=sum(is_recalled(thing, named) for thing in things),
        named=len(named),
        invented=sum(not is_true(thing, things) for thing in named),
        words=len(scene.signs),
        read=sum(sign.text in quoted for sign in scene.signs),
        told=len(statements),
        right=sum(statements),
    )


def statements_of(scene: Scene, text: str) -> list[bool]:
    """Whether each statement on a position in the image, or on the relation of two things, is true.

    A relation is judged by the centres of the boxes, a position by thirds of the image, as the composer's notes use
    the words. Every statement about a thing that is not there is false.
    """
    # a relation holds if any two matching things have it
    relations = [
        any(_stands(a, relation.lower(), b) for a in _things(scene, one) for b in _things(scene, other) if a is not b)
        for one, relation, other in _RELATION.findall(text)
    ]
    # the same for positions in the image
    places = [
        any(place_of(thing, scene.image.size) == place.lower() for thing in _things(scene, phrase))
        for phrase, place in _PLACE.findall(text)
    ]
    return relations + places


def _things(scene: Scene, phrase: str) -> list[SceneObject]:
    """The objects and signs to which a phrase (without its article) may refer."""
    if phrase.lower() == "sign":
        return list(scene.signs)
    named = things_named(phrase)
    return [thing for thing in scene.objects if is_recalled((thing.name, thing.colour), named)]


def _stands(a: SceneObject, relation: str, b: SceneObject) -> bool:
    across, down = a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]
    return {"to the left of": across < 0, "to the right of": across > 0, "above": down < 0, "below": down > 0}[relation]


def place_of(thing: SceneObject, size: tuple[int, int]) -> str:
    """The position as words ("top left", "centre" …): the thirds of the image, across and down, of the box's centre."""
    across, down = (min(2, int(3 * value / side)) for value, side in zip(thing.centre, size, strict=True))
    words = (("top", "", "bottom")[down], ("left", "", "right")[across])
    return " ".join(word for word in words if word) or "centre"


FIGURES = {
    "objects recalled": ("recalled", "present"),
    "objects invented": ("invented", "named"),
    "text read": ("read", "words"),
    "relations right": ("right", "told"),
    "right relations a scene": ("right", ""),
}


def figures(tallies: Sequence[Tally]) -> dict[str, float]:
    """The figures over all scenes: shares in 0..1 (NaN if nothing was counted), and right statements per scene."""
    total = sum(tallies, Tally())
    found = {}
    for name, (part, whole) in FIGURES.items():
        count = getattr(total, whole) if whole else len(tallies)
        found[name] = getattr(total, part) / count if count else float("nan")
    return found


def intervals(tallies: Sequence[Tally], seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of the figures by the percentile bootstrap over scenes (Efron and Tibshirani 1993, ch. 13)."""
    # resample the scenes, sum their counts
    rng = np.random.default_rng(seed)
    counts = np.array([[getattr(one, field.name) for field in fields(Tally)] for one in tallies], np.float64)
    names = [field.name for field in fields(Tally)]
    totals = np.stack([counts[rng.integers(len(counts), size=len(counts))].sum(0) for _ in range(RESAMPLES)])
    # the figures of each resample, and their percentiles
    found = {}
    for name, (part, whole) in FIGURES.items():
        below = totals[:, names.index(whole)] if whole else np.full(RESAMPLES, float(len(counts)))
        with np.errstate(invalid="ignore"):
            shares = totals[:, names.index(part)] / below
        shares = shares[np.isfinite(shares)]
        low, high = np.percentile(shares, (2.5, 97.5)) if len(shares) else (np.nan, np.nan)
        found[name] = (float(low), float(high))
    return found
