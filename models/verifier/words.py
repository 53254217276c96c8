"""Words of an English sentence: tokens with their parts of speech, by closed lists, WordNet and their neighbours."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from models.verifier.attributes import is_attribute
from models.verifier.lexicon import is_compound, is_kind_of, is_object, lexicon, singular, verb_of

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

COUNTS = {
    **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
    **{"eleven": 11, "twelve": 12, "single": 1, "lone": 1, "solitary": 1, "both": 2, "dozen": 12},
}
SEVERAL = frozenset("several many numerous multiple various few some".split())  # more than one, none knows how many
NEGATIONS = frozenset("no not without never neither nor none n't cannot".split())
PRONOUNS = frozenset(
    "it they them he she him her i we us you this these those itself themselves himself herself each everything "
    "something nothing someone anyone others another one's there who whom".split()
)
_POSSESSIVE = frozenset("its their his her my our your whose".split())
_ARTICLES = frozenset("a an the this that these those each every any another all".split())
PREPOSITIONS = frozenset(
    "in on at by of to with from for over under above below beneath underneath beside near behind inside outside into "
    "onto upon against among amid amidst around across along between beyond through throughout towards toward within "
    "atop alongside off as like during past via opposite".split()
)
_THAT = frozenset("that which who whose where".split())
JOINS = frozenset("and or but while whereas though although yet so as because".split())
AUXILIARIES = frozenset(
    "is are was were be been being has have had do does did can could may might must shall should will would seems "
    "seem appears appear looks look 's 're isn't aren't wasn't weren't doesn't don't".split()
)
MODALS = frozenset("can could may might must shall should will would do does did don't doesn't cannot".split())
_SAME_PARTICIPLES = frozenset("read cut put set hit shut spread split shed cast".split())  # as their basic forms
BE = frozenset("is are was were be been being 's 're isn't aren't wasn't weren't".split())
_ADVERBS = frozenset(
    "far very also just slightly partially partly mostly quite rather clearly directly immediately closely together "
    "apart away nearby here there then only still almost nearly perhaps possibly probably likely maybe further well "
    "outdoors indoors outside inside up down back forward upright ahead even once twice overhead downhill uphill "
    "mid-air midair out too".split()
)
# verbs of captions whose forms are nouns or adjectives too
_CAPTION_VERBS = frozenset(
    "sit stand lie rest hang show feature read say play run walk fly hold wear carry contain include depict "
    "display float perch lean park ride jump sleep graze look face stretch fill cover surround line dominate "
    "occupy extend grow cast shine reflect frame set place position locate travel drive eat drink watch pose "
    "smile move swim rise bear spell state capture portray present complement add create give make suggest "
    "indicate enhance serve appear".split()
)
# those whose form in -s is hardly ever a noun there
_MOSTLY_VERBS = frozenset(
    "sit stand lie rest hang show feature read say hold wear carry contain include depict display float perch lean "
    "sleep graze appear suggest create add give make fill stretch".split()
)
# nouns before "of" that tell of several things of one kind
GROUPS = frozenset(
    "pair group couple dozen hundred thousand million row bunch flock herd crowd set stack pile collection number "
    "variety series trio duo quartet team line cluster".split()
)
_STANDING_FOR = ("one", "ones")  # for a noun, as in "a green one"
_QUOTED = re.compile(
    r"\"[^\"]*\"|“[^“”]*”|“[^”\"]*\"|„[^“”]*[“”]|«[^»]*»|(?<!\w)'[^'\n]{1,80}'(?!\w)|(?<!\w)‘[^’\n]{1,80}’(?!\w)"
)
_LONGEST = 3  # words of a compound noun
_NEAR_TO = frozenset("next close adjacent opposite similar parallel near due".split())  # of "to" that is no infinitive
_SINGLE = frozenset(("a", "an", "one", "this", "that", "each", "every", "another"))
_BEFORE_IS = frozenset("there it that he she here what who they we you".split())
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:[-'’][^\W\d_]+)*|[^\w\s]|_")


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


def tokens_of(sentence: str, compounds: Set[str] = frozenset()) -> list[Token]:
    """The tokens of a sentence, tagged. A quotation is one token.

    compounds: compound nouns that are read as nouns, such as "sports ball", besides WordNet's.
    """
    found: list[Token] = []
    at = 0
    for quote in [*_QUOTED.finditer(sentence), None]:
        end = quote.start() if quote else len(sentence)
        found += [part for word in _TOKEN.finditer(sentence, at, end) for part in _parts(word)]
        if quote:
            found.append(Token(quote[0], quote.start(), quote.end(), "QUOTE"))
            at = quote.end()
    tagged: list[Token] = []
    nouns = 0  # up to here the words of a compound
    for i, token in enumerate(found):
        nouns = max(nouns, _compound_end(found, i, tagged, compounds))
        tag = "NOUN" if i < nouns else _tag(token, tagged, found[i + 1 : i + 3])
        tagged.append(token if token.tag == "QUOTE" else replace(token, tag=tag))
    return tagged


def _compound_end(tokens: Sequence[Token], at: int, before: Sequence[Token], compounds: Set[str]) -> int:
    """The token after a compound noun that begins at a token; 0 if none does."""
    for end in range(min(at + _LONGEST, len(tokens)), at + 1, -1):
        words = [token.lower for token in tokens[at:end]]
        # "a watering can stands", but "the water can be seen"
        named = words[-1] == "can" and (end == len(tokens) or verb_of(tokens[end].lower) != tokens[end].lower)
        plain = not any(_is_closed(word) for word in words[: -1 if named else None]) and not is_attribute(words[0])
        if not plain or "QUOTE" in (token.tag for token in tokens[at:end]):
            continue
        single = " ".join([*words[:-1], singular(words[-1])])
        if (single in compounds or is_compound(single)) and not _is_predicate(tokens, at, end, before):
            return end
    return 0


def _is_predicate(tokens: Sequence[Token], at: int, end: int, before: Sequence[Token]) -> bool:
    """Whether the last word of a possible compound is rather the verb of the words before it: "the bus stops at"."""
    last = tokens[end - 1].lower
    article = next((token.lower for token in reversed(before) if token.tag != "ADJ"), "")
    if not verb_of(last):
        return False
    if last == singular(last):
        # "the dogs run": after a plural, or after "they"
        return singular(tokens[end - 2].lower) != tokens[end - 2].lower and article not in _SINGLE
    if article in _SINGLE:
        return True
    # "the bus stops" and "the bus stops are": a verb, unless the sentence has another one
    other = any(token.tag in ("AUX", "VERB") for token in before)
    return (
        article in ("the", *_POSSESSIVE)
        and not other
        and tokens[end : end + 1] != []
        and not _verb_follows(tokens[end])
    )


def _verb_follows(token: Token) -> bool:
    return token.lower in AUXILIARIES or verb_of(token.lower) in _CAPTION_VERBS


def _is_closed(word: str) -> bool:
    """Whether a word is one of the closed lists, or no word."""
    lists = (NEGATIONS, _POSSESSIVE, _ARTICLES, PREPOSITIONS, _THAT, JOINS, AUXILIARIES, PRONOUNS, SEVERAL, COUNTS)
    return not word[0].isalpha() or any(word in one for one in lists)


def _parts(word: re.Match[str]) -> list[Token]:
    """A word as one token, or "there's" as two."""
    text, start = word[0], word.start()
    cut = max(text.find("'"), text.find("’"))
    if cut > 0 and text[:cut].lower() in _BEFORE_IS and text[cut + 1 :].lower() in ("s", "re"):
        return [Token(text[:cut], start, start + cut), Token(text[cut:], start + cut, word.end())]
    return [Token(text, start, word.end())]


def _tag(token: Token, before: list[Token], following: Sequence[Token]) -> Tag:
    """The tag of a token, by the tokens before it and the two after it."""
    word, after = token.lower, following[0] if following else None
    if word in ("'s", "'re"):
        return "AUX"
    if not word[0].isalnum():
        return "COMMA" if word == "," else "MARK"
    if word == "one" and _is_anybody(before, after):
        return "PRON"
    if word in _STANDING_FOR and _stands_for_noun(word, before, after):
        return "NOUN"
    if word.isdigit() or word in COUNTS or word in SEVERAL:
        return "NUM"
    if (closed := _closed(word, before, after)) is not None:
        return closed
    if is_attribute(word):
        # "the orange lies", "a wine glass": a noun where nothing follows that it could belong to
        thing = before and before[-1].tag in ("DET", "NOUN") and is_compound(word) and not _is_nominal(after)
        # "a black and white cow"
        joined = len(following) > 1 and following[0].lower in ("and", "or", ",") and is_attribute(following[1].lower)
        return "NOUN" if thing and not joined else "ADJ"
    if _is_joined_adjective(word, before, following):
        return "ADJ"
    return _open(word, before, after)


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
    if word in _THAT and previous in ("NOUN", "COMMA", "QUOTE", "ADJ", "PREP"):
        return "THAT"
    if word in _POSSESSIVE or word in _ARTICLES:
        alone = after is None or not after.text[0].isalpha() or after.lower in AUXILIARIES
        return "PRON" if alone and word not in ("a", "an", "the") else "DET"
    if word == "as" and previous not in ("COMMA", "MARK"):
        return "PREP"
    if word in JOINS:
        return "JOIN"
    if word in PRONOUNS:
        return "PRON"
    if word in _ADVERBS and not (word in PREPOSITIONS and after and after.text[0].isalpha()):
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
    if previous == "AUX" and word in _SAME_PARTICIPLES and (not named or (after and after.lower in _ADVERBS)):
        return "PART"
    if (
        verb
        and verb != word
        and word.endswith(("ing", "ed"))
        and previous in ("DET", "ADJ", "NUM", "PREP", "", "JOIN", "COMMA", "AUX")
    ):
        # "a parked car", or a phrase such as "sitting on a bench"
        # after a preposition too: "surrounded by blooming flowers"
        modifies = named and (previous in ("DET", "ADJ", "NUM") or (previous == "PREP" and word.endswith("ing")))
        # "Hanging on the wall is": before the subject
        leads = previous == "" and verb in _CAPTION_VERBS and _begins_phrase(after)
        return "ADJ" if modifies else "NOUN" if _is_thing(word) and not leads else "PART"
    return _nominal(word, before, after, noun)


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
    if len(before) < 2 or before[-1].lower != "to" or before[-2].lower in _NEAR_TO:
        return False
    return before[-2].tag in ("PART", "VERB", "AUX", "ADJ", "ADV")


def _is_participle(word: str, verb: str) -> bool:
    return word.endswith(("ing", "ed", "en")) or (word != verb and not word.endswith("s"))


def _verb_tag(word: str, verb: str, noun: bool, before: list[Token], after: Token | None) -> Tag | None:
    """The tag of a word after a noun or a pronoun if it is a form of a verb; None if it may be a noun."""
    previous = before[-1].tag
    # "a blue one dances"
    if before[-1].lower in _STANDING_FOR and previous == "NOUN" and verb:
        return "VERB" if word == verb or word.endswith("s") else "PART"
    # "a traffic light": the basic form follows a plural alone
    counted = len(before) > 1 and (before[-2].tag == "NUM" or _after_group(before))
    plural = previous == "NOUN" and singular(before[-1].lower) != before[-1].lower
    common = verb in _CAPTION_VERBS or lexicon().speech(word).startswith("v")
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
    ambiguous = noun and verb not in _CAPTION_VERBS and not (plural and word == verb)
    if previous in ("COMMA", "JOIN"):
        # "the woman, clad in blue, types on": after what is put in, and no verb before
        put_in = sum(one.tag == "COMMA" for one in before) > 1 and not any(one.tag in ("VERB", "AUX") for one in before)
        likely = verb in _CAPTION_VERBS or (put_in and previous == "COMMA")
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
        if token.tag not in ("NOUN", "ADJ"):
            return token.lower in _SINGLE
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
    closed = word in _ARTICLES or word in _POSSESSIVE or word in PREPOSITIONS or word in COUNTS or word in SEVERAL
    return closed or word in JOINS or word in _NEAR_TO or word in _ADVERBS or word in PRONOUNS or word.endswith("ly")


def _is_nominal(after: Token | None) -> bool:
    """Whether the next word can be a noun or an adjective before one."""
    if after is None or after.tag == "QUOTE" or not after.text[0].isalpha():
        return False
    word = after.lower
    if word in PREPOSITIONS or word in AUXILIARIES or word in JOINS or word in _ARTICLES or word in _THAT:
        return False
    if word.endswith("s") and verb_of(word) in _MOSTLY_VERBS:
        return False
    # "directs" is the form of a verb and nothing else
    if verb_of(word) not in ("", word) and word.endswith("s") and singular(word) == word and not lexicon().speech(word):
        return False
    speech = lexicon().speech(word) + lexicon().speech(singular(word))
    return "n" in speech or "a" in speech or is_attribute(word) or not speech
