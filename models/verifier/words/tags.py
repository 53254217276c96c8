"""The part of speech of each word, by closed lists, WordNet and the words around it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.verifier.attributes import is_attribute
from models.verifier.lexicon import is_compound, is_kind_of, is_object, lexicon, singular, verb_of
from models.verifier.words.lists import (
    ADVERBS,
    ARTICLES,
    AUXILIARIES,
    BE,
    CAPTION_VERBS,
    COUNTS,
    DENYING,
    GROUPS,
    JOINS,
    MODALS,
    MOSTLY_VERBS,
    NEAR_TO,
    NEARER,
    NEGATIONS,
    POSSESSIVE,
    PREPOSITIONS,
    PRONOUNS,
    SAME_PARTICIPLES,
    SEVERAL,
    SINGLE,
    STANDING_FOR,
    THAT,
)

# DET: articles and possessives; NUM: counts; PART: participles; THAT: words that begin a relative clause; JOIN: words
# that join clauses or phrases; MARK: other punctuation
Tag = Literal[
    "DET",
    "NUM",
    "ADJ",
    "NOUN",
    "VERB",
    "AUX",
    "PART",
    "PREP",
    "THAT",
    "JOIN",
    "COMMA",
    "MARK",
    "QUOTE",
    "PRON",
    "ADV",
    "NOT",
]


_MARKS = "\"'“”„«»‘’"


@dataclass(frozen=True)
class Token:
    """A word, a mark, or a whole quotation. start, end: its place in the sentence; lower: in lower case."""

    text: str
    start: int
    end: int
    tag: Tag = "NOUN"

    @functools.cached_property
    def lower(self) -> str:
        """The word in lower case, with plain apostrophes."""
        return self.text.lower().replace("’", "'")

    @property
    def quoted(self) -> str:
        """The text of a quotation without its marks; words in capitals have none."""
        return self.text.strip(_MARKS).strip()


def tag_of(token: Token, before: list[Token], following: Sequence[Token]) -> Tag:
    """The tag of a token, by the tokens before it and the two after it."""
    word, after = token.lower, following[0] if following else None
    if word in ("'s", "'re"):
        return "AUX"
    if not word[0].isalnum():
        return "COMMA" if word == "," else "MARK"
    if word == "one" and _is_anybody(before, after):
        return "PRON"
    if word in STANDING_FOR and _stands_for_noun(word, before, after):
        return "NOUN"
    if word.isdigit() or word in COUNTS or word in SEVERAL:
        return "NUM"
    if (closed := _closed(word, before, after)) is not None:
        return closed
    if _is_comparative(word, before, following):
        return "ADJ"
    if is_attribute(word):
        # "the orange lies", "a wine glass": a noun where nothing follows that it could belong to
        thing = before and before[-1].tag in ("DET", "NOUN") and is_compound(word) and not _is_nominal(after)
        # "a black and white cow"
        joined = len(following) > 1 and following[0].lower in ("and", "or", ",") and is_attribute(following[1].lower)
        return "NOUN" if thing and not joined else "ADJ"
    if _is_joined_adjective(word, before, following):
        return "ADJ"
    return _open(word, before, after)


def _is_comparative(word: str, before: Sequence[Token], following: Sequence[Token]) -> bool:
    """Whether a word is an adjective's comparative: "closer to the edge", "higher up than"; a cooler is a thing."""
    if not word.endswith("er") or not any("a" in lexicon().speech(stem) for stem in _stems(word)):
        return word in NEARER and bool(before) and before[-1].tag != "DET"
    if "n" not in lexicon().speech(word):
        return True
    compared = any(token.lower == "than" for token in following)
    return compared or (word in NEARER and bool(before) and before[-1].tag not in ("DET", "ADJ"))


def _stems(word: str) -> tuple[str, ...]:
    """What a word in -er may be the comparative of: "close", "tall", "big", "heavy"."""
    stem = word[:-2]
    return stem, f"{stem}e", stem[:-1], f"{stem[:-1]}y"


def _is_anybody(before: Sequence[Token], after: Token | None) -> bool:
    """Whether "one" is anybody: "one sees a man", "one can see"."""
    begins = not before or before[-1].tag in ("COMMA", "JOIN", "MARK", "THAT")
    verb = verb_of(after.lower) if after is not None else ""
    form = after is not None and verb not in ("", after.lower) and after.lower.endswith("s") and after.lower not in BE
    return begins and after is not None and (form or after.lower in MODALS)


def _stands_for_noun(word: str, before: Sequence[Token], after: Token | None) -> bool:
    """Whether "one" or "ones" stands for a noun: "a green one", "the one on the right"."""
    previous = before[-1].tag if before else ""
    return word == "ones" or previous == "ADJ" or (previous == "DET" and not _is_nominal(after))


def _is_joined_adjective(word: str, before: Sequence[Token], following: Sequence[Token]) -> bool:
    """Whether a word that is mostly an adjective is one of two: "a simple yet elegant moment"."""
    joined = len(following) > 1 and following[0].lower in ("and", "yet", "but", ",")
    mostly = lexicon().speech(word).startswith("a")
    return joined and mostly and bool(before) and "a" in lexicon().speech(following[1].lower)


def _closed(word: str, before: list[Token], after: Token | None) -> Tag | None:
    """The tag of a word of the closed lists; None for the others."""
    previous = before[-1].tag if before else ""
    if word in NEGATIONS:
        return "NOT"
    if _is_bound(word, before, after):
        return "ADV"
    if word == "overall" and after is not None and after.text == ",":
        return "ADV"
    if word in THAT and previous in ("NOUN", "COMMA", "QUOTE", "ADJ", "PREP"):
        return "THAT"
    if word in POSSESSIVE or word in ARTICLES:
        alone = after is None or not after.text[0].isalpha() or after.lower in AUXILIARIES
        return "PRON" if alone and word not in ("a", "an", "the") else "DET"
    if word == "as" and previous not in ("COMMA", "MARK"):
        return "PREP"
    if word in JOINS:
        return "JOIN"
    if word in PRONOUNS:
        return "PRON"
    if word in ADVERBS and not (word in PREPOSITIONS and after and after.text[0].isalpha()):
        return "ADV"
    if word in PREPOSITIONS:
        return "PREP"
    return "AUX" if word in AUXILIARIES else None


def _is_bound(word: str, before: Sequence[Token], after: Token | None) -> bool:
    """Whether a word is of "at least three", "more than ten", "over a dozen", "up to five"."""
    following, previous = after.lower if after else "", before[-1].lower if before else ""
    if word == "at":
        return following in ("least", "most")
    if word in ("least", "most"):
        return previous == "at"
    if word in ("more", "fewer", "less"):
        return following == "than"
    counted = following in COUNTS or following.isdecimal()
    return counted and (word in ("over", "around", "about", "than") or (word == "to" and previous == "up"))


def _open(word: str, before: list[Token], after: Token | None) -> Tag:
    """The tag of a noun, verb, adjective or adverb, by its dictionary entry and its neighbours."""
    previous: str = before[-1].tag if before else ""
    if _is_owned(word, before, after):
        return "NOUN"
    # "is not standing" as "is standing"
    if len(before) > 1 and before[-1].lower in DENYING and before[-2].tag == "AUX":
        before = before[:-1]
        previous = "AUX"
    known, verb = lexicon(), verb_of(word)
    noun = "n" in known.speech(singular(word))
    named = _is_nominal(after)
    if previous in ("NOUN", "QUOTE", "THAT", "PRON", "ADV", "COMMA", "JOIN"):
        found = _verb_tag(word, verb, noun, before, after)
        if found is not None:
            return found
    infinitive = verb == word and _after_infinitive_to(before)
    if infinitive and (_begins_phrase(after) or known.speech(word).startswith("v")):
        return "PART"
    # "is left of the car"
    if word == "left" and after is not None and after.lower == "of":
        return "ADJ"
    if previous == "AUX" and verb and _is_participle(word, verb):
        return "PART"
    # "one can read", "can be read"
    if previous == "AUX" and verb == word and before[-1].lower in MODALS:
        return "VERB"
    if previous == "AUX" and word in SAME_PARTICIPLES and (not named or (after and after.lower in ADVERBS)):
        return "PART"
    regular = verb not in ("", word) and word.endswith(("ing", "ed"))
    if regular and previous in ("DET", "ADJ", "NUM", "PREP", "", "JOIN", "COMMA", "AUX"):
        # "a parked car", or a phrase such as "sitting on a bench"
        # after a preposition too: "surrounded by blooming flowers"
        modifies = named and (previous in ("DET", "ADJ", "NUM") or (previous == "PREP" and word.endswith("ing")))
        # "Hanging on the wall is": before the subject
        leads = previous == "" and verb in CAPTION_VERBS and _begins_phrase(after)
        return "ADJ" if modifies else "NOUN" if _is_thing(word) and not leads else "PART"
    return _nominal(word, before, after, noun)


def _is_owned(word: str, before: Sequence[Token], after: Token | None) -> bool:
    """Whether a word is what somebody has: "a child's feet"; but "the man's holding a cup", "the man's old hat"."""
    owner = bool(before) and before[-1].tag == "NOUN" and before[-1].lower.endswith(("'s", "s'"))
    if not owner or word.endswith(("ing", "ed")) or "n" not in lexicon().speech(singular(word)):
        return False
    return "a" not in lexicon().speech(word) or not _is_nominal(after)


def _nominal(word: str, before: Sequence[Token], after: Token | None, noun: bool) -> Tag:
    """The tag of a word that is no participle. noun: whether it can be a noun."""
    named = _is_nominal(after)
    previous = before[-1].tag if before else ""
    speech = lexicon().speech(word) or lexicon().speech(singular(word))
    if word.endswith("ly") and "r" in speech:
        return "ADV"
    # "appear calm and content"
    joined = previous == "JOIN" and len(before) > 2 and before[-2].tag == "ADJ" and before[-3].tag in ("AUX", "ADV")
    if joined and "a" in speech and not named:
        return "ADJ"
    # "his mouth wide open"
    opened = next((token for token in reversed(before) if token.tag not in ("ADJ", "ADV", "NUM")), None)
    mostly = lexicon().speech(word).startswith("a")
    if mostly and previous == "ADJ" and not named and (opened is None or opened.tag != "DET"):
        return "ADJ"
    # "a box full of toys"
    follows = previous == "NOUN" and after is not None and after.lower in PREPOSITIONS
    if follows and mostly:
        return "ADJ"
    if "a" in speech and (named or not noun):
        return "NOUN" if noun and 0 <= speech.find("n") < speech.find("a") else "ADJ"
    if "a" in speech and previous in ("AUX", "ADV", "COMMA") and not speech.startswith("n"):
        return "ADJ"
    if not noun and verb_of(word):
        return "VERB"
    return "ADV" if not noun and "r" in speech else "NOUN"


def _after_infinitive_to(before: Sequence[Token]) -> bool:
    """Whether "to" stands before, and a verb or an adjective before that: "trying to catch", "ready to help"."""
    if len(before) < 2 or before[-1].lower != "to" or before[-2].lower in NEAR_TO:
        return False
    return before[-2].tag in ("PART", "VERB", "AUX", "ADJ", "ADV")


def _is_participle(word: str, verb: str) -> bool:
    return word.endswith(("ing", "ed", "en")) or (word != verb and not word.endswith("s"))


def _verb_tag(word: str, verb: str, noun: bool, before: list[Token], after: Token | None) -> Tag | None:
    """The tag of a word after a noun or a pronoun if it is a form of a verb; None if it may be a noun."""
    previous = before[-1].tag
    # "a blue one dances"
    if before[-1].lower in STANDING_FOR and previous == "NOUN" and verb:
        return "VERB" if word == verb or word.endswith("s") else "PART"
    # "a traffic light": the basic form follows a plural alone
    counted = len(before) > 1 and (before[-2].tag == "NUM" or _after_group(before))
    plural = previous == "NOUN" and singular(before[-1].lower) != before[-1].lower
    common = verb in CAPTION_VERBS or lexicon().speech(word).startswith("v")
    listed = word == verb and common and _after_list(before) and _begins_phrase(after)
    # "a man keeps watch": no plural follows "a"
    if word != verb and word.endswith("s") and previous == "NOUN" and _after_single(before):
        return "VERB" if verb else None
    if word == verb and noun and _after_single(before) and not (listed or counted):
        return None
    one = previous == "NOUN" and singular(before[-1].lower) == before[-1].lower and not counted
    # "a phone and a notebook lie next to"
    if listed:
        return "VERB"
    if word == verb and noun and one:
        return None
    if not verb or (previous == "ADV" and word == verb and noun):
        return None
    if word.endswith("ing"):
        # "a man drinking coffee", but "a wooden building stands"
        governs = _begins_phrase(after) or (_is_person_or_animal(before[-1].lower) and _is_nominal(after))
        return None if _is_thing(word) and not governs else "PART"
    if word != verb and not word.endswith("s"):  # "parked", "worn"
        return "PART"
    # "two colleagues work side by side": no plural stands before a noun, but in compounds that are known
    ambiguous = noun and verb not in CAPTION_VERBS and not (plural and word == verb)
    if previous in ("COMMA", "JOIN"):
        # "the woman, clad in blue, types on": after what is put in, and no verb before
        put_in = sum(one.tag == "COMMA" for one in before) > 1 and not any(one.tag in ("VERB", "AUX") for one in before)
        likely = verb in CAPTION_VERBS or (put_in and previous == "COMMA")
        return "VERB" if word.endswith("s") and likely and _begins_phrase(after) else None
    # "are wearing safety vests": a clause has one verb
    return None if ambiguous and (_has_verb(before) or not _begins_phrase(after)) else "VERB"


def _has_verb(before: Sequence[Token]) -> bool:
    """Whether the clause that is going on has a verb already."""
    begun = itertools.takewhile(lambda one: one.tag not in ("COMMA", "JOIN", "THAT", "MARK"), reversed(before))
    return any(one.tag in ("VERB", "AUX") for one in begun)


def _after_group(before: Sequence[Token]) -> bool:
    """Whether "a pair of" or a plural with "of" stands before the last word: "a pair of sheep", "slices of cake"."""
    if len(before) < 3 or before[-2].lower != "of":
        return False
    group = before[-3].lower
    return group in GROUPS or singular(group) != group


def _after_single(before: Sequence[Token]) -> bool:
    """Whether a noun phrase in the singular has begun, after which a verb's basic form is a noun: "a sports ball"."""
    for token in reversed(before):
        # "a child's fingers touch": the article is the owner's
        if token.tag not in ("NOUN", "ADJ") or token.lower.endswith("'s"):
            return token.lower in SINGLE
    return False


def _after_list(before: Sequence[Token]) -> bool:
    """Whether two noun phrases with "and" between them have begun, as a plural subject does."""
    tags = [token.tag for token in before]
    joints = [at for at, token in enumerate(before) if token.lower == "and"]
    return (
        bool(joints) and set(tags[joints[-1] + 1 :]) <= {"DET", "ADJ", "NOUN", "NUM"} and "NOUN" in tags[: joints[-1]]
    )


def _is_thing(word: str) -> bool:
    """Whether a word in -ing or -ed is a noun of its own: a building, a painting, a bed."""
    return lexicon().speech(word).startswith("n") and is_object(word)


def _is_person_or_animal(word: str) -> bool:
    single = singular(word)
    return is_kind_of(single, "person") or is_kind_of(single, "animal")


def _begins_phrase(after: Token | None) -> bool:
    """Whether a noun phrase, a preposition or nothing follows, as after a verb."""
    if after is None or after.tag == "QUOTE" or not after.text[0].isalpha():
        return True
    word = after.lower
    closed = word in ARTICLES or word in POSSESSIVE or word in PREPOSITIONS or word in COUNTS or word in SEVERAL
    return closed or word in JOINS or word in NEAR_TO or word in ADVERBS or word in PRONOUNS or word.endswith("ly")


def _is_nominal(after: Token | None) -> bool:
    """Whether the next word can be a noun or an adjective before one."""
    if after is None or after.tag == "QUOTE" or not after.text[0].isalpha():
        return False
    word = after.lower
    if word in PREPOSITIONS or word in AUXILIARIES or word in JOINS or word in ARTICLES or word in THAT:
        return False
    if word.endswith("s") and verb_of(word) in MOSTLY_VERBS:
        return False
    # "directs" is the form of a verb and nothing else
    if verb_of(word) not in ("", word) and word.endswith("s") and singular(word) == word and not lexicon().speech(word):
        return False
    speech = lexicon().speech(word) + lexicon().speech(singular(word))
    return "n" in speech or "a" in speech or is_attribute(word) or not speech
