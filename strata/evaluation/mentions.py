"""What an English text says, to be compared with a truth: things with their attributes, counts, relations, quotations.

Things are found by a vocabulary, as CHAIR does (Rohrbach et al., "Object Hallucination in Image Captioning", 2018,
arXiv 1809.02156): only its names and their synonyms count, so that every word that counts can be judged.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from strata.snapshots.nouns import noun_of

COLOURS = frozenset(
    "red orange yellow green blue purple pink brown black white grey beige gold silver turquoise".split()
)
_SAME_COLOUR = {"gray": "grey", "golden": "gold"}
NUMBERS = {
    **{word: count for count, word in enumerate("one two three four five six seven eight nine ten".split(), 1)},
    **{"eleven": 11, "twelve": 12},
}
_NEGATIONS = frozenset({"no", "without", "not", "neither", "nor"})
_ARTICLES = frozenset({"a", "an", "the", "another", "some", "its", "their", "that", "this"})
_BEFORE = 4  # words before a noun in which its attributes and its number are looked for
_TOKEN = re.compile(r"\d+|[^\W\d_]+(?:[-'’][^\W\d_]+)*|[.,;:!?()]")
_QUOTED = re.compile(r"“([^“”]+)”|[\"“]([^\"”]+)[\"”]|‘([^’]+)’|«([^»]+)»|「([^」]+)」")
_CLAUSE = frozenset(".,;:!?()")
_SENTENCE = frozenset(".;!?")
_PREPOSITIONS = frozenset({"of", "in", "on", "with", "and"})
_VERBS = frozenset(
    "is are was were stands stand sits sit lies lie appears appear hangs hang rests rest located placed positioned "
    "seen can be standing sitting lying which directly just slightly right immediately there".split()
)
_STOPS = _ARTICLES | _CLAUSE | _VERBS | _PREPOSITIONS  # what ends the words before a noun that belong to it
# the words of a relation by their canonical name; of several that fit, the longest counts
RELATIONS: Mapping[str, str] = {
    **dict.fromkeys(
        ("to the left of", "on the left of", "left of", "at the left of", "on the left side of"), "left of"
    ),
    **dict.fromkeys(("to the right of", "on the right of", "right of", "at the right of"), "right of"),
    **dict.fromkeys(("above", "over", "higher than"), "above"),
    **dict.fromkeys(("below", "beneath", "under", "underneath", "lower than"), "below"),
    **dict.fromkeys(("next to", "beside", "near", "by", "close to"), "near"),
    **dict.fromkeys(("on top of", "on", "upon"), "on"),
    **dict.fromkeys(("in", "inside", "inside of", "within"), "in"),
    **{"in front of": "in front of", "behind": "behind", "holding": "holding", "wearing": "wearing"},
    **{"riding": "riding", "with": "with"},
}
_LONGEST_RELATION = 5  # words


class Mention(NamedTuple):
    """A thing that a text names. name: as the vocabulary has it; number: how many of it, if the text says so.

    start, end: its place among the text's tokens. several: whether the noun is a plural.
    """

    name: str
    attributes: frozenset[str]
    number: int | None
    start: int
    end: int
    several: bool = False

    @property
    def colour(self) -> str | None:
        """Its colour; None if the text gives none. Of several the first in the alphabet."""
        return min(self.attributes & COLOURS, default=None)


class Relation(NamedTuple):
    """One relation between two mentions: `subject` is `predicate` of `object`."""

    subject: Mention
    predicate: str
    object: Mention


@dataclass(frozen=True)
class Reading:
    """What a text says: mentions and relations in its order, and its quotations without their marks."""

    mentions: tuple[Mention, ...] = ()
    relations: tuple[Relation, ...] = ()
    quotes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """The names of things that can be judged, by each of their forms, and words that are attributes.

    forms: the name for each form, in lower case and in the singular; "" for words that name nothing, such as "train
    track". attributes: beside the colours.
    """

    forms: Mapping[str, str]
    attributes: frozenset[str] = frozenset()
    longest: int = field(default=1)

    @classmethod
    def of(
        cls, names: Mapping[str, Iterable[str]], attributes: Collection[str] = (), no_things: Collection[str] = ()
    ) -> Vocabulary:
        """A vocabulary of names with their synonyms. A name is a form of itself; a form belongs to its first name."""
        forms: dict[str, str] = {}
        for name in names:
            forms.setdefault(name.lower(), name)
        for name, synonyms in names.items():
            for synonym in synonyms:
                forms.setdefault(synonym.lower(), name)
        for words in no_things:
            forms.setdefault(words.lower(), "")
        longest = max((len(form.split()) for form in forms), default=1)
        return cls(forms, frozenset(map(colour_of, map(str.lower, attributes))) | COLOURS, longest)

    def find(self, words: Sequence[str]) -> str | None:
        """The name that these words are, the last of them in the singular or the plural; None if they are none."""
        *first, last = words
        for form in singulars(last):
            if (name := self.forms.get(" ".join([*first, form]))) is not None:
                return name
        return None


def colour_of(word: str) -> str:
    """The spelling of a colour that counts: grey for gray, gold for golden; other words as they are."""
    return _SAME_COLOUR.get(word, word)


@functools.lru_cache(100_000)
def singulars(word: str) -> tuple[str, ...]:
    """A word in lower case, and what it may be the plural of, by WordNet's nouns and by its ending."""
    found = {word: None, **({known: None} if (known := noun_of(word)) else {})}
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        found |= {word[:-1]: None}
        found |= {word[:-2]: None} if word.endswith("es") else {}
        found |= {f"{word[:-3]}y": None} if word.endswith("ies") else {}
    return tuple(found)


def read(text: str, vocabulary: Vocabulary) -> Reading:
    """What a text says, by a vocabulary. Words in quotation marks name nothing: they are quotations."""
    quotes = tuple("".join(groups).strip() for groups in _QUOTED.findall(text))
    # "a sign that says “STOP” is …": the quotation, and what leads to it, stand between a noun and its verb
    plain = re.sub(r"\b(?:that|which) (?:says|reads)\s*(?=\0)|\0", " ", _QUOTED.sub("\0", text))
    tokens = [colour_of(token) for token in _TOKEN.findall(plain.lower())]
    mentions = _mentions(tokens, vocabulary)
    return Reading(tuple(mentions), tuple(_relations(tokens, mentions, vocabulary)), quotes)


def _mentions(tokens: Sequence[str], vocabulary: Vocabulary) -> list[Mention]:
    # the names, the longest first at each place
    found: list[tuple[int, int, str]] = []
    start = 0
    while start < len(tokens):
        for length in range(min(vocabulary.longest, len(tokens) - start), 0, -1):
            if (name := vocabulary.find(tokens[start : start + length])) is not None:
                found.append((start, start + length, name))
                start += length - 1
                break
        start += 1
    # of two names side by side the first only says of what kind the second is: "car key", "orange cat"
    starts = {begin for begin, _, _ in found}
    mentions = [_mention(tokens, place, vocabulary) for place in found if place[2] and place[1] not in starts]
    return [one for one in mentions if one is not None]


def _mention(tokens: Sequence[str], place: tuple[int, int, str], vocabulary: Vocabulary) -> Mention | None:
    """The mention of a name at a place, with what is said of it; None if the text says that there is none."""
    start, end, name = place
    attributes: set[str] = set()
    count = None
    # the words before the noun, up to the article or the end of a clause
    before = list(tokens[max(0, start - _BEFORE) : start])
    while before:
        word = before.pop()
        if word in _NEGATIONS or (word in _ARTICLES and before and before[-1] in _NEGATIONS):
            return None
        if word in NUMBERS or word.isdigit():
            count = NUMBERS.get(word) or int(word[:9])
            break
        if word in vocabulary.attributes:
            attributes.add(word)
        # "a red and white bus": the colours before "and" are the bus's too
        elif word in _STOPS and (word != "and" or not attributes):
            break
    several = bool(noun_of(tokens[end - 1])) and noun_of(tokens[end - 1]) != tokens[end - 1]
    return Mention(name, frozenset(attributes | _told_after(tokens, end, vocabulary)), count, start, end, several)


def _told_after(tokens: Sequence[str], end: int, vocabulary: Vocabulary) -> set[str]:
    """The attributes of "the car is red", "the car is red and white"."""
    if end >= len(tokens) or tokens[end] not in ("is", "are"):
        return set()
    told = set()
    for word in tokens[end + 1 : end + 4]:
        if word in vocabulary.attributes:
            told.add(word)
        elif word != "and":
            # "is red" and "is red on …" are told of the thing; "is a red cup" is another thing
            return told if word not in _ARTICLES else set()
    return told


def _relations(tokens: Sequence[str], mentions: Sequence[Mention], vocabulary: Vocabulary) -> Iterable[Relation]:
    """The relations of neighbours within a sentence."""
    for one, other in itertools.pairwise(mentions):
        between = tokens[one.end : other.start]
        if _SENTENCE & set(between):
            continue
        # what the second noun has before it is no part of the relation
        words = [word for word in between if word not in vocabulary.attributes and not _is_number(word)]
        while words and words[-1] in _ARTICLES:
            words.pop()
        if predicate := _predicate(words):
            yield Relation(one, predicate, other)
        elif words and set(words) <= _VERBS | _ARTICLES | {","} and (inverse := _leading(tokens, one)):
            # "to the left of the cup is a lamp"
            yield Relation(other, inverse, one)


def _is_number(word: str) -> bool:
    return word in NUMBERS or word.isdigit()


def _predicate(words: Sequence[str]) -> str | None:
    """The relation that words between two nouns state: verbs, then its words, and nothing else."""
    for length in range(min(_LONGEST_RELATION, len(words)), 0, -1):
        phrase = " ".join(words[-length:])
        if phrase in RELATIONS and set(words[:-length]) <= _VERBS:
            return RELATIONS[phrase]
    return None


def _leading(tokens: Sequence[str], mention: Mention) -> str | None:
    """The relation at the beginning of a sentence whose first noun is this mention."""
    begin = max((place + 1 for place, word in enumerate(tokens[: mention.start]) if word in _SENTENCE), default=0)
    words = [word for word in tokens[begin : mention.start] if word not in COLOURS and not _is_number(word)]
    while words and words[-1] in _ARTICLES:
        words.pop()
    return RELATIONS.get(" ".join(words))
