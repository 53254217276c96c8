"""Falsehoods of six kinds, planted into texts about drawn scenes, and the records that hold the scenes' truth.

The texts follow the demo's grammar exactly: `models.demo.grounding` decides which words may come next, and chance takes
the place of the language model. Counts and relations, which the grammar does not have, are sentences of their own.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from models.demo.grounding import Fact, Guide, Wording
from models.kinds.nouns import several
from models.prompts import facts_of, load_prompt
from models.sentences import upper
from models.verifier.lexicon import is_kind_of
from models.weights.inventory import PROFILES
from samples.scenes import HELD_OUT_SEED, Scene, SceneOptions, make_scene
from samples.sprites import COLOURED, COLOURS, KNOWN, phrase_of
from strata.core import Caption, ImageReference, Record, Region, load_profile
from strata.core.layers import TextLine

FIRST_SEED = HELD_OUT_SEED + 5_000_000  # of scenes that no model and no threshold was tuned on
_WORDS = "OPEN SHUT BAKERY HOTEL MARKET TAXI EXIT CAFE MUSIC GARDEN".split()
_BACKGROUNDS = ("a blue dotted background", "a pink plain background", "a green striped background")
_OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


@dataclass(frozen=True)
class Planted:
    """A text with one falsehood. kind: of the falsehood; wrong: a pattern that must not be found in what remains."""

    kind: str
    text: str
    wrong: str

    def remains(self, text: str) -> bool:
        """Whether a text still says what is false."""
        return re.search(self.wrong, text, re.I) is not None


def scene_of(number: int) -> Scene:
    """One of the scenes that no model was tuned on."""
    return make_scene(FIRST_SEED + number, SceneOptions(min_objects=1))


def record_of(scene: Scene, key: str = "0") -> Record:
    """A record whose layers say what is true of a scene."""
    things = (*scene.objects, *scene.signs)
    return Record(
        key=key,
        image=ImageReference(uri="scene", size=0),
        width=scene.image.width,
        height=scene.image.height,
        caption=Caption(text=scene.caption, score=1.0),
        regions=[Region(box=one.box, phrase=one.phrase or "a sign", score=0.99, match=0.99) for one in things],
        text=[TextLine(box=one.box, text=one.text, score=0.99) for one in scene.signs],
    )


def _facts(scene: Scene) -> list[Fact]:
    """The facts that a text of the demo's grammar tells of a scene."""
    return facts_of(record_of(scene), 12)


def text_of(facts: Sequence[Fact], dice: random.Random) -> str:
    """A text of the demo's grammar about some facts, with chance for a model."""
    wording = _wording()
    guide = Guide(wording, facts, lambda text: tuple(map(ord, text)), 0)
    while not guide.done:
        guide.accept(dice.choice(guide.allowed()))
    return "".join(map(chr, guide.tokens))


@functools.cache
def _wording() -> Wording:
    """The wording of the demo profile's composer."""
    composer = load_profile("demo", PROFILES).stages["composer"].parameters
    wording = load_prompt(composer["prompt"], composer["prompt_sha256"]).wording
    assert wording is not None
    return wording


def true_text(scene: Scene, dice: random.Random) -> str:
    """A text whose every sentence is true of a scene: by the grammar, then relations and counts."""
    parts = [text_of(_facts(scene), dice)]
    parts += [f"{upper(a)} is {relation} {_definite(b)}." for a, relation, b in scene.relations]
    if scene.objects:
        thing = dice.choice(scene.objects)
        same = sum(is_kind_of(other.name, thing.name) for other in scene.objects)
        if same == 1:
            parts.append(f"There is one {thing.phrase.split(' ', 1)[1]} in the picture.")
    return " ".join(parts)


def planted(scene: Scene, kind: str, dice: random.Random) -> Planted | None:
    """A text about a scene with one falsehood of a kind; None if the scene gives no occasion for one."""
    return _PLANTS[kind](scene, dice)


def _with_fact(scene: Scene, kind: str, dice: random.Random, old: str, new: str) -> Planted | None:
    """The text of a scene's facts, one of which has other words."""
    facts = _facts(scene)
    at = [i for i, fact in enumerate(facts) if old in fact.name]
    if not at:
        return None
    facts[at[0]] = replace(facts[at[0]], name=facts[at[0]].name.replace(old, new, 1))
    return Planted(kind, text_of(facts, dice), re.escape(new))


def _thing(scene: Scene, dice: random.Random) -> Planted | None:
    present = [thing.name for thing in (*scene.objects, *scene.signs)]
    absent = [
        sprite.name
        for sprite in KNOWN
        if not any(is_kind_of(sprite.name, name) or is_kind_of(name, sprite.name) for name in present)
    ]
    if not scene.objects:
        return None
    # the noun phrase of one thing becomes that of another one
    old, name = dice.choice(scene.objects), dice.choice(absent)
    colour = dice.choice([*COLOURS]) if name in {sprite.name for sprite in COLOURED} else None
    made = _with_fact(scene, "thing", dice, old.phrase.split(" ", 1)[1], phrase_of(name, colour).split(" ", 1)[1])
    return made and replace(made, wrong=name)


def _colour(scene: Scene, dice: random.Random) -> Planted | None:
    coloured = [thing for thing in scene.objects if thing.colour]
    if not coloured:
        return None
    thing = dice.choice(coloured)
    known = {other.colour for other in scene.objects if is_kind_of(other.name, thing.name)}
    new = dice.choice([colour for colour in COLOURS if colour not in known])
    return _with_fact(scene, "colour", dice, f"{thing.colour} {thing.name}", f"{new} {thing.name}")


def _count(scene: Scene, dice: random.Random) -> Planted | None:
    if not scene.objects:
        return None
    thing = dice.choice(scene.objects)
    number, told = dice.choice([("two", 2), ("three", 3), ("four", 4)])
    if sum(is_kind_of(other.name, thing.name) for other in scene.objects) == told:
        return None
    words = several(number, phrase_of(thing.name))
    text = text_of(_facts(scene), dice)
    return Planted("count", f"{text} There are {words} in the picture.", words)


def _relation(scene: Scene, dice: random.Random) -> Planted | None:
    phrases = [thing.phrase for thing in (*scene.objects, *scene.signs)]
    if scene.relations and len(set(phrases)) == len(phrases) and dice.random() < 0.5:
        a, relation, b = dice.choice(scene.relations)
        # the relation of the same two things the other way round
        wrong = f"{_definite(b)} is {relation} {_definite(a)}"
        text = text_of(_facts(scene), dice)
        return Planted("relation", f"{text} {upper(wrong)}.", wrong[4:])
    facts = _facts(scene)
    placed = [i for i, fact in enumerate(facts) if fact.place and fact.place != "centre"]
    if not placed:
        return None
    at = dice.choice(placed)
    place = " ".join(_OPPOSITE[word] for word in facts[at].place.split())
    facts[at] = replace(facts[at], place=place)
    name = re.escape(facts[at].name)
    wrong = rf"{name}(?: is| appears| can be seen)? at the {place}(?! left| right)"
    return Planted("relation", text_of(facts, dice), wrong)


def _quote(scene: Scene, dice: random.Random) -> Planted | None:
    if not scene.signs:
        return None
    word = dice.choice(scene.signs).text
    new = dice.choice([other for other in _WORDS if other not in {sign.text for sign in scene.signs}])
    return _with_fact(scene, "quote", dice, f'"{word}"', f'"{new}"')


def _setting(scene: Scene, dice: random.Random) -> Planted | None:
    facts = _facts(scene)
    at = [i for i, fact in enumerate(facts) if "background" in fact.name]
    colour = scene.background.split()[0]
    others = [text for text in _BACKGROUNDS if text.split()[1] != colour]
    if not at or colour not in COLOURS:
        return None
    new = dice.choice(others)
    facts[at[0]] = replace(facts[at[0]], name=new)
    return Planted("setting", text_of(facts, dice), new)


_PLANTS: dict[str, Callable[[Scene, random.Random], Planted | None]] = {
    "thing": _thing,
    "colour": _colour,
    "count": _count,
    "relation": _relation,
    "quote": _quote,
    "setting": _setting,
}
KINDS = tuple(_PLANTS)


def _definite(phrase: str) -> str:
    return "the " + phrase.split(" ", 1)[1]
