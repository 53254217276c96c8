"""Questions about a picture with answers that follow from its layers, as in LLaVA's conversations.

Each answer follows from kept entries by rules, and the rules of the verifier read it once more: a pair that they do not
support is left out. "No" is an answer only where the evidence can know it: to a colour, where a thing has another one;
to a side, where the boxes lie on the other one; to whether there is a thing, where `absent` says what the models would
have found. Which questions are asked, and in which words, is drawn with the image's key: it repeats.

The kinds of questions are those of LLaVA (Liu et al. 2023, arXiv 2304.08485, appendix, prompt for conversations) and of
VQA (Antol et al. 2015): what, how many, which colour, where, what is written, relations, yes or no, and reasoning.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence

from models.boxes import area
from models.evidence.relations import OPPOSITE, relation_of
from models.evidence.support import forms
from models.kinds.nouns import is_plural, plural
from models.notes import COLOURS, in_reading_order, quotation
from models.sentences import upper
from models.variants.things import NUMBERS, Thing, Things, counted, listed, named
from models.verifier.entities import facts_of
from models.verifier.lexicon import is_kind_of
from models.verifier.verifying import Reading
from strata.core import LAYERS, Record, Turn, head_of

MOST_TURNS = 12
MOST_OF_A_KIND = 2
MOST_NAMED = 8  # things that one answer lists
LARGER = 1.5  # times the area of the next largest box: the largest thing
FARTHER = 0.08  # of the picture's side between two centres: the thing that is farthest on one side
_SIDES = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
_OTHER_SIDE = {**OPPOSITE, **{opposite: side for side, opposite in OPPOSITE.items()}}
_BASIC_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")


def turns_of(record: Record, absent: Sequence[str] = ()) -> list[Turn]:
    """The questions and answers of a record, at most MOST_TURNS; the first asks what the picture shows.

    absent: noun phrases of kinds that the models would have found if they were there.
    """
    things, dice = Things.of(record), random.Random(f"questions {record.key}")
    chosen: list[Turn] = []
    for kind in _KINDS:
        found = list(kind(things, dice))
        chosen += dice.sample(found, min(MOST_OF_A_KIND, len(found)))
    chosen += list(_absences(things, dice, absent))
    reading = Reading(facts_of(record))
    turns = _about_all(things, dice) + dice.sample(chosen, len(chosen))
    # two things may give the same question: the first one answers
    once = {turn.question: turn for turn in reversed(turns)}
    true = (turn for turn in turns if once[turn.question] is turn and _holds(turn, reading))
    return list(itertools.islice(true, MOST_TURNS))


def _holds(turn: Turn, reading: Reading) -> bool:
    """Whether the verifier's rules find no claim in an answer that the evidence does not support."""
    reading.said.clear()  # each answer stands alone
    return all(sentence.reason is None for sentence in reading.read(turn.answer).sentences)


def _about_all(things: Things, dice: random.Random) -> list[Turn]:
    """What the picture shows: all things, with their numbers; a picture with text alone: the text."""
    names = named(things, MOST_NAMED)
    if not names:
        return []
    question = dice.choice(
        ("What is in the picture?", "What can be seen in this picture?", "Which things does the picture show?")
    )
    sources = [source for _, own in names for thing in own for source in thing.sources]
    return [
        Turn(question=question, answer=f"The picture shows {listed([name for name, _ in names])}.", evidence=sources)
    ]


def _counts(things: Things, dice: random.Random) -> Iterator[Turn]:
    """How many of a kind there are, where nothing of the kind is in doubt and no other name may mean it too."""
    for thing in things.all:
        own = things.alike(thing)
        sure = all(one.single and one.is_like(thing) for one in own) and not things.doubtful(thing.noun)
        if own[0] is not thing or not sure or len(own) >= len(NUMBERS):
            continue
        many = plural(thing.noun)
        question = dice.choice((f"How many {many} are there in the picture?", f"How many {many} can you see?"))
        verb, noun = ("is", thing.noun) if len(own) == 1 else ("are", many)
        yield _turn(question, f"There {verb} {NUMBERS[len(own)]} {noun}.", *own)


def _colours(things: Things, dice: random.Random) -> Iterator[Turn]:
    """The colour of a thing that has one, and whether it is another one."""
    for thing in things.all:
        name = things.definite(thing)
        if len(thing.colours) != 1 or not name or not things.is_alone(thing):
            continue
        (colour,) = thing.colours
        told = f"{upper(name)} {thing.verb} {colour}."
        yield _turn(f"What colour {thing.verb} {name}?", told, thing)
        if dice.random() < 0.5:
            yield _turn(f"{upper(thing.verb)} {name} {colour}?", f"Yes, {name} {thing.verb} {colour}.", thing)
        elif colour in _BASIC_COLOURS:
            wrong = dice.choice([other for other in _BASIC_COLOURS if other != colour])
            yield _turn(f"{upper(thing.verb)} {name} {wrong}?", f"No, {name} {thing.verb} {colour}.", thing)


def _places(things: Things, dice: random.Random) -> Iterator[Turn]:
    """Where in the picture a thing is."""
    for thing in things.all:
        if name := things.definite(thing):
            question = dice.choice((f"Where in the picture {thing.verb} {name}?", f"Where {thing.verb} {name}?"))
            yield _turn(question, f"{upper(name)} {thing.verb} at the {thing.note.place} of the picture.", thing)


def _texts(things: Things, dice: random.Random) -> Iterator[Turn]:
    """What is written on a thing, or in the picture."""
    del dice
    for thing in things.all:
        if thing.note.texts and things.is_alone(thing):
            name = f"the {thing.core}"
            question = f"What does {name} say?" if not thing.many else f"What do {name} say?"
            yield _turn(question, f"{upper(name)} {thing.says} {quotation(thing.note.texts)}.", thing)
    lines = [(f"text/{i}", line) for i, line in enumerate(things.record.text or ()) if line.kept and line.text.strip()]
    if lines:
        texts = in_reading_order([(line.box, line.text) for _, line in lines])
        answer = f"The text in the picture reads {listed([quotation([text]) for text in texts])}."
        yield Turn(
            question="What text can be read in the picture?", answer=answer, evidence=[name for name, _ in lines]
        )


def _relations(things: Things, dice: random.Random) -> Iterator[Turn]:
    """How two things lie to each other, where their boxes are clearly apart."""
    for a, b in itertools.permutations(things.all, 2):
        side = relation_of(a.box, b.box, things.size)
        one, other = things.definite(a), things.definite(b)
        if side is None or not one or not other or a.many:
            continue
        told = f"{one} is {_SIDES[side]} {other}"
        if dice.random() < 0.5:
            wrong = _OTHER_SIDE[side]
            first, second = dice.sample((side, wrong), 2)
            it = "them" if b.many else "it"
            yield _turn(f"Is {one} {_SIDES[first]} {other}, or {_SIDES[second]} {it}?", f"{upper(told)}.", a, b)
        elif dice.random() < 0.5:
            yield _turn(f"Is {one} {_SIDES[side]} {other}?", f"Yes, {told}.", a, b)
        else:
            yield _turn(f"Is {one} {_SIDES[_OTHER_SIDE[side]]} {other}?", f"No, {told}.", a, b)


def _presence(things: Things, dice: random.Random) -> Iterator[Turn]:
    """Whether there is a thing that there is."""
    del dice
    for thing in things.all:
        if thing.single:
            name = counted([thing], False)
            answer = f"Yes, there is {name} at the {thing.note.place} of the picture."
            yield _turn(f"Is there {name} in the picture?", answer, thing)


def _absences(things: Things, dice: random.Random, absent: Sequence[str]) -> Iterator[Turn]:
    """Whether there is a thing that no layer knows anything of; the whole record is the evidence."""
    mentioned = _mentioned(things.record) if absent else frozenset()
    in_any_order = dice.sample(list(absent), len(absent))
    unknown = (phrase for phrase in in_any_order if not is_plural(phrase) and _is_unknown(head_of(phrase), mentioned))
    for phrase in itertools.islice(unknown, MOST_OF_A_KIND):
        answer = f"No, there is no {phrase.split(' ', 1)[1]} in the picture."
        yield Turn(question=f"Is there {phrase} in the picture?", answer=answer, evidence=[])


def _mentioned(record: Record) -> frozenset[str]:
    """The words of all entries of all layers, kept or dropped, and of the alt text, in all their forms."""
    texts = [record.alt_text or ""]
    for layer in LAYERS.values():
        texts += [layer.words_of(entry) for entry in layer.entries(getattr(record, layer.name))]
    return frozenset(form for text in texts for word in re.findall(r"[^\W\d_]+", text.lower()) for form in forms(word))


def _is_unknown(noun: str, mentioned: frozenset[str]) -> bool:
    """Whether no word means a noun, a kind of it, or a wider word."""
    return not any(word == noun or is_kind_of(word, noun) or is_kind_of(noun, word) for word in mentioned - COLOURS)


def _largest(things: Things, dice: random.Random) -> Iterator[Turn]:
    """Which of the named things is by far the largest in the picture."""
    del dice
    names = {thing.number: name for thing in things.all if (name := things.definite(thing)) and not thing.many}
    if not 2 <= len(names) <= MOST_NAMED:
        return
    ordered = sorted((things.all[number] for number in names), key=lambda thing: -area(thing.box))
    if area(ordered[0].box) >= LARGER * area(ordered[1].box):
        question = f"Which of these is the largest in the picture: {listed(list(names.values()), 'or')}?"
        yield _turn(question, f"{upper(names[ordered[0].number])} is the largest of them.", *ordered)


def _farthest(things: Things, dice: random.Random) -> Iterator[Turn]:
    """Which of the named things is farthest on one side."""
    names = {thing.number: name for thing in things.all if (name := things.definite(thing)) and not thing.many}
    if not 2 <= len(names) <= MOST_NAMED:
        return
    axis, words = dice.choice(((0, ("left", "right")), (1, ("top", "bottom"))))
    sign = dice.choice((1, -1))
    word = words[0] if sign > 0 else words[1]

    def where(thing: Thing) -> float:
        return sign * (thing.box[axis] + thing.box[axis + 2]) / 2 / things.size[axis]

    first, second, *_ = sorted((things.all[number] for number in names), key=where)
    if where(second) - where(first) >= FARTHER:
        question = f"Which of these is closest to the {word} side of the picture: {listed(list(names.values()), 'or')}?"
        yield _turn(question, f"It is {names[first.number]}.", *(things.all[number] for number in names))


def _beside_text(things: Things, dice: random.Random) -> Iterator[Turn]:
    """What lies on a side of the thing that carries a text: read it, find it, then look beside it."""
    del dice
    for a, b in itertools.permutations(things.all, 2):
        side = relation_of(a.box, b.box, things.size)
        if side is None or not b.note.texts or not (name := things.definite(a)) or a.many:
            continue
        sharing = [other for other in things.all if other.note.texts == b.note.texts]
        # the answer must be the only one: no other thing may lie on that side of it, clearly or not
        rivals = [other for other in things.all if other not in (a, b) and _may_be(other, side, b, things)]
        if len(sharing) == 1 and not rivals:
            text, carries = quotation(b.note.texts), "carry" if b.many else "carries"
            question = f"Find the text {text}. Which thing is {_SIDES[side]} the {b.core} that {carries} it?"
            yield _turn(question, f"{upper(name)} is {_SIDES[side]} the {b.core} that {b.says} {text}.", a, b)


def _may_be(other: Thing, side: str, of: Thing, things: Things) -> bool:
    """Whether a thing may be said to lie on a side of another one: its centre does."""
    axis = 0 if side in ("left", "right") else 1
    offset = other.box[axis] + other.box[axis + 2] - of.box[axis] - of.box[axis + 2]
    return offset < 0 if side in ("left", "above") else offset > 0


def _turn(question: str, answer: str, *things: Thing) -> Turn:
    sources = dict.fromkeys(source for thing in things for source in thing.sources)
    return Turn(question=question, answer=answer, evidence=list(sources))


_KINDS: tuple[Callable[[Things, random.Random], Iterator[Turn]], ...] = (
    _counts,
    _colours,
    _places,
    _texts,
    _relations,
    _presence,
    _largest,
    _farthest,
    _beside_text,
)
