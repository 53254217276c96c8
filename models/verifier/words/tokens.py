"""The words of a sentence: tokens with their parts of speech; a quotation is one token."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import replace

from models.verifier.attributes import is_attribute
from models.verifier.lexicon import is_compound, singular, verb_of
from models.verifier.words.capitals import joined
from models.verifier.words.lists import (
    ARTICLES,
    AUXILIARIES,
    CAPTION_VERBS,
    COUNTS,
    JOINS,
    NEGATIONS,
    POSSESSIVE,
    PREPOSITIONS,
    PRONOUNS,
    SEVERAL,
    SINGLE,
    THAT,
)
from models.verifier.words.tags import Token, tag_of

_QUOTED = re.compile(
    r"\"[^\"]*\"|“[^“”]*”|“[^”\"]*\"|„[^“”]*[“”]|«[^»]*»|(?<!\w)'[^'\n]{1,80}'(?!\w)|(?<!\w)‘[^’\n]{1,80}’(?!\w)"
)
_LONGEST = 3  # words of a compound noun
_BEFORE_IS = frozenset("there it that he she here what who they we you".split())
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:[-'’][^\W\d_]+)*|[^\w\s]|_")


def tokens_of(sentence: str, compounds: Set[str] = frozenset(), read: str = "") -> list[Token]:
    """The tokens of a sentence, tagged. A quotation is one token.

    compounds: compound nouns that are read as nouns, such as "sports ball", besides WordNet's.
    read: the letters of the lines that were read; words in capitals that are among them are a quotation.
    """
    found: list[Token] = []
    at = 0
    for quote in [*_QUOTED.finditer(sentence), None]:
        end = quote.start() if quote else len(sentence)
        found += [part for word in _TOKEN.finditer(sentence, at, end) for part in _parts(word)]
        if quote:
            found.append(Token(quote[0], quote.start(), quote.end(), "QUOTE"))
            at = quote.end()
    found = joined(found, sentence, read)
    tagged: list[Token] = []
    nouns = 0  # up to here the words of a compound
    for i, token in enumerate(found):
        nouns = max(nouns, _compound_end(found, i, tagged, compounds))
        tag = "NOUN" if i < nouns else tag_of(token, tagged, found[i + 1 : i + 3])
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
        return singular(tokens[end - 2].lower) != tokens[end - 2].lower and article not in SINGLE
    if article in SINGLE:
        return True
    # "the bus stops" and "the bus stops are": a verb, unless the sentence has another one
    other = any(token.tag in ("AUX", "VERB") for token in before)
    return (
        article in ("the", *POSSESSIVE) and not other and tokens[end : end + 1] != [] and not _verb_follows(tokens[end])
    )


def _verb_follows(token: Token) -> bool:
    return token.lower in AUXILIARIES or verb_of(token.lower) in CAPTION_VERBS


def _is_closed(word: str) -> bool:
    """Whether a word is one of the closed lists, or no word."""
    lists = (NEGATIONS, POSSESSIVE, ARTICLES, PREPOSITIONS, THAT, JOINS, AUXILIARIES, PRONOUNS, SEVERAL, COUNTS)
    return not word[0].isalpha() or any(word in one for one in lists)


def _parts(word: re.Match[str]) -> list[Token]:
    """A word as one token, or "there's" as two."""
    text, start = word[0], word.start()
    cut = max(text.find("'"), text.find("’"))
    if cut > 0 and text[:cut].lower() in _BEFORE_IS and text[cut + 1 :].lower() in ("s", "re"):
        return [Token(text[:cut], start, start + cut), Token(text[cut:], start + cut, word.end())]
    return [Token(text, start, word.end())]
