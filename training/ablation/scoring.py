"""Score a text about a scene of the demo world: its objects, sign words, positions and relations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from samples.scenes import Scene, SceneObject
from samples.truth import is_recalled, is_true, things_named

RESAMPLES = 1000  # of the bootstrap
PLACE = r"(?:(?:top|bottom)(?: left| right)?|left|right|centre)"
_NAMED = r"(?:the|an?) ([a-z][a-z -]*?)(?: that says \"[^\"]*\")?"
_RELATION = re.compile(_NAMED + r" is (to the left of|to the right of|above|below) " + _NAMED + r"(?=[.,;]|$)", re.I)
_PLACED = re.compile(_NAMED + rf"(?: is)? at the ({PLACE})\b", re.I)
_QUOTED = re.compile(r"\"([^\"]+)\"")


@dataclass(frozen=True)
class Tally:
    """Counts over scenes. What a text says several times counts once.

    present, recalled: objects without signs, and those that the text names. named, invented: things that the text
    names, and those that are not there. words, read: signs, and those whose word the text quotes. quoted, misread:
    words that the text quotes, and those that are on no sign. told, right, unfounded: statements on a thing's position
    in the image or relative to another, those that are true, and those about a thing that is not there.
    """

    present: int = 0
    recalled: int = 0
    named: int = 0
    invented: int = 0
    words: int = 0
    read: int = 0
    quoted: int = 0
    misread: int = 0
    told: int = 0
    right: int = 0
    unfounded: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Tally)))

    @property
    def founded(self) -> int:
        """Statements on positions of things that are there."""
        return self.told - self.unfounded

    @property
    def misplaced(self) -> int:
        """Those of them that are false."""
        return self.founded - self.right

    @property
    def true(self) -> int:
        """True statements: things that are there, words that are on a sign, and right positions."""
        return self.named - self.invented + self.quoted - self.misread + self.right

    @property
    def false(self) -> int:
        """False statements of the same three kinds."""
        return self.invented + self.misread + self.told - self.right


class Statement(NamedTuple):
    """Whether the things of a statement on positions are there, and whether it is true."""

    founded: bool
    right: bool


def tally(scene: Scene, text: str) -> Tally:
    """Count for one scene and one text about it."""
    things = {(thing.name, thing.colour) for thing in scene.objects}
    signs = {sign.text for sign in scene.signs}
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
        quoted=len(quoted),
        misread=len(quoted - signs),
        told=len(statements),
        right=sum(statement.right for statement in statements),
        unfounded=sum(not statement.founded for statement in statements),
    )


def statements_of(scene: Scene, text: str) -> list[Statement]:
    """The distinct statements on a position in the image, or on the relation of two things.

    A relation is judged by the centres of the boxes, a position by thirds of the image, as the composer's notes use
    the words. A statement about a thing that is not there is false.
    """
    # a relation holds if any two matching things have it; "the sign is above the sign" says nothing
    statements = []
    for one, relation, other in dict.fromkeys(
        found for found in _RELATION.findall(text.lower()) if found[0] != found[2]
    ):
        pairs = [(a, b) for a in _things(scene, one) for b in _things(scene, other) if a is not b]
        statements.append(Statement(bool(pairs), any(_stands(a, relation, b) for a, b in pairs)))
    # the same for positions in the image
    for phrase, place in dict.fromkeys(_PLACED.findall(text.lower())):
        things = _things(scene, phrase)
        statements.append(Statement(bool(things), any(place_of(it, scene.image.size) == place for it in things)))
    return statements


def _things(scene: Scene, phrase: str) -> list[SceneObject]:
    """The objects and signs to which a phrase (without its article) may refer."""
    if phrase == "sign":
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


@dataclass(frozen=True)
class Figure:
    """A figure of a table: the sum of one count of the tallies, divided by that of another, or by the scenes.

    part, whole: names of counts of a Tally; without a whole it is a count per scene, else a share in 0..1.
    """

    part: str
    whole: str = ""


FIGURES = {
    "objects recalled": Figure("recalled", "present"),
    "objects invented": Figure("invented", "named"),
    "text read": Figure("read", "words"),
    "positions right": Figure("right", "told"),
    "true statements a scene": Figure("true"),
    "false statements a scene": Figure("false"),
}
# the kinds of false statements, and how often a position is right if its thing is there
KINDS = {
    "false objects a scene": Figure("invented"),
    "false texts a scene": Figure("misread"),
    "positions of absent things a scene": Figure("unfounded"),
    "wrong positions of present things a scene": Figure("misplaced"),
    "right, of the positions of present things": Figure("right", "founded"),
}


class Estimate(NamedTuple):
    """A figure and its 95 % interval; NaN if nothing was counted."""

    value: float
    low: float
    high: float


def estimate(seeds: Sequence[Sequence[Tally]], figure: Figure) -> Estimate:
    """Estimate a figure from the tallies of the same scenes in trainings with several seeds.

    The interval covers the choice of the scenes and the chance in a training. Scenes and seeds are crossed, so both
    are resampled independently: the pigeonhole bootstrap (A. B. Owen, Annals of Applied Statistics 1(2), 2007). Of S
    seeds S - 1 are drawn, because S draws from so few values make the variance too small, by (S - 1) / S (J. N. K. Rao
    and C. F. J. Wu, JASA 83, 1988). The percentiles are those of Efron and Tibshirani 1993, chapter 13.
    """
    # counts (seeds, scenes)
    part, whole = (_counts(seeds, name) for name in (figure.part, figure.whole))
    count, scenes = part.shape
    # how often each seed and each scene is drawn in each resample; a single seed is always drawn
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(max(1, count - 1), np.full(count, 1 / count), size=RESAMPLES)
    seen = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=RESAMPLES)
    # the figure of each resample, and the percentiles
    with np.errstate(invalid="ignore", divide="ignore"):
        value = part.sum() / whole.sum()
        resampled = _weighted(part, drawn, seen) / _weighted(whole, drawn, seen)
    resampled = resampled[np.isfinite(resampled)]
    low, high = np.percentile(resampled, (2.5, 97.5)) if np.isfinite(value) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


Counts = np.typing.NDArray[np.float64]
Draws = np.typing.NDArray[np.int64]


def _counts(seeds: Sequence[Sequence[Tally]], name: str) -> Counts:
    """A count of each tally, (seeds, scenes); 1 for each answer if the name is empty."""
    return np.array([[getattr(one, name) if name else 1 for one in tallies] for tallies in seeds], np.float64)


def _weighted(counts: Counts, drawn: Draws, seen: Draws) -> Counts:
    """The sum of counts (seeds, scenes) in each resample, by how often each seed and scene is drawn in it."""
    return np.asarray(((drawn @ counts) * seen).sum(1))
