"""The claims that a model has told of a sentence, as statements that the verifier's checks judge."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from models.chat.claims import RELATION_NAMES, ToldClaim, spans
from models.verifier.attributes import is_attribute
from models.verifier.checks.kinds import verdict_of
from models.verifier.claims.denials import is_denied_of
from models.verifier.claims.nouns import is_empty, is_setting
from models.verifier.claims.reading import statements_of
from models.verifier.claims.statements import Statement
from models.verifier.entities import Facts, letters_of
from models.verifier.lexicon import lexicon, singular
from models.verifier.phrases import NounPhrase
from models.verifier.places import relation_at
from models.verifier.structure import Structure

_Span = tuple[int, int]  # tokens of a sentence, from start to end
_MOST_COUNTED = 10_000
_MOST_COVERED = 12  # tokens of a claim that are not read by the rules too


@dataclass(frozen=True)
class ToldStatements:
    """Reads the claims of a sentence, and of what remains of it: those of a model beside those of the rules."""

    told: Sequence[ToldClaim]
    facts: Facts

    def __call__(self, made: Structure) -> list[Statement]:
        """The statements of a sentence, in the order of its words.

        A model's statement takes the place of those that the rules read in the same words, if the evidence can judge
        it: otherwise an answer could hide what the rules find.
        """
        rules, reader = statements_of(made), _Reader(made)
        new: list[Statement] = []
        for one, span in ((one, span) for claim in self.told for one, span in reader.statements(claim)):
            covered = [rule for rule in rules if _covers(one, span, rule, made)]
            if one in new or (covered and verdict_of(one, self.facts).supported is None):
                continue
            rules = [rule for rule in rules if rule not in covered]
            new.append(one)
        return sorted([*rules, *new], key=lambda one: (one.start, one.end))


def _covers(told: Statement, span: _Span, rule: Statement, made: Structure) -> bool:
    """Whether a model's statement, told with the tokens of span, takes the place of a rule's."""
    # what both say of the same words, perhaps of different things
    if told.kind == rule.kind and told.start < rule.end and rule.start < told.end:
        alike = letters_of(told.value) == letters_of(rule.value) if told.kind == "quote" else told.value == rule.value
        if alike and told.names == rule.names:
            return True
    if not (span[0] <= rule.start and rule.end <= span[1] <= span[0] + _MOST_COVERED):
        return False
    if told.kind == "quote":
        return True
    if rule.kind == "relation":
        return told.kind == "relation" and not rule.others and told.value in rule.names
    about = [one for one in (told.phrase, *told.others) if one is not None]
    if rule.phrase is None or any(rule.start < one.end and one.start < rule.end for one in about):
        return False
    return _is_manner(rule.phrase, told, made)


def _is_manner(phrase: NounPhrase, told: Statement, made: Structure) -> bool:
    """Whether a noun phrase within a claim's words is how the claim is told, and no thing of its own.

    Such are "a rich" in "a rich, saturated red", "a trio" in "a trio of dogs", "its neighbour" in "has the dog as its
    neighbour to the right". An answer must not hide things: subjects, items of lists, and what a relation is told of.
    """
    if told.kind == "attribute":
        return "a" in lexicon().speech(phrase.noun)
    after = made.tokens[phrase.end] if phrase.end < len(made.tokens) else None
    if told.kind == "count":
        return after is not None and after.lower == "of" and told.phrase is not None and told.phrase.start > phrase.end
    if told.kind != "relation" or phrase in made.clause_of(phrase.start).subjects:
        return False
    beside = [made.tokens[phrase.start - 1]] if phrase.start else []
    if any(token.tag in ("JOIN", "COMMA") for token in (*beside, *([after] if after else []))):
        return False
    known = (relation_at(made.tokens, at) for at in range(phrase.start))
    return not any(found and found[1] == phrase.start and found[0] != "with" for found in known)


class _Reader:
    """Finds a model's claims in one sentence. Claims whose words are not in it (any more) have no statement."""

    def __init__(self, made: Structure) -> None:
        self._made = made

    def statements(self, claim: ToldClaim) -> Iterator[tuple[Statement, _Span]]:
        """The statements of a claim, each with the tokens of the claim's words."""
        for span in self._tokens(claim.words)[:1]:
            yield from ((one, span) for one in self._statements(claim, span))

    def _statements(self, claim: ToldClaim, span: _Span) -> Iterator[Statement]:
        made = self._made
        # what is denied is left to the rules
        if any(token.tag == "NOT" for token in made.tokens[max(0, span[0] - 2) : span[1]]):
            return
        things = [phrase for words in claim.things if (phrase := self._phrase(words, span)) is not None]
        match claim.kind:
            case "thing" | "setting":
                yield from self._thing(self._phrase(claim.words, span))
            case "attribute":
                yield from self._attribute(claim, span, things or self._within(span))
            case "count":
                yield from self._count(claim, things or self._within(span))
            case "relation":
                yield from self._relation(claim, span, things)
            case "quote":
                yield from self._quote(span, things)

    def _tokens(self, words: str) -> list[_Span]:
        """The places of words in the sentence, as tokens."""
        made, found = self._made, []
        for start, end in spans(words, made.text):
            inside = [at for at, token in enumerate(made.tokens) if token.start < end and start < token.end]
            found += [(inside[0], inside[-1] + 1)] if inside else []
        return found

    def _within(self, span: _Span) -> list[NounPhrase]:
        return [one for one in self._made.phrases if one.start < span[1] and span[0] < one.end]

    def _phrase(self, words: str, near: _Span) -> NounPhrase | None:
        """The noun phrase of words: that of the rules, or else one of the words themselves, whose last is the noun."""
        places = self._tokens(words)
        if not places:
            return None
        start, end = min(places, key=lambda one: max(0, near[0] - one[1], one[0] - near[1]))
        # one whose noun comes later is misread: "the car commands attention" has two
        if known := [one for one in self._within((start, end)) if one.end <= end]:
            return known[0]
        tokens = [token for token in self._made.tokens[start:end] if token.text[0].isalpha()]
        noun = singular(tokens[-1].lower) if tokens else ""
        if "n" not in lexicon().speech(noun) or tokens[-1].tag in ("PRON", "DET", "PREP", "AUX"):
            return None
        attributes = tuple(token.lower for token in tokens[:-1] if is_attribute(token.lower))
        definite = self._made.tokens[start].lower in ("the", "its", "their")
        many = noun != tokens[-1].lower
        return NounPhrase(start, end, noun, many=many, attributes=attributes, definite=definite)

    def _thing(self, phrase: NounPhrase | None) -> Iterator[Statement]:
        # noun phrases that the rules know are things, settings or nothing by the rules
        if phrase is not None and phrase not in self._made.phrases and not is_empty(phrase.noun):
            yield Statement("setting" if is_setting(phrase.noun) else "thing", phrase.start, phrase.end, phrase)

    def _attribute(self, claim: ToldClaim, span: _Span, things: Sequence[NounPhrase]) -> Iterator[Statement]:
        bearer = things[0] if things else None
        if bearer is None or is_empty(bearer.noun) or bearer.negated:
            return
        places = [at for at in range(*span) if is_attribute(self._made.tokens[at].lower)]
        for at in places:
            end = bearer.end if bearer.start <= at < bearer.end else at + 1
            yield Statement("attribute", at, end, bearer, self._made.tokens[at].lower)
        # "crimson-hued": the model's plain word, where the rules know none of the words
        value = claim.value.strip().lower()
        if not places and is_attribute(value) and span[1] - span[0] <= 3:
            end = bearer.end if bearer.start <= span[0] < bearer.end else span[1]
            yield Statement("attribute", span[0], end, bearer, value)

    def _count(self, claim: ToldClaim, things: Sequence[NounPhrase]) -> Iterator[Statement]:
        counted = things[0] if things else None
        # a number that the rules have read is the number
        if counted is None or counted.count is not None or counted.negated or is_empty(counted.noun):
            return
        value = claim.value.strip()
        if re.fullmatch("[0-9]{1,5}", value) and 0 < int(value) <= _MOST_COUNTED:
            yield Statement("count", counted.start, counted.end, counted, str(int(value)))

    def _relation(self, claim: ToldClaim, span: _Span, things: Sequence[NounPhrase]) -> Iterator[Statement]:
        made = self._made
        if not things or is_empty(things[0].noun) or things[0].negated:
            return
        subject, subjects = things[0], (things[0],)

        def told(start: int, end: int) -> Statement:
            denied = is_denied_of(made, start, subjects)
            return Statement("relation", start, end, subject, subjects=subjects, every=True, denied=denied)

        if len(things) == 1:
            for place in made.places:
                if span[0] <= place.start and place.end <= span[1] and place.names:
                    yield replace(told(place.start, place.end), names=place.names)
            return
        other = things[1]
        if other == subject or is_empty(other.noun) or other.negated:
            return
        # the rules' meaning of the words, if they have one; else the model's
        known = [(at, found) for at in range(*span) if (found := relation_at(made.tokens, at))]
        direct = [(at, name) for at, (name, after) in known if after == other.start]
        if direct:
            at, name = direct[0]
            if name not in ("with", "other"):
                yield replace(told(at, other.end), value=name, others=(other,))
        elif claim.value.strip().lower() in RELATION_NAMES:
            start = subject.end if subject.start <= span[0] < subject.end < span[1] else span[0]
            name = claim.value.strip().lower()
            yield replace(told(start, span[1]), value=name, others=(other,))

    def _quote(self, span: _Span, things: Sequence[NounPhrase]) -> Iterator[Statement]:
        made = self._made
        carrier = things[0] if things and not is_empty(things[0].noun) else None
        tokens = made.tokens[span[0] : span[1]]
        quoted = [token for token in tokens if token.tag == "QUOTE"]
        inner = quoted[0].quoted if len(quoted) == 1 and len(tokens) == 1 else made.words(*span)
        if inner:
            yield Statement("quote", *span, carrier, inner)
