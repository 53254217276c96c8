"""Words of texts, as the search compares them, and the numbers that stand for words in the index.

A word is a run of letters, digits and combining marks, in lower case after Unicode's normalization NFKC, without the
accents of Latin, Greek and Cyrillic letters: "cafe" finds "café", and the other way round. Scripts that are written
without spaces have no such runs: there each character is a word, so that a query finds texts with all of
its characters. One function cuts texts and queries alike.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Ints = np.typing.NDArray[np.int64]

WITHOUT_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTERS = r"\pL\pN\pM"
# the block of combining diacritical marks: those of other scripts, such as the vowels of Devanagari, are letters
_ACCENTS = "[\u0300-\u036f]+"


def words_of_texts(texts: pa.Array) -> pa.ListArray:
    """The words of each text, in order; a text that is null has none."""
    plain = pc.utf8_lower(pc.utf8_normalize(pc.fill_null(texts, ""), "NFKC"))
    # only texts with characters beyond ASCII need the costly steps
    if not pc.all(pc.string_is_ascii(plain)).as_py():
        plain = _without_accents(plain)
    # each character of these scripts is set apart
    if pc.any(pc.match_substring_regex(plain, f"[{WITHOUT_SPACES}]")).as_py():
        plain = pc.replace_substring_regex(plain, f"([{WITHOUT_SPACES}])", r" \1 ")
    spaced = pc.replace_substring_regex(plain, f"[^{_LETTERS}]+", " ")
    # an empty text has one word, the empty one: the null text has none
    trimmed = pc.utf8_trim_whitespace(spaced)
    return pc.utf8_split_whitespace(pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed))


def _without_accents(texts: pa.Array) -> pa.Array:
    return pc.utf8_normalize(pc.replace_substring_regex(pc.utf8_normalize(texts, "NFD"), _ACCENTS, ""), "NFC")


def without_accents(text: str) -> str:
    """A text without the accents of its letters, as the words of texts are."""
    return unicodedata.normalize("NFC", re.sub(_ACCENTS, "", unicodedata.normalize("NFD", text)))


def words_of(text: str) -> list[str]:
    """The different words of one text, in order."""
    found = words_of_texts(pa.array([text], pa.string()))[0].as_py()
    return list(dict.fromkeys(found or ()))


def number_of(word: str) -> int:
    """The 64-bit number that stands for a word or label in the index, with or without accents.

    It is the beginning of the BLAKE2 hash. Two of 10 million different words have the same number with a probability
    below 1 in 100,000.
    """
    plain = word if word.isascii() else without_accents(word)
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "little", signed=True)


def numbers_of(words: Iterable[str]) -> Ints:
    """The numbers of many words, in order."""
    return np.fromiter(map(number_of, words), np.int64)
