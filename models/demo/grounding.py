"""Grounded decoding: a state machine that allows only tokens which the notes support.

A model of 135 million parameters that writes without constraints copies its example, omits things and confuses left and
right (measured on drawn scenes: recall 0.63). So at every step it chooses among what the notes support: which thing
comes next, the words that link it to its position, the words that join it to the next thing, and where sentences end.
It cannot name a thing that is not in the notes, cannot change a position or a colour, and cannot end before it has
named all things. Relations of two things come last, each as a sentence of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

Tokens = tuple[int, ...]
Encode = Callable[[str], Tokens]


@dataclass(frozen=True)
class Fact:
    """One thing of the notes. name: a noun phrase with its article; place: its position ("top left"), or "".

    lead: the preposition that links a thing without a position to the things before it ("on a beach"), or "". many:
    whether its verb is a plural.
    """

    name: str
    place: str = ""
    lead: str = ""
    many: bool = False


@dataclass(frozen=True)
class Wording:
    """The words between things, from the prompt file. They contain no things, colours or positions.

    openers: before the first thing of a sentence; links: from a thing to its position; opened: the links after an
    opener, which contains the verb already ("There is a bee at the left"); tails: optional, after a position; joins:
    from a position to the next thing, with punctuation. sentences: how many are allowed. relations: from a thing to
    another one, by "left", "right", "above" and "below"; without these words none is told.
    """

    openers: tuple[str, ...]
    links: tuple[str, ...]
    tails: tuple[str, ...]
    joins: tuple[str, ...]
    sentences: int
    relations: Mapping[str, str] = field(default_factory=dict)
    opened: tuple[str, ...] = ()


def agreeing(words: str, many: bool) -> str:
    """Words of a wording with their verb in the number of the thing: "There is" -> "There are"."""
    if not many:
        return words
    return re.sub(r"\b(?:(is)|(was)|(has)|([a-z]+[a-z])s)\b", _plural_verb, words, count=1)


def _plural_verb(verb: re.Match[str]) -> str:
    return {"is": "are", "was": "were", "has": "have"}.get(verb[0], verb[0].removesuffix("s"))


@dataclass(frozen=True)
class Relation:
    """One relation of two things, in several sentences that say the same; one of them is written."""

    sentences: tuple[str, ...]


class _State(Enum):
    START = auto()  # at the start of a sentence
    NAMED = auto()  # after a thing that has a position, which must follow
    OPENED = auto()  # the same after an opener
    PLACED = auto()  # after a position
    TAILED = auto()  # after a tail, or a thing without a position
    JOINED = auto()  # after a join, which another thing must follow


@dataclass(frozen=True)
class _Step:
    state: _State
    fact: Fact | None = None
    relation: Relation | None = None


class Guide:
    """The state of one description: `allowed()` gives the allowed next tokens, `accept()` takes the chosen one."""

    def __init__(
        self, wording: Wording, facts: Sequence[Fact], encode: Encode, end: int, relations: Sequence[Relation] = ()
    ) -> None:
        self._wording = wording
        self._remaining = list(facts)
        self._relations = list(relations)
        self._encode = encode
        self._end = end
        self._state = _State.START
        self._place, self._many = "", False
        self._sentences = 0
        self._has_join = False  # at most one join per sentence, so that sentences do not become lists
        # the steps that begin with the tokens since the last complete step, with their remaining tokens
        self._candidates: list[tuple[Tokens, _Step]] = []
        self.tokens: list[int] = []
        self.done = False

    def allowed(self) -> list[int]:
        """The allowed next tokens, sorted; a single one if there is no choice."""
        # after a complete step: the end if all is told, else all steps of the state
        if not self._candidates:
            if not self._remaining and not self._relations and self._state is _State.START:
                return [self._end]
            self._candidates = [(self._encode(text), step) for text, step in self._steps()]
        return sorted({rest[0] for rest, _ in self._candidates})

    def accept(self, token: int) -> None:
        """Add one of the allowed tokens to the description."""
        # no candidates: it was the end token
        if not self._candidates:
            self.done = True
            return
        self.tokens.append(token)
        # keep the steps that continue with this token; the first complete one changes the state
        going = [(rest[1:], step) for rest, step in self._candidates if rest[0] == token]
        complete = [step for rest, step in going if not rest]
        self._candidates = [] if complete else going
        if complete:
            self._finish(complete[0])

    def _finish(self, step: _Step) -> None:
        """Change the state after a complete step."""
        if step.state is _State.START:
            self._sentences += 1
        if step.state in (_State.START, _State.JOINED):
            self._has_join = step.state is _State.JOINED
        if step.fact:
            self._remaining.remove(step.fact)
            self._place, self._many = step.fact.place, step.fact.many
        if step.relation:
            self._relations.remove(step.relation)
        self._state = step.state

    def _steps(self) -> list[tuple[str, _Step]]:
        """All steps that are allowed in the current state, with their texts."""
        wording = self._wording
        match self._state:
            case _State.START:
                return self._openings()
            case _State.NAMED:
                links = (agreeing(link, self._many) for link in wording.links)
                return [(f" {link} {self._place}", _Step(_State.PLACED)) for link in links]
            case _State.OPENED:
                opened = wording.opened or wording.links
                return [(f" {link} {self._place}", _Step(_State.PLACED)) for link in opened]
            case _State.PLACED:
                return [(f" {tail}", _Step(_State.TAILED)) for tail in wording.tails] + self._endings()
            case _State.TAILED:
                return self._endings()
            case _State.JOINED:
                return [(f" {fact.name}", _Step(_State.NAMED, fact)) for fact in self._remaining if fact.place]

    def _openings(self) -> list[tuple[str, _Step]]:
        """The starts of a sentence: an opener with a thing, or a thing with a position in upper case.

        After all things: whole sentences about two of them.
        """
        space = " " if self.tokens else ""
        if not self._remaining:
            told = [(relation, sentence) for relation in self._relations for sentence in relation.sentences]
            return [(space + sentence, _Step(_State.START, relation=relation)) for relation, sentence in told]
        steps: list[tuple[str, _Step]] = []
        for fact in self._remaining:
            state = _State.OPENED if fact.place else _State.TAILED
            openers = (agreeing(opener, fact.many) for opener in self._wording.openers)
            steps += [(f"{space}{opener} {fact.name}", _Step(state, fact)) for opener in openers]
            if fact.place:
                steps.append((f"{space}{fact.name[0].upper()}{fact.name[1:]}", _Step(_State.NAMED, fact)))
        return steps

    def _endings(self) -> list[tuple[str, _Step]]:
        """The steps after a position: a full stop, a join, or a thing without a position.

        The last allowed sentence cannot end while things with a position remain.
        """
        placed = [fact for fact in self._remaining if fact.place]
        last = self._sentences + 1 >= self._wording.sentences
        joins = self._wording.joins if placed and (last or not self._has_join) else ()
        steps = [(join, _Step(_State.JOINED)) for join in joins]
        # a text of one sentence takes its settings into it
        led = self._wording.sentences == 1 and any(fact.lead and not fact.place for fact in self._remaining)
        if not ((placed or led) and last):
            steps.append((".", _Step(_State.START)))
        # settings, such as " on a beach"
        for fact in self._remaining:
            if fact.lead and not fact.place:
                steps.append((f" {fact.lead} {fact.name}", _Step(_State.TAILED, fact)))
        return steps
