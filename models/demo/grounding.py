"""What a grounded description may say next, token by token.

A model of 135 million parameters that writes freely copies its example, forgets things and mixes up sides (measured
on drawn scenes: recall 0.63). So at every place it is offered only what the notes support, and it chooses: which
thing comes next, the words that link it to its place, what joins it to the next one, and where sentences end. It
cannot name what is not noted, cannot move or colour a thing otherwise, and cannot end before all is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

Tokens = tuple[int, ...]
Encode = Callable[[str], Tokens]


@dataclass(frozen=True)
class Fact:
    """One noted thing. name: as it is to be named, article first; place: "top left", "" if it has none.

    lead: the preposition that ties a thing without a place to the things before it ("on a beach"), or "".
    """

    name: str
    place: str = ""
    lead: str = ""


@dataclass(frozen=True)
class Wording:
    """The words between things, from the prompt file. Each names no thing, no colour and no place.

    openers: before the first thing of a sentence; links: from a thing to its place; tails: may follow a place;
    joins: from a place to the next thing, with their punctuation. sentences: how many there may be.
    """

    openers: tuple[str, ...]
    links: tuple[str, ...]
    tails: tuple[str, ...]
    joins: tuple[str, ...]
    sentences: int


class _State(Enum):
    START = auto()  # of a sentence
    NAMED = auto()  # a thing whose place is to be told
    PLACED = auto()
    TAILED = auto()
    JOINED = auto()


@dataclass(frozen=True)
class _Step:
    state: _State
    fact: Fact | None = None


class Guide:
    """One description's state: `allowed()` says which tokens may come, `take()` which one came."""

    def __init__(self, wording: Wording, facts: Sequence[Fact], encode: Encode, end: int) -> None:
        self._wording = wording
        self._untold = list(facts)
        self._encode = encode
        self._end = end
        self._state = _State.START
        self._place = ""
        self._sentences = 0
        self._joined = False  # one join a sentence, so that things do not pile up behind commas
        self._begun: list[tuple[Tokens, _Step]] = []  # what is left of the steps that the last tokens may belong to
        self.tokens: list[int] = []
        self.done = False

    def allowed(self) -> list[int]:
        """The tokens that may come next, sorted; a single one where there is no choice."""
        if not self._begun:
            if not self._untold and self._state is _State.START:
                return [self._end]
            self._begun = [(self._encode(text), step) for text, step in self._steps()]
        return sorted({rest[0] for rest, _ in self._begun})

    def take(self, token: int) -> None:
        """Move on by one of the allowed tokens."""
        if not self._begun:
            self.done = True
            return
        self.tokens.append(token)
        going = [(rest[1:], step) for rest, step in self._begun if rest[0] == token]
        complete = [step for rest, step in going if not rest]
        self._begun = [] if complete else going
        if complete:
            self._finish(complete[0])

    def _finish(self, step: _Step) -> None:
        if step.state is _State.START:
            self._sentences += 1
        if step.state in (_State.START, _State.JOINED):
            self._joined = step.state is _State.JOINED
        if step.fact:
            self._untold.remove(step.fact)
            self._place = step.fact.place
        self._state = step.state

    def _steps(self) -> list[tuple[str, _Step]]:
        """Every step that may be taken now, with its text."""
        wording = self._wording
        match self._state:
            case _State.START:
                return self._openings()
            case _State.NAMED:
                return [(f" {link} {self._place}", _Step(_State.PLACED)) for link in wording.links]
            case _State.PLACED:
                return [(f" {tail}", _Step(_State.TAILED)) for tail in wording.tails] + self._endings()
            case _State.TAILED:
                return self._endings()
            case _State.JOINED:
                return [(f" {fact.name}", _Step(_State.NAMED, fact)) for fact in self._untold if fact.place]

    def _openings(self) -> list[tuple[str, _Step]]:
        space = " " if self.tokens else ""
        steps: list[tuple[str, _Step]] = []
        for fact in self._untold:
            state = _State.NAMED if fact.place else _State.TAILED
            steps += [(f"{space}{opener} {fact.name}", _Step(state, fact)) for opener in self._wording.openers]
            if fact.place:
                steps.append((f"{space}{fact.name[0].upper()}{fact.name[1:]}", _Step(state, fact)))
        return steps

    def _endings(self) -> list[tuple[str, _Step]]:
        """A full stop, a join, or a thing that needs no place. The last sentence takes all that is left."""
        placed = [fact for fact in self._untold if fact.place]
        last = self._sentences + 1 >= self._wording.sentences
        joins = self._wording.joins if placed and (last or not self._joined) else ()
        steps = [(join, _Step(_State.JOINED)) for join in joins]
        if not (placed and last):
            steps.append((".", _Step(_State.START)))
        for fact in self._untold:
            if fact.lead and not fact.place:
                steps.append((f" {fact.lead} {fact.name}", _Step(_State.TAILED, fact)))
        return steps
