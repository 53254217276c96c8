"""Sentences in the elaborate style of large models about known pictures, each with the claims that a model finds in it.

Many say things in ways that no closed list has: "flanked on its left by", "a trio of", "crimson-hued". A falsehood
differs from the true sentence in one word or name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from strata.core import Record
from tests.models.verifier.records import record

Claims = list[dict[str, Any]]


@dataclass(frozen=True)
class Picture:
    """left, right: (colour, noun), one left of the other; group: a noun in the singular and the plural, three of it."""

    left: tuple[str, str]
    right: tuple[str, str]
    group: tuple[str, str]
    carrier: str
    text: str
    setting: str
    wrong: dict[str, str]  # by kind, what is not there

    @property
    def record(self) -> Record:
        """The picture's layers."""
        things: list[tuple[str, tuple[float, float, float, float]]] = [
            (f"a {' '.join(self.left)}", (20, 220, 180, 380)),
            (f"a {' '.join(self.right)}", (420, 230, 600, 390)),
            (f"a {self.carrier}", (240, 20, 400, 100)),
        ]
        things += [(f"a {self.group[0]}", (60 + 180 * i, 410, 140 + 180 * i, 470)) for i in range(3)]
        caption = f"A {self.left[1]} and a {self.right[1]} in a {self.setting}."
        return record(*things, text=[(self.text, (250, 30, 390, 90))], caption=caption, size=(640, 480))


PICTURES = [
    Picture(
        ("red", "car"), ("black", "dog"), ("pigeon", "pigeons"), "sign", "MARKET", "street",
        {"thing": "giraffe", "colour": "green", "quote": "PHARMACY", "setting": "kitchen"},
    ),
    Picture(
        ("white", "cat"), ("blue", "cup"), ("orange", "oranges"), "poster", "COFFEE", "kitchen",
        {"thing": "laptop", "colour": "purple", "quote": "BAKERY", "setting": "beach"},
    ),
    Picture(
        ("yellow", "bicycle"), ("brown", "horse"), ("sheep", "sheep"), "banner", "WELCOME", "field",
        {"thing": "helicopter", "colour": "blue", "quote": "CLOSED", "setting": "bathroom"},
    ),
    Picture(
        ("green", "bench"), ("red", "umbrella"), ("duck", "ducks"), "sign", "NO SWIMMING", "pier",
        {"thing": "suitcase", "colour": "white", "quote": "FREE PARKING", "setting": "kitchen"},
    ),
    Picture(
        ("blue", "boat"), ("white", "horse"), ("bird", "birds"), "flag", "REGATTA", "beach",
        {"thing": "piano", "colour": "red", "quote": "CARNIVAL", "setting": "library"},
    ),
    Picture(
        ("purple", "chair"), ("yellow", "lamp"), ("book", "books"), "poster", "JAZZ NIGHT", "bedroom",
        {"thing": "bicycle", "colour": "green", "quote": "OPERA", "setting": "forest"},
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Told:
    """A sentence with its claims. kind: of its falsehood, "" for a true one; wrong: the words that must not remain."""

    picture: Picture
    text: str
    claims: Claims
    kind: str = ""
    wrong: str = ""


def claim(kind: str, words: str, *things: str, value: str = "") -> dict[str, Any]:
    """A claim as a model writes it, but for the number of its sentence."""
    return {"kind": kind, "words": words, "things": list(things), "value": value}


def sentences(picture: Picture) -> Iterator[Told]:
    """True sentences about a picture, and after each the same with a falsehood."""
    for made in (_things, _colours, _counts, _relations, _quotes, _settings):
        for text, claims, kind, wrong in made(picture):
            yield Told(picture, text, claims, kind, wrong)


_Made = Iterator[tuple[str, Claims, str, str]]


def _things(p: Picture) -> _Made:
    for noun, kind in ((p.left[1], ""), (p.wrong["thing"], "thing")):
        yield f"What draws the eye first is a {noun}.", [claim("thing", f"a {noun}")], kind, noun
        text = f"Alongside the {p.right[1]}, a {noun} completes this carefully balanced composition."
        yield text, [claim("thing", f"the {p.right[1]}"), claim("thing", f"a {noun}")], kind, noun


def _colours(p: Picture) -> _Made:
    for colour, kind in ((p.left[0], ""), (p.wrong["colour"], "colour")):
        bearer = f"The {p.left[1]}"
        told = claim("attribute", f"{colour}-hued", f"The {colour}-hued {p.left[1]}", value=colour)
        yield f"The {colour}-hued {p.left[1]} commands attention.", [told], kind, colour
        told = claim("attribute", f"a rich, saturated {colour}", bearer, value=colour)
        yield f"{bearer} is rendered in a rich, saturated {colour}.", [claim("thing", bearer), told], kind, colour


def _counts(p: Picture) -> _Made:
    for words, number, kind in (("trio", "3", ""), ("quartet", "4", "count")):
        plural = p.group[1]
        told = claim("count", f"A {words} of {plural}", plural, value=number)
        yield f"A {words} of {plural} lends a sense of rhythm to the foreground.", [told], kind, words
    for words, number, kind in (("three", "3", ""), ("five", "5", "count")):
        text = f"In the foreground, {words} {p.group[1]} can be made out."
        yield text, [claim("count", words, f"{words} {p.group[1]}", value=number)], kind, words


def _relations(p: Picture) -> _Made:
    a, b = f"The {p.left[1]}", f"a {p.right[1]}"
    for side, kind in (("right", ""), ("left", "relation")):
        words = f"flanked on its {side} by {b}"
        yield f"{a}, {words}, seems perfectly at ease.", [claim("relation", words, b, a, value=side)], kind, side
        words = f"has the {p.right[1]} as its neighbour to the {side}"
        text = f"{a} {words}."
        yield text, [claim("relation", words, f"the {p.right[1]}", a, value=side)], kind, side


def _quotes(p: Picture) -> _Made:
    for letters, kind in ((p.text, ""), (p.wrong["quote"], "quote")):
        carrier = f"the {p.carrier}"
        text = f'One cannot help but notice the bold lettering on {carrier}, which spells out "{letters}".'
        yield text, [claim("quote", letters, carrier)], kind, letters
        text = f"{letters} is emblazoned across {carrier}."
        yield text, [claim("quote", letters, carrier)], kind, letters


def _settings(p: Picture) -> _Made:
    for place, kind in ((p.setting, ""), (p.wrong["setting"], "setting")):
        yield f"It all unfolds in a tranquil {place}.", [claim("setting", f"a tranquil {place}")], kind, place
        text = f"The backdrop suggests a {place}, lending the picture an unhurried mood."
        yield text, [claim("setting", f"a {place}")], kind, place
