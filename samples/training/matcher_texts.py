"""Texts of the demo world for the matcher's training, and which of them are true of a crop."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from samples.backgrounds import BACKGROUND_COLOURS
from samples.scenes import KNOWN
from samples.sprites import COLOURED, COLOURS, phrase_of
from samples.training.matcher_crops import Crop, Thing
from samples.training.matcher_model import tokenizer

UNKNOWN = Thing("\0")  # the meaning of a word outside of the vocabulary; no object has this name
THINGS = (
    *(Thing(sprite.name) for sprite in KNOWN),
    *(Thing(sprite.name, colour) for sprite in COLOURED for colour in COLOURS),
    Thing("sign"),
)


@dataclass(frozen=True)
class Text:
    """A text and its meaning: the things it names, their background, and the scene whose layout it describes."""

    text: str
    things: tuple[Thing, ...]
    background: str | None = None
    seed: int | None = None


def phrase(thing: Thing) -> str:
    """The thing's noun phrase: "a red car"."""
    return phrase_of(thing.name, thing.colour)


def vocabulary(*, held_out: bool) -> list[str]:
    """English words that name nothing in the demo world: nine tenths to train on, or the others to measure.

    They are the whole words that the stock BPE knows as one token.
    """
    world = {word for thing in THINGS for word in phrase(thing).split()}
    world |= {*COLOURS, *BACKGROUND_COLOURS, "background", "empty", "left", "right", "above", "below", "grey"}
    words = (token[:-4] for token in tokenizer().encoder if token.endswith("</w>"))
    plain = (word for word in words if word.isascii() and word.isalpha() and len(word) > 2)
    return [word for word in plain if word not in world and (zlib.crc32(word.encode()) % 10 == 0) == held_out]


def listing(things: Sequence[Thing], background: str | None = None) -> str:
    """The things in one sentence, as a caption lists them: "A dog and a red car on a blue background."."""
    names = [phrase(thing) for thing in things]
    named = " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    if background is None:
        return named
    return f"{named[0].upper()}{named[1:]} on {phrase_of('background', background)}."


def truth(crop: Crop, text: Text) -> float:
    """1 if the text is true of the crop, 0 if it is false, NaN if it is not known."""
    # a scene's own caption
    if text.seed is not None and crop.seed == text.seed:
        return 1.0
    if not text.things:  # "An empty blue background."
        return float("nan") if not crop.caption else 0.0 if crop.things else _background_truth(crop, text)
    # all things must be there, then the background must agree
    verdict = min((_thing_truth(crop, thing) for thing in text.things), key=_doubt)
    if verdict == 0 or text.background is None:
        return verdict
    if text.seed is not None:  # another scene's caption: the things may agree, the positions are not known
        return float("nan")
    return min(verdict, _background_truth(crop, text), key=_doubt)


def _doubt(verdict: float) -> float:
    """The order of results: one false part makes a text false, else one unknown part makes it unknown."""
    return 0.5 if verdict != verdict else verdict


def _background_truth(crop: Crop, text: Text) -> float:
    return float("nan") if crop.background is None else float(crop.background == text.background)


def _thing_truth(crop: Crop, thing: Thing) -> float:
    verdict = 0.0
    # things that are certainly in the crop
    for own in crop.things:
        if own.name != thing.name:
            continue
        if thing.colour in (None, own.colour):
            return 1.0
        if own.colour is None:  # the colours of a drawing that comes in one version only are not known
            verdict = float("nan")
    # things that are partly in it: their presence is not known
    for other in crop.maybe:
        if other.name == thing.name and (thing.colour is None or other.colour in (None, thing.colour)):
            return float("nan")
    return verdict


def truths(crops: Sequence[Crop], texts: Sequence[Text]) -> np.typing.NDArray[np.float32]:
    """`truth` of every pair, float32 (crops, texts)."""
    return np.array([[truth(crop, text) for text in texts] for crop in crops], np.float32)


def same_name(crops: Sequence[Crop], texts: Sequence[Text]) -> np.typing.NDArray[np.bool_]:
    """Which pairs share a name, so that a false one differs by its colour only: bool (crops, texts)."""
    names = [{thing.name for thing in crop.things} for crop in crops]
    return np.array(
        [[len(text.things) == 1 and text.things[0].name in own for text in texts] for own in names], np.bool_
    )


def texts_for(crops: Sequence[Crop], words: Sequence[str], rng: np.random.Generator) -> list[Text]:
    """The texts of one batch: all phrases of the world, unknown words, and sentences about some of the crops."""
    texts = [Text(phrase(thing), (thing,)) for thing in THINGS]
    texts += _unknown_texts(words, rng, 28)
    single = [crop for crop in crops if len(crop.things) == 1 and crop.things[0].name and not crop.caption]
    for i in rng.permutation(len(single))[:20]:
        texts += _variants(single[i], rng)
    for crop in crops:
        if crop.caption:
            texts += _scene_texts(crop, rng)
    return list({text.text: text for text in texts}.values())


def _unknown_texts(words: Sequence[str], rng: np.random.Generator, count: int) -> Iterator[Text]:
    colours = list(COLOURS)
    for _ in range(count):
        one, two = (words[int(i)] for i in rng.integers(len(words), size=2))
        known = THINGS[int(rng.integers(len(THINGS)))]
        forms = (
            phrase_of(one),
            phrase_of(one),
            phrase_of(one, str(rng.choice(colours))),
            phrase_of(f"{one} {two}"),
            f"{phrase(known)} and {phrase_of(one)}",
            f"{phrase_of(one)} with {phrase_of(two)}",
            f"{phrase_of(one).capitalize()} on a white background.",
            one[: len(one) // 2 + 1] + two[len(two) // 2 :],
        )
        yield Text(forms[int(rng.integers(len(forms)))], (UNKNOWN,))


def _variants(crop: Crop, rng: np.random.Generator) -> Iterator[Text]:
    """A true text about the crop in another form than the plain phrase, or one made false."""
    (thing,) = crop.things
    if rng.random() < 0.4:
        thing = THINGS[int(rng.integers(len(THINGS)))]
    background = crop.background or "white"
    if rng.random() < 0.2:
        background = str(rng.choice(list(BACKGROUND_COLOURS)))
    noun = phrase(thing).split(" ", 1)[1]
    if rng.random() < 0.6:
        yield Text(listing([thing], background), (thing,), background)
    else:
        forms = (noun, f"the {noun}", f"{phrase(thing).capitalize()}.", noun.capitalize())
        yield Text(forms[int(rng.integers(len(forms)))], (thing,))


def _scene_texts(crop: Crop, rng: np.random.Generator) -> Iterator[Text]:
    """Texts about a whole scene: its caption, some of its things, and the same with one thing exchanged."""
    # the true caption; its layout is known to be true only if all things are named
    named = [thing for thing in crop.things if thing.name]
    everything = len(named) == len(crop.things)
    yield Text(crop.caption, tuple(named), crop.background, crop.seed if everything else None)
    if not named:
        return
    # a true list of some things
    count = int(rng.integers(1, min(3, len(named)) + 1))
    some = [named[int(i)] for i in rng.permutation(len(named))[:count]]
    yield Text(listing(some), tuple(some))
    # the same list with one thing exchanged, mostly false
    some[int(rng.integers(count))] = _other(some[0], rng)
    yield Text(listing(some), tuple(some))
    # a list of all things with one exchanged
    every = list(named)
    every[int(rng.integers(len(every)))] = _other(every[0], rng)
    yield Text(listing(every, crop.background), tuple(every), crop.background)


def _other(thing: Thing, rng: np.random.Generator) -> Thing:
    """Another thing: half the time the same in another colour, where it has one."""
    if thing.colour and rng.random() < 0.5:
        return thing._replace(colour=str(rng.choice(list(COLOURS))))
    return THINGS[int(rng.integers(len(THINGS)))]
