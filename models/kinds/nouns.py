"""English nouns: their plurals and articles, and how many of a thing a sentence names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from strata.core import head_of

IRREGULAR: Mapping[str, str] = MappingProxyType(
    {
        **{"person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice", "goose": "geese"},
        **{"foot": "feet", "tooth": "teeth", "knife": "knives", "leaf": "leaves", "wolf": "wolves", "loaf": "loaves"},
        **{"shelf": "shelves", "sheep": "sheep", "deer": "deer", "fish": "fish", "broccoli": "broccoli", "tv": "tvs"},
    }
)
SINGULARS: Mapping[str, str] = MappingProxyType({many: one for one, many in IRREGULAR.items()})
NUMBERS = ("no", "one", "two", "three", "four")
_ARTICLE = re.compile(r"(?:an?|the|some)\s+", re.I)
_CONSONANT_SOUND = re.compile(r"(?:uni|use|usu|eu|one\b|once)", re.I)
_VOWEL_SOUND = re.compile(r"(?:[aeiou]|hour|heir|honest)", re.I)


def plural(noun: str) -> str:
    """The plural of one noun in lower case: "bus" -> "buses", "person" -> "people"."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if re.search(r"(?:s|x|z|ch|sh)$", noun):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"


def with_article(noun: str) -> str:
    """A noun phrase with "a" or "an", by its sound; a plural as it is."""
    if is_plural(noun):
        return noun
    vowel = _VOWEL_SOUND.match(noun) and not _CONSONANT_SOUND.match(noun)
    return f"{'an' if vowel else 'a'} {noun}"


def is_plural(phrase: str) -> bool:
    """Whether a noun phrase without an article names several things, such as "skis"; "some" is taken for one."""
    head = head_of(phrase)
    known = head in SINGULARS and head not in IRREGULAR
    return not _ARTICLE.match(phrase) and (known or (head.endswith("s") and not head.endswith("ss")))


def several(number: str, phrase: str) -> str:
    """More than one of a thing: ("two", "a red car at a kerb") -> "two red cars at a kerb". A plural gets no number."""
    if is_plural(phrase):
        return phrase
    bare, head = _ARTICLE.sub("", phrase, count=1), head_of(phrase)
    # the head noun is the last word with its letters before what modifies it
    return f"{number} " + re.sub(rf"\b{re.escape(head)}\b", plural(head), bare, count=1, flags=re.I)
