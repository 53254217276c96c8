"""Noun phrases of a tagged sentence: what they name, how many, and with which attributes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from models.verifier.attributes import is_attribute
from models.verifier.lexicon import lexicon, singular
from models.verifier.words.lists import COUNTS, GROUPS, SEVERAL
from models.verifier.words.tags import Token

_INSIDE = ("ADJ", "NOUN", "NUM")
# "dozens of" and the others mean at least so many
_MANY_OF = {
    "duo": 2,
    "trio": 3,
    "quartet": 4,
    "pair": 2,
    "couple": 2,
    "crowd": 5,
    "dozen": 24,
    "hundred": 200,
    "thousand": 2000,
    "million": 2_000_000,
}
_COUPLE = "couple"  # two persons, without "of"
_AGES = frozenset("young old little new".split())
_CARRYING = frozenset("in with wearing holding carrying".split())
# nouns before "of" that tell of a part or a cover of what they are of: "a slice of cake", "a blanket of snow"
_PARTS_OF = frozenset("piece slice portion chunk scrap blanket layer sheet carpet patch".split())
_LEAST = frozenset((("at", "least"), ("more", "than"), ("over",)))
_MOST = frozenset((("at", "most"), ("fewer", "than"), ("less", "than"), ("up", "to")))
_LONGEST = 3  # words of a compound noun
PICTURES = frozenset(
    "picture image photo photograph scene frame view shot drawing illustration composition photography snapshot "
    "artwork canvas".split()
)


Share = Literal["", "every", "none"]
Bound = Literal["", "least", "most"]
_SHARES: dict[str, Share] = {"both": "every", "all": "every", "each": "every", "every": "every"}
_SHARES |= {"none": "none", "neither": "none"}
_ABSENT = frozenset("isn't aren't wasn't weren't isn’t aren’t wasn’t weren’t".split())


@dataclass(frozen=True)
class NounPhrase:
    """A noun phrase. start, end: its tokens, with its article; noun: its head in the singular, such as "top hat".

    count: the number that it tells, None if it tells none; many: whether it tells of more than one, without a number.
    attributes: the words before the noun. negated: "no cars", "without a hat". definite: "the", "its" and the like;
    owned: "its". owner: the noun of "the dog's". pronoun: "it" or "they", with the noun that it stands for.
    carried: the nouns of "in a red shirt" and "holding a phone" right after it; worn: their attributes. share: of what
    it names, "every" one ("both cars", "all of the cars", "each car"), or "none" ("none of the cars"); "" if it does
    not tell. modifiers: all words before the noun, such as "stop" of "the stop sign". places: names of the place right
    after it ("the one on the left"). bound: whether the count is the "least" or the "most". some: of more things, "two
    of the dogs".
    """

    start: int
    end: int
    noun: str
    count: int | None = None
    many: bool = False
    attributes: tuple[str, ...] = ()
    negated: bool = False
    definite: bool = False
    owned: bool = False
    pronoun: bool = False
    owner: str = ""
    carried: tuple[str, ...] = ()
    worn: tuple[str, ...] = ()
    share: Share = ""
    modifiers: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    bound: Bound = ""
    some: bool = False

    def text(self, tokens: Sequence[Token], sentence: str) -> str:
        """Its words in the sentence."""
        return sentence[tokens[self.start].start : tokens[self.end - 1].end]


def phrases_of(tokens: Sequence[Token]) -> list[NounPhrase]:
    """The noun phrases of a sentence, from left to right, without overlaps."""
    found: list[NounPhrase] = []
    at = 0
    while at < len(tokens):
        phrase = _phrase_at(tokens, at)
        if phrase is None:
            at += 1
        else:
            found.append(phrase)
            at = phrase.end
    grouped = _grouped(found, tokens)
    return [_carrying(one, after, tokens) for one, after in zip(grouped, [*grouped[1:], None], strict=False)]


def _carrying(phrase: NounPhrase, after: NounPhrase | None, tokens: Sequence[Token]) -> NounPhrase:
    """A phrase with the noun of what it wears or holds, if that follows: "a man in a red shirt"."""
    joined = after is not None and after.start == phrase.end + 1 and tokens[phrase.end].lower in _CARRYING
    return replace(phrase, carried=(after.noun,), worn=after.attributes) if after is not None and joined else phrase


def _phrase_at(tokens: Sequence[Token], start: int) -> NounPhrase | None:
    """The noun phrase that begins at a token; None if none does."""
    at, negated, definite, owned = start, False, False, False
    if (nobody := _nobody_at(tokens, start)) is not None:
        return nobody
    if tokens[at].tag == "NOT" and tokens[at].lower == "no":
        at, negated = at + 1, True
    elif start and (_is_denied(tokens, start) or _is_absent(tokens, start)):
        negated = _share(tokens, start) != "none"
    if at < len(tokens) and tokens[at].tag == "DET":
        definite = tokens[at].lower not in ("a", "an", "another", "any")
        owned = tokens[at].lower in ("its", "their", "his", "her")
        at += 1
    first = at
    last = _noun_end(tokens, first, definite or tokens[start].tag == "DET")
    if last == first:
        return None
    words, own = tokens[first:last], _owner(tokens[first:last])
    counts = [COUNTS.get(word.lower) or int(word.text) for word in words if _is_count(word)]
    plural = singular(words[-1].lower) != words[-1].lower
    # "some" of one is a part of it
    several = any(word.lower in SEVERAL - {"some"} for word in words)
    parts = [(part, word.tag) for word in words[:-1] for part in word.lower.split("-")]
    return NounPhrase(
        start,
        last,
        _noun(words),
        count=counts[0] + _beyond(tokens, start) if counts else None,
        many=not counts and (plural or several),
        attributes=tuple(part for word in words for part in word.lower.split("-") if word.tag == "ADJ"),
        negated=negated,
        definite=definite,
        owned=owned or bool(own),
        owner=own,
        share=_share(tokens, start),
        modifiers=tuple(part for part, tag in parts if tag in ("ADJ", "NOUN")),
        bound=_bound(tokens, start),
    )


def _noun_end(tokens: Sequence[Token], first: int, determined: bool) -> int:
    """The token after the last noun of adjectives and nouns that begin at a token; first if there is no noun.

    Commas and "and" may stand between adjectives. determined: whether an article stands before.
    """
    last = at = first
    while at < len(tokens) and (tokens[at].tag in _INSIDE or _joins_adjectives(tokens, at) or _is_genitive(tokens, at)):
        at += 1
        if tokens[at - 1].tag == "NOUN" or (tokens[at - 1].tag == "MARK" and _is_genitive(tokens, at - 1)):
            last = at
    # "the orange": an adjective that stands for a thing
    return at if last == first and at > first and determined and tokens[at - 1].tag == "ADJ" else last


def _nobody_at(tokens: Sequence[Token], start: int) -> NounPhrase | None:
    """The phrase "nobody" or "no one" at a token: no person."""
    words = [token.lower for token in tokens[start : start + 2]]
    length = 1 if words[0] == "nobody" else 2 if words == ["no", "one"] else 0
    return NounPhrase(start, start + length, "person", negated=True) if length else None


def _beyond(tokens: Sequence[Token], start: int) -> int:
    """What "more than" and "fewer than" before a number add to the least or the most that it tells: 1, -1, else 0."""
    before = tokens[start - 2].lower if start > 1 and tokens[start - 1].lower == "than" else ""
    return 1 if before == "more" else -1 if before in ("fewer", "less") else 0


def _bound(tokens: Sequence[Token], start: int) -> Bound:
    """Whether "at least", "more than", "at most" or the like stands before a phrase."""
    before = tuple(token.lower for token in tokens[max(0, start - 2) : start])
    tails = {before, before[-1:]}
    return "least" if tails & _LEAST else "most" if tails & _MOST else ""


def _share(tokens: Sequence[Token], start: int) -> Share:
    """How much a phrase tells of what it names: "both cars", "all of the cars", "neither car"."""
    words = [token.lower for token in tokens[max(0, start - 2) : start + 1]]
    # "neither a cat nor a dog"
    if "neither" in words and any(token.lower == "nor" for token in tokens[start:]):
        return ""
    if len(words) > 1 and words[-2] == "of":
        return _SHARES.get(words[0], "") if len(words) == 3 else ""
    return _SHARES.get(words[-1], "") or ("none" if words[-2:-1] == ["neither"] else "")


def _is_denied(tokens: Sequence[Token], start: int) -> bool:
    """Whether "not" or the like stands before a phrase; "the girl, not the boy" tells of the girl alone."""
    contrast = tokens[start - 1].lower == "not" and tokens[start].lower not in ("a", "any", "one")
    return tokens[start - 1].tag == "NOT" and not contrast


def _is_absent(tokens: Sequence[Token], start: int) -> bool:
    """Whether "there isn't" stands before a phrase."""
    return start > 1 and tokens[start - 1].lower in _ABSENT and tokens[start - 2].lower == "there"


def _owner(words: Sequence[Token]) -> str:
    """The noun in the singular that owns the last one: of "the dog's fur" the dog; "" if there is none."""
    for before, word in itertools.pairwise(words):
        if before.lower.endswith(("'s", "s'")):
            return singular(before.lower.removesuffix("'s").removesuffix("'"))
        if word.text in ("'", "’"):
            return singular(before.lower)
    return ""


def _is_count(word: Token) -> bool:
    return word.tag == "NUM" and (word.lower in COUNTS or (word.text.isdecimal() and len(word.text) < 5))


def _noun(words: Sequence[Token]) -> str:
    """The head in the singular: the longest compound that is known, else the last word."""
    last = singular(words[-1].lower)
    for length in range(min(_LONGEST, len(words)), 1, -1):
        before = [word.lower for word in words[-length:-1]]
        # "young woman" is a compound of WordNet's too; its adjective is an attribute
        plain = is_attribute(before[0]) or before[0] in _AGES
        if not plain and all(word.tag in ("NOUN", "ADJ") for word in words[-length:]):
            compound = " ".join([*before, last])
            if any(lexicon().senses(compound)):
                return compound
    return last


def _joins_adjectives(tokens: Sequence[Token], at: int) -> bool:
    """Whether a token is the comma or the "and" of "a small, red and white car"."""
    if tokens[at].tag != "COMMA" and tokens[at].lower not in ("and", "yet", "but"):
        return False
    return 0 < at < len(tokens) - 1 and tokens[at - 1].tag == "ADJ" and tokens[at + 1].tag == "ADJ"


def _is_genitive(tokens: Sequence[Token], at: int) -> bool:
    return tokens[at].text in ("'", "’") and at > 0 and tokens[at - 1].lower.endswith("s")


def _grouped(phrases: Sequence[NounPhrase], tokens: Sequence[Token]) -> list[NounPhrase]:
    """The phrases, with "a pair of dogs" as one: two dogs."""
    found: list[NounPhrase] = []
    for phrase in phrases:
        last = found[-1] if found else None
        joined = last is not None and last.end + 1 == phrase.start and tokens[last.end].lower == "of"
        if last is not None and joined and last.noun in _PARTS_OF:
            found[-1] = replace(phrase, start=last.start, count=last.count, many=last.many, definite=last.definite)
        elif last is not None and joined and last.noun in GROUPS:
            found[-1] = NounPhrase(
                last.start,
                phrase.end,
                phrase.noun,
                count=_MANY_OF.get(last.noun, phrase.count),
                many=last.noun not in _MANY_OF and phrase.count is None,
                attributes=phrase.attributes,
                negated=last.negated,
                definite=last.definite,
            )
        else:
            found.append(_some_of(phrase, tokens))
    return [_as_persons(one) if one.noun == _COUPLE else one for one in found]


def _as_persons(couple: NounPhrase) -> NounPhrase:
    """A couple, or several, as the persons that they are."""
    return replace(couple, noun="person", count=2 * (couple.count or 1), many=False)


def _some_of(phrase: NounPhrase, tokens: Sequence[Token]) -> NounPhrase:
    """A phrase with the number before "of the": "two of the dogs", "some of the dogs"."""
    at = phrase.start - 2
    if at < 0 or not phrase.definite or tokens[at + 1].lower != "of" or tokens[at].tag != "NUM":
        return phrase
    count = COUNTS.get(tokens[at].lower) or (int(tokens[at].text) if _is_count(tokens[at]) else None)
    if phrase.share or tokens[at].lower in ("both",):
        return phrase
    return replace(phrase, start=at, count=count, many=count is None, some=True, bound=_bound(tokens, at))
