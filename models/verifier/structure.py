"""The structure of a sentence: its clauses, and the pieces that can be removed without harm to the rest.

It is shallow, by rules: clauses are divided at semicolons, and at commas and conjunctions before a subject with a verb
of its own. Pieces are prepositional phrases, relative clauses, participles with what belongs to them, items of lists,
and what stands between commas.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from models.verifier.phrases import NounPhrase, phrases_of
from models.verifier.places import Place, place_at, relation_at
from models.verifier.references import referring
from models.verifier.words.tags import Token
from models.verifier.words.tokens import tokens_of

_FINITE = ("VERB", "AUX")
_LISTING = ("and", "or", "but", "nor")  # words that join items of a list


@dataclass(frozen=True)
class Piece:
    """Tokens from start to end that can be removed together."""

    start: int
    end: int


@dataclass(frozen=True)
class Clause:
    """A main clause: its tokens, and the place of its first finite verb (None: it has none).

    subjects: the noun phrases before the verb, or after "there is".
    """

    start: int
    end: int
    verb: int | None
    subjects: tuple[NounPhrase, ...] = ()


@dataclass
class Structure:
    """A sentence: tokens, noun phrases, places, clauses and removable pieces."""

    text: str
    tokens: list[Token]
    phrases: list[NounPhrase] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    clauses: list[Clause] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def words(self, start: int, end: int) -> str:
        """The text of some tokens."""
        return self.text[self.tokens[start].start : self.tokens[end - 1].end] if end > start else ""

    def clause_of(self, token: int) -> Clause:
        """The clause of a token."""
        return next((clause for clause in self.clauses if clause.start <= token < clause.end), self.clauses[-1])


def structure_of(
    sentence: str, last: Sequence[NounPhrase] = (), compounds: Set[str] = frozenset(), read: str = ""
) -> Structure:
    """The structure of a sentence. Every text has one; of another language it has few noun phrases or none.

    last: the subjects of the sentence before, for which "it" and "they" may stand.
    compounds: the compound nouns of the record's entries. read: the letters of its lines of text, see `tokens_of`.
    """
    tokens = tokens_of(sentence, compounds, read)
    made = Structure(sentence, tokens)
    if not tokens:
        return made
    # the words for places first: "the left" is no thing
    for at in range(len(tokens)):
        if (not made.places or at >= made.places[-1].end) and (place := place_at(tokens, at)):
            made.places.append(place)
    taken = {at for place in made.places for at in range(place.start, place.end)}
    made.phrases = [phrase for phrase in phrases_of(tokens) if not taken & set(range(phrase.start, phrase.end))]
    made.phrases = referring(tokens, made.phrases, made.places, last)
    made.clauses = _clauses(tokens, made.phrases)
    made.pieces = [
        *(Piece(clause.start, clause.end) for clause in made.clauses[1:]),
        *_leading(made),
        *_prepositional(made),
        *_relative(made),
        *_between_commas(made),
        *_listed(made),
    ]
    return made


def _clauses(tokens: Sequence[Token], phrases: Sequence[NounPhrase]) -> list[Clause]:
    """Divide the sentence where another subject with a verb begins."""
    cuts = [0]
    for at in range(1, len(tokens)):
        if at > cuts[-1] and _divides(tokens, at) and _verb_in(tokens, cuts[-1], at) is not None:
            follows = at + 1 + (tokens[at].tag == "COMMA" and at + 1 < len(tokens) and tokens[at + 1].tag == "JOIN")
            if _has_subject(tokens, follows):
                cuts.append(at)
    cuts.append(len(tokens))
    return [_clause(tokens, phrases, start, end) for start, end in itertools.pairwise(cuts)]


def _divides(tokens: Sequence[Token], at: int) -> bool:
    """Whether a token can stand between two clauses."""
    token = tokens[at]
    if token.text in (";", ":", "—", "–") or token.tag == "COMMA":
        return True
    return token.tag == "JOIN" and token.lower != "or" and tokens[at - 1].tag not in ("COMMA", "MARK")


def _has_subject(tokens: Sequence[Token], start: int) -> bool:
    """Whether a subject, then a finite verb, follows before anything that divides."""
    # "and on the left, a vase stands": the place before the subject
    if start < len(tokens) and tokens[start].tag == "PREP":
        comma = next((at for at in range(start, len(tokens)) if tokens[at].tag in ("COMMA", *_FINITE)), len(tokens))
        return comma < len(tokens) and tokens[comma].tag == "COMMA" and _has_subject(tokens, comma + 1)
    if start >= len(tokens) or tokens[start].tag not in ("DET", "NUM", "NOUN", "ADJ", "PRON", "NOT", "QUOTE", "ADV"):
        return False
    relative = named = False
    for at in range(start, len(tokens)):
        tag = tokens[at].tag
        named = named or tag in ("NOUN", "PRON", "QUOTE")
        if tag == "THAT":
            relative = True
        elif tag in _FINITE and named:
            if not relative:
                return True
            # the verb of "that says": the main verb comes after it
            relative = tag == "AUX" and at + 1 < len(tokens) and tokens[at + 1].tag in _FINITE
        elif tokens[at].text in (";", ":", ".") or (tag == "COMMA" and not _in_list(tokens, at)):
            return False
    return False


def _in_list(tokens: Sequence[Token], at: int) -> bool:
    """Whether a comma stands between items of a list: a noun phrase follows, and then a comma, "and" or a verb."""
    follows = at + 1 + (at + 1 < len(tokens) and tokens[at + 1].tag == "JOIN")
    return follows < len(tokens) and tokens[follows].tag in ("DET", "NUM", "NOUN", "ADJ")


def _verb_in(tokens: Sequence[Token], start: int, end: int) -> int | None:
    """The first finite verb of a main clause; verbs of relative clauses are passed over."""
    relative = False
    for at in range(start, end):
        if tokens[at].tag == "THAT":
            relative = True
        elif tokens[at].tag in _FINITE:
            if not relative:
                return at
            # auxiliaries of the relative clause: "which can be seen"; but "that she holds is"
            relative = tokens[at].tag == "AUX" and at + 1 < end and tokens[at + 1].tag in _FINITE
    return None


def _clause(tokens: Sequence[Token], phrases: Sequence[NounPhrase], start: int, end: int) -> Clause:
    verb = _verb_in(tokens, start, end)
    if verb is None:
        return Clause(start, end, None, _subjects(tokens, phrases, start, end))
    if tokens[verb - 1].lower in ("there", "here") and verb > start:
        return Clause(start, end, verb, _subjects(tokens, phrases, verb + 1, end))
    found = _subjects(tokens, phrases, start, verb)
    # "To the left of the cup is a bowl": the subject follows
    inverted = not found and verb > start and tokens[verb - 1].tag != "PRON"
    return Clause(start, end, verb, _subjects(tokens, phrases, verb + 1, end) if inverted else found)


def _subjects(tokens: Sequence[Token], phrases: Sequence[NounPhrase], start: int, end: int) -> tuple[NounPhrase, ...]:
    """The first noun phrase that no preposition governs, and those that are listed with it."""
    found: list[NounPhrase] = []
    for phrase in phrases:
        if not start <= phrase.start < end:
            continue
        governed = phrase.start > start and tokens[phrase.start - 1].tag in ("PREP", "PART", "THAT")
        if found:
            between = tokens[found[-1].end : phrase.start]
            if not (between and all(_lists(token) for token in between)):
                continue
        if not governed:
            found.append(phrase)
    return tuple(found)


def _lists(token: Token) -> bool:
    """Whether a token may stand between two items of a list."""
    return token.tag in ("COMMA", "QUOTE") or token.lower in _LISTING


def _leading(made: Structure) -> list[Piece]:
    """The first clause, if another one follows."""
    return [Piece(0, made.clauses[0].end)] if len(made.clauses) > 1 else []


def _prepositional(made: Structure) -> list[Piece]:
    """Each preposition with all that follows it, up to a comma, a verb or the end of its clause."""
    pieces = []
    for at, token in enumerate(made.tokens):
        begins = token.tag in ("PREP", "PART") or relation_at(made.tokens, at) is not None
        # "of the car" belongs to what stands before it; "next to" begins at its first word
        if not begins or token.lower == "of" or (token.tag == "PREP" and _inside_relation(made, at)):
            continue
        # the participle of a verb: "can be seen", "is sitting"
        if token.tag == "PART" and at and made.tokens[at - 1].tag in ("AUX", "ADV", "NOT"):
            continue
        end = _phrase_end(made, at + 1)
        if (start := _absolute(made, at)) is not None:
            pieces.append(Piece(start, end))
            continue
        pieces.append(Piece(at, end))
        # and the phrase alone, without a relative clause or a further phrase
        alone = next((phrase.end for phrase in made.phrases if at < phrase.start < end), end)
        pieces += [Piece(at, alone)] if alone < end else []
    return pieces


def _absolute(made: Structure, at: int) -> int | None:
    """Where ", its sail catching the wind" begins: a comma or "with", a noun phrase and its participle; None if not."""
    phrase = next((one for one in made.phrases if one.end == at), None)
    if made.tokens[at].tag != "PART" or phrase is None or phrase.start == 0:
        return None
    before = made.tokens[phrase.start - 1]
    return phrase.start - 1 if before.lower == "with" or (before.tag == "COMMA" and phrase.owned) else None


def _inside_relation(made: Structure, at: int) -> bool:
    for start in range(max(0, at - 4), at):
        found = relation_at(made.tokens, start)
        if found and found[1] > at:
            return True
    return False


def _phrase_end(made: Structure, start: int) -> int:
    """Where a phrase ends: at a comma, a conjunction before another clause, a finite verb, or the clause's end."""
    clause = made.clause_of(start - 1)
    relative = False
    for at in range(start, clause.end):
        token = made.tokens[at]
        if token.tag == "THAT":
            relative = True
        elif token.tag in _FINITE:
            if not relative:
                return at
            relative = token.tag == "AUX" and at + 1 < clause.end and made.tokens[at + 1].tag in _FINITE
        elif token.tag == "COMMA" or (token.tag == "MARK" and token.text in ".;:!?()—–"):
            return at
    return clause.end


def _relative(made: Structure) -> list[Piece]:
    """Relative clauses, and participles: with the comma before them if one stands there."""
    pieces = []
    for at, token in enumerate(made.tokens):
        if token.tag == "THAT":
            start = at - 1 if at and made.tokens[at - 1].tag == "COMMA" else at
            end = _phrase_end(made, at)
            closed = start < at and end < len(made.tokens) and made.tokens[end].tag == "COMMA"
            pieces.append(Piece(start, end))
            # "the cup, which is black, is": with both commas
            pieces += [Piece(start, end + 1)] if closed else []
    return pieces


def _between_commas(made: Structure) -> list[Piece]:
    """What stands before the first comma, between two commas, and after a comma."""
    pieces = []
    for clause in made.clauses:
        commas = [at for at in range(clause.start + 1, clause.end) if made.tokens[at].tag == "COMMA"]
        stop = clause.end
        while stop > clause.start and made.tokens[stop - 1].tag == "MARK":
            stop -= 1
        ends = [*commas, stop]
        for i, at in enumerate(commas):
            pieces += [Piece(at, end) for end in ends[i + 1 :] if end > at + 1]
        if commas and clause.verb is not None and clause.verb > commas[0]:
            pieces.append(Piece(clause.start, commas[0] + 1))
    return pieces


def _listed(made: Structure) -> list[Piece]:
    """The items of lists of noun phrases, each with what follows it up to the next item."""
    pieces = []
    for before, item in zip(made.phrases, made.phrases[1:], strict=False):
        between = made.tokens[before.end : item.start]
        joints = [at for at in range(before.end, item.start) if made.tokens[at].tag != "QUOTE"]
        if joints and all(_lists(token) for token in between):
            # the item with the joint before it, or the one before with the joint after it
            joint = joints[0]
            pieces += [Piece(joint, item.end), Piece(before.start, item.start)]
    return pieces
