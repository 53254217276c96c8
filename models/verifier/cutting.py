"""Cutting a sentence back to what is supported: the smallest removable piece around each claim that is not.

What remains is a whole sentence: it has a subject and a verb if the sentence had them, no preposition or article stands
at its end, and its claims are checked once more. Otherwise a larger piece is tried, and at last the sentence is cut.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import islice, product

from models.verifier.claims.denials import is_denied
from models.verifier.lexicon import verb_of
from models.verifier.structure import Piece, Structure, structure_of

_MOST_TRIES = 24  # of combinations of pieces for one sentence
_JOINT_AT_START = re.compile(
    r"\A[\s,;:—–]*(?:(?:and|but|while|whereas|although|though|or|so|yet|as|with)\b[\s,]*)?", re.I
)
_FINITE = ("VERB", "AUX")
# verbs that say nothing without what follows them
_NEED_AN_OBJECT = frozenset(
    "line fill cover surround dominate decorate adorn dress wear hold carry contain feature show include depict make "
    "compose flank accompany let display try give add create suggest read say bear use touch catch".split()
)
_PLURAL_VERBS = {"are": "is", "were": "was", "have": "has"}
_OPEN_ENDS = ("DET", "PREP", "JOIN", "THAT", "NOT", "COMMA")
_OF_ITEM = frozenset(("DET", "ADJ", "NOUN", "NUM", "QUOTE"))  # tags of the words of one item of a list
_BE_ALONE = frozenset("is are was were be been being appears appear seems seem looks look".split())
_DANGLING = frozenset("located positioned situated placed sitting standing lying seated".split())


def cut_back(made: Structure, faults: Sequence[tuple[int, int]], holds: Callable[[str], bool]) -> str | None:
    """The largest rest of a sentence without its faults, given as (start, end) of tokens; None if none is whole.

    holds: whether all claims of a rest are supported.
    """
    choices = [pieces_around(made, start, end)[:6] for start, end in faults]
    if not all(choices):
        return None
    # the combinations that remove least first; one piece may contain several faults
    chosen = {tuple(dict.fromkeys(pieces)) for pieces in islice(product(*choices), 400)}
    ordered = sorted(chosen, key=lambda pieces: len({at for one in pieces for at in range(one.start, one.end)}))
    for pieces in ordered[:_MOST_TRIES]:
        rest = without(made, pieces)
        if rest is not None and holds(rest):
            return rest
    return None


def pieces_around(made: Structure, start: int, end: int) -> list[Piece]:
    """The removable pieces that contain the tokens from start to end, the smallest first."""
    around = [piece for piece in made.pieces if piece.start <= start and piece.end >= end]
    return sorted(dict.fromkeys(around), key=lambda piece: (piece.end - piece.start, piece.start))


def without(made: Structure, pieces: Sequence[Piece]) -> str | None:
    """The sentence without some pieces; None if the rest is no whole sentence."""
    gone = {at for piece in pieces for at in range(piece.start, piece.end)}
    joined = _lost_joints(made, gone)
    parts: list[str] = []
    for at, token in enumerate(made.tokens):
        if at in gone:
            continue
        spaced = at == 0 or made.text[token.start - 1 : token.start].isspace()
        parts.append(joined.get(at, (" " if spaced else "") + _inflected(made, at, gone)))
    if _is_torn(made, gone):
        return None
    rest = agreeing(_tidied("".join(parts), made.text))
    return rest if rest and _is_whole(structure_of(rest), made) else None


def _inflected(made: Structure, at: int, gone: Set[int]) -> str:
    """A word; a verb in the singular if one of its clause's several subjects remains: "a man sits"."""
    word, clause = made.tokens[at].text, made.clause_of(at)
    left = [one for one in clause.subjects if not set(range(one.start, one.end)) <= gone]
    alone = len(clause.subjects) > 1 and len(left) == 1 and not left[0].many and (left[0].count or 1) == 1
    if clause.verb != at or not alone or made.tokens[at].tag != "VERB" or verb_of(word.lower()) != word.lower():
        return word
    if re.search(r"[^aeiou]y\Z", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if re.search(r"(?:s|x|z|ch|sh|o)\Z", word) else f"{word}s"


def _is_torn(made: Structure, gone: Set[int]) -> bool:
    """Whether what is left and right of a gap does not go together.

    A gap must end neither within a noun phrase nor within a second clause, take no object from a verb, and leave no
    comma alone before a verb or a preposition.
    """
    tokens = made.tokens
    for start, end in _gaps(gone):
        if end == len(tokens):
            continue
        # ", with two cats to their right" without the cats; "trying to catch a frisbee" without the catch
        left, right = tokens[start - 1] if start else None, tokens[end]
        # "the cup, which is black, is" without both commas
        if right.tag == "COMMA" and end + 1 < len(tokens) and tokens[end + 1].tag in _FINITE:
            return True
        if left is not None and left.tag == "PREP" and right.tag in ("MARK", "COMMA", "JOIN", *_FINITE):
            return True
        if left is not None and left.tag == "COMMA" and right.tag in ("PREP", *_FINITE):
            return True
        if left is not None and left.tag in ("VERB", "PART") and right.tag in ("DET", "NUM", "NOUN", "PRON"):
            listed = tokens[end - 1].lower in ("and", "or", ",")
            if not listed:
                return True
        # "[and a blue double-decker] bus"; a clause of which the beginning alone is gone, after another one
        if any(phrase.start < end < phrase.end and start <= phrase.start for phrase in made.phrases):
            return True
        if start and any(start <= one.start < end < one.end and one.start > 0 for one in made.clauses):
            whole = any(start == one.start for one in made.clauses)
            if not whole:
                return True
    return _lost_object(made, gone) or _lost_denied(made, gone)


def _gaps(gone: Set[int]) -> Iterator[tuple[int, int]]:
    """The runs of tokens that are gone, each as (start, end)."""
    for at in sorted(gone):
        if at - 1 not in gone:
            yield at, next(end for end in itertools.count(at + 1) if end not in gone)


def _lost_object(made: Structure, gone: Set[int]) -> bool:
    """Whether a verb has lost what it cannot be without: "the street is lined", "the man wears"."""
    tokens = made.tokens
    for at, token in enumerate(tokens[:-1]):
        if at in gone or at + 1 not in gone or token.tag not in ("VERB", "PART", "NOUN"):
            continue
        phrasal = token.lower == "place" and at > 0 and verb_of(tokens[at - 1].lower) == "take"
        after = next((tokens[i].tag for i in range(at + 1, len(tokens)) if i not in gone), "MARK")
        needs = token.tag != "NOUN" and verb_of(token.lower) in _NEED_AN_OBJECT
        if (needs or phrasal) and after in ("MARK", "COMMA", "JOIN", "PREP", *_FINITE):
            return True
    return False


def _lost_denied(made: Structure, gone: Set[int]) -> bool:
    """Whether a denial or a comparison has lost what it is told of: "the cat is not", "is taller"."""
    for start, end in _gaps(gone):
        words = [token.lower for token in made.tokens[start:end]]
        if start and (is_denied(made, start) or words[0] == "than" or ("nor" in words and "neither" not in words)):
            return True
    return False


def _lost_joints(made: Structure, gone: Set[int]) -> dict[int, str]:
    """What commas become where the "and" of their list is gone: the last comma " and", one after the last item "".

    "A cat, a dog and a cap" without the cap is "a cat and a dog".
    """
    joined: dict[int, str] = {}
    for at in gone:
        token = made.tokens[at]
        if token.tag != "JOIN" or token.lower not in ("and", "or"):
            continue
        # back over the items of the list, from comma to comma
        for before in range(at - 1, -1, -1):
            tag = made.tokens[before].tag
            if tag == "COMMA" and before not in gone:
                after = next((i for i in range(before + 1, len(made.tokens)) if i not in gone), before)
                joined[before] = f" {token.lower}" if made.tokens[after].tag in _OF_ITEM else ""
                if joined[before]:
                    break
            elif tag not in _OF_ITEM and before not in gone:
                break
    return joined


def _tidied(rest: str, original: str) -> str:
    """A text after pieces were removed: its marks, its first letter and its end as of a sentence."""
    rest = re.sub(r"\s+", " ", rest)
    rest = re.sub(r"\s*,(?:\s*,)+", ",", rest)
    rest = re.sub(r"\s+([,.;:!?])", r"\1", rest)
    rest = re.sub(r"[,;:—–\s]+(?:(?:and|but|while|or|as|with)\s*)?([.!?])", r"\1", rest)
    rest = _JOINT_AT_START.sub("", rest, count=1).strip()
    rest = re.sub(r"[,;:\s]+\Z", "", rest)
    if not rest or not any(character.isalpha() for character in rest):
        return ""
    if rest[-1] not in ".!?\"”'" and original.rstrip()[-1:] in ".!?":
        rest += original.rstrip()[-1]
    return rest[0].upper() + rest[1:] if original.lstrip()[:1].isupper() else rest


def _is_whole(rest: Structure, original: Structure) -> bool:
    """Whether a rest reads as a sentence, if the original did."""
    had_verb = any(clause.verb is not None for clause in original.clauses)
    if not rest.phrases and not any(token.tag == "QUOTE" for token in rest.tokens):
        return False
    if had_verb and not all(clause.verb is not None for clause in rest.clauses):
        return False
    for clause in rest.clauses:
        tokens = [token for token in rest.tokens[clause.start : clause.end] if token.tag != "MARK"]
        if not tokens or tokens[-1].tag in _OPEN_ENDS:
            return False
        last = tokens[-1].lower
        before = tokens[-2].lower if len(tokens) > 1 else ""
        if last in _BE_ALONE or (last in _DANGLING and before in _BE_ALONE) or last in ("there", "in", "of"):
            return False
        if had_verb and not clause.subjects and not any(t.tag in ("PRON", "QUOTE") for t in tokens):
            return False
    # an article or a preposition before a comma or a verb has lost its noun
    pairs = zip(rest.tokens, rest.tokens[1:], strict=False)
    return not any(
        (a.tag == "DET" and b.tag in ("COMMA", "JOIN", "PREP", "MARK", "AUX", "THAT"))
        or (a.tag == "PREP" and b.tag in ("COMMA", "JOIN", "AUX"))
        or (a.lower in _BE_ALONE and b.tag in ("COMMA", "JOIN"))
        for a, b in pairs
    ) and _agrees(rest)


def _agrees(rest: Structure) -> bool:
    """Whether no verb in the plural has lost all but one of its subjects."""
    for clause in rest.clauses:
        if clause.verb is None or len(clause.subjects) != 1:
            continue
        subject, verb = clause.subjects[0], rest.tokens[clause.verb].lower
        first = rest.tokens[subject.start].lower
        if verb in _PLURAL_VERBS and first in ("a", "an", "one") and subject.count in (None, 1):
            return False
    return True


def agreeing(text: str) -> str:
    """A text with "is" for "are" where one subject has remained: "A dog are on the grass" -> "A dog is ..."."""
    made = structure_of(text)
    for clause in made.clauses:
        if clause.verb is None or len(clause.subjects) != 1 or clause.subjects[0].many:
            continue
        subject, verb = clause.subjects[0], made.tokens[clause.verb]
        single = made.tokens[subject.start].lower in ("a", "an", "one") and subject.count in (None, 1)
        if single and verb.lower in _PLURAL_VERBS:
            return text[: verb.start] + _PLURAL_VERBS[verb.lower] + text[verb.end :]
    return text
