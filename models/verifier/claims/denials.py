"""What a sentence says is not so: words after "not", what is told to be missing, and what is denied of nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from models.verifier.claims.surroundings import SHOWING
from models.verifier.lexicon import verb_of
from models.verifier.phrases import PICTURES, NounPhrase
from models.verifier.structure import Structure
from models.verifier.words.tags import Token

_VERBAL = ("VERB", "PART", "AUX", "ADV")
_MISSING = frozenset("missing absent gone invisible unseen nowhere".split())
_LEAVING = frozenset("disappear vanish".split())
_SEEN = frozenset("visible present seen shown depicted included pictured discernible".split())
_WITHOUT = frozenset("devoid void free empty bare".split())  # before "of"
_ORDINALS = frozenset("first second third other another further more".split())


def denies(token: Token) -> bool:
    """Whether a token is "not" or a verb with it: "isn't", "cannot"."""
    return token.tag == "NOT" or token.lower == "cannot" or token.lower.endswith(("n't", "n’t"))


def is_denied(made: Structure, at: int) -> bool:
    """Whether "not" stands before a token, but for words of the verb: "is not to the left", "does not hang above"."""
    return _denial_before(made, at) is not None


def is_denied_of(made: Structure, at: int, subjects: Sequence[NounPhrase]) -> bool:
    """Whether a place or relation is told not to be: "is not to the left of", "no cup is to the left of"."""
    none = subjects[0].negated or subjects[0].share == "none"
    return none != is_denied(made, at)


def is_denied_number(made: Structure, phrase: NounPhrase) -> bool:
    """Whether a sentence denies the number of things: "there are not three cups", "there aren't three cups"."""
    if phrase.count is None or phrase.start < 2:
        return False
    before, earlier = made.tokens[phrase.start - 1], made.tokens[phrase.start - 2]
    return (before.lower == "not" and earlier.tag == "AUX") or before.lower.endswith(("n't", "n’t"))


def _denial_before(made: Structure, at: int) -> int | None:
    for before in range(at - 1, -1, -1):
        token = made.tokens[before]
        if denies(token):
            return None if token.lower in ("no", "without", "none") else before
        if token.tag not in _VERBAL:
            return None
    return None


def scope_of(made: Structure, phrase: NounPhrase) -> str:
    """How a denied verb tells of a thing that it has no article "the" for: "absent", "open", or "" if no verb does.

    "The picture does not show a dog" says that none is there; "the man does not hold a dog" leaves it open.
    """
    at = phrase.start
    if phrase.negated or phrase.definite:
        return ""
    # "does not show a cat or a dog"
    while (listed := _listed_before(made, at)) is not None:
        at = listed
    if at and made.tokens[at - 1].tag == "PREP":
        return "open" if is_denied(made, at - 1) else ""
    if (found := _denial_before(made, at)) is None or found == at - 1:
        return ""
    verbs = {verb_of(token.lower) for token in made.tokens[found:at]}
    return "absent" if verbs & SHOWING else "open"


def _listed_before(made: Structure, at: int) -> int | None:
    """Where the item before "or" begins, if the phrase at a token follows it."""
    if at == 0 or made.tokens[at - 1].lower not in ("or", "nor"):
        return None
    return next((one.start for one in made.phrases if one.end == at - 1), None)


def missing_in(made: Structure) -> list[NounPhrase]:
    """The noun phrases that a sentence says are not there: "the cat is missing", "cannot be seen", "lacks a cat"."""
    found = [phrase for clause in made.clauses for phrase in clause.subjects if _is_missing(made, phrase)]
    found += [phrase for phrase in made.phrases if _is_lacked(made, phrase) or scope_of(made, phrase) == "absent"]
    return [one for one in found if not (one.some or one.pronoun or _ORDINALS & set(one.modifiers))]


def _is_missing(made: Structure, subject: NounPhrase) -> bool:
    """Whether the verb after a subject says that it is not there."""
    clause = made.clause_of(subject.start)
    if clause.verb is None or clause.verb < subject.end or subject.negated or subject.share:
        return False
    tokens = made.tokens[clause.verb : clause.end]
    for at, token in enumerate(tokens):
        word, after = token.lower, tokens[at + 1] if at + 1 < len(tokens) else None
        phrase = any(one.start <= clause.verb + at < one.end for one in made.phrases)
        if phrase and word not in _MISSING:
            return False
        if word in _MISSING or verb_of(word) in _LEAVING:
            # "is missing a button"
            governs = word != "nowhere" and after is not None and after.tag in ("DET", "NOUN", "ADJ", "NUM")
            return not governs and not any(denies(one) for one in tokens[:at])
        if word in _SEEN:
            before = [one for one in tokens[:at] if one.lower not in ("be", "being")]
            return bool(before) and (denies(before[-1]))
        if word == "in" and after is not None and at and denies(tokens[at - 1]):
            # "is not in the picture"
            return any(one.start == clause.verb + at + 1 and one.noun in PICTURES for one in made.phrases)
        if token.tag not in (*_VERBAL, "NOT", "ADJ"):
            return False
    return False


def _is_lacked(made: Structure, phrase: NounPhrase) -> bool:
    """Whether "lacks", "devoid of" or the like stands before a phrase."""
    if phrase.start == 0:
        return False
    before = made.tokens[phrase.start - 1]
    if before.lower == "of" and phrase.start > 1:
        return made.tokens[phrase.start - 2].lower in _WITHOUT
    return before.tag in ("VERB", "PART") and verb_of(before.lower) == "lack" and not is_denied(made, phrase.start - 1)


def is_existential(made: Structure, phrase: NounPhrase) -> bool:
    """Whether the verb after a subject says no more than that it is there: "no cat is visible"."""
    clause = made.clause_of(phrase.start)
    if clause.verb is None or clause.verb < phrase.end:
        return True
    after = made.tokens[clause.verb : clause.end]
    if any(token.lower in _SEEN for token in after):
        return True
    inside = (one for one in made.phrases if one.start > clause.verb and one.noun in PICTURES)
    return any(made.tokens[one.start - 1].lower == "in" for one in inside)


def nothing_in(made: Structure) -> Iterator[tuple[int, int]]:
    """Where a sentence says that nothing at all is there, as (start, end): "nothing can be seen", "shows nothing"."""
    words = [token.lower for token in made.tokens if token.text[0].isalnum()]
    if "nothing" not in words or {"but", "else", "except", "other", "besides"} & set(words):
        return
    at = next(i for i, token in enumerate(made.tokens) if token.lower == "nothing")
    rest, before = words[words.index("nothing") + 1 :], words[: words.index("nothing")]
    closed = not rest or rest[-1] in PICTURES or rest[-1] in ("here", "see", "visible", "there")
    seen = any(word in _SEEN for word in rest) or (bool(rest) and rest[0] in ("can", "is", "to") and closed)
    shown = bool(before) and (verb_of(before[-1]) in SHOWING or before[0] == "there") and closed
    if (not before and seen) or shown:
        yield at, at + 1
