"""Labels in the one form in which the index keeps them and searches ask for them: "Signs" finds what "a sign" says."""

from __future__ import annotations

import functools
import unicodedata

from strata.core import head_of
from strata.search.words import without_accents
from strata.snapshots.nouns import noun_of


@functools.lru_cache(100_000)
def label_of(kind: str, text: str) -> str:
    """A label as it is kept. kind: one of `LABELS`.

    Of a thing it is the head noun, in lower case and in the singular if WordNet has it: "two red Cars" -> "car". Of a
    tag it is all of its words, in lower case and the last one in the singular. Reasons and error types stay. Accents
    stay too: they are shown, and `number_of` does not see them.
    """
    if kind not in ("thing", "tag"):
        return text
    plain = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    if kind == "thing":
        plain = head_of(plain)
    before, space, last = plain.rpartition(" ")
    return before + space + (noun_of(last) or noun_of(without_accents(last)) or last)
