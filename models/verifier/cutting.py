"""Cutting a sentence back to what is supported: the smallest removable piece around each claim that is not.

What remains is a whole sentence: it has a subject and a verb if the sentence had them, no preposition or article stands
at its end, and its claims are checked once more. Otherwise a larger piece is tried, and at last the sentence is cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from itertools import islice, product

from models.verifier.structure import Piece, Structure, structure_of

_MOST_TRIES = 24  # of combinations of pieces for one sentence
_JOINT_AT_START = re.compile(
    r"\A[\s,;:—–]*(?:(?:and|but|while|whereas|although|though|or|so|yet|as|with)\b[\s,]*)?", re.I
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
        parts.append(joined.get(at, (" " if spaced else "") + token.text))
    rest = agreeing(_tidied("".join(parts), made.text))
    return rest if rest and _is_whole(structure_of(rest), made) else None


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
