"""Languages: whether a text is written in the language that was asked for (py3langid, BSD; Lui and Baldwin 2012)."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from models.guards.faults import QUOTED

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

ENGLISH = "en"
# of a text that is rejected: the probabilities of another language, and of the one that was asked for
_SURE, _EXCLUDED = 0.9, 0.03
_LEAST_LETTERS, _LEAST_WORDS = 25, 5
_LEAST_FOREIGN_SCRIPT = 0.5  # share of the letters
_SCRIPTS = {
    "CJK": "zh ja", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "ARABIC": "ar fa ur ps ug ku",
    "CYRILLIC": "ru uk bg sr mk be kk ky mn", "GREEK": "el", "HEBREW": "he", "DEVANAGARI": "hi mr ne", "THAI": "th",
    "BENGALI": "bn as", "TAMIL": "ta", "TELUGU": "te", "GEORGIAN": "ka", "ARMENIAN": "hy", "GUJARATI": "gu",
    "KANNADA": "kn", "MALAYALAM": "ml", "GURMUKHI": "pa", "SINHALA": "si", "LAO": "lo", "KHMER": "km", "ETHIOPIC": "am",
}  # fmt: skip


@functools.cache
def _identifier() -> LanguageIdentifier:
    # the model takes a second to load
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@functools.lru_cache(64)
def language_of(text: str) -> str:
    """The most probable language of a prompt, as an ISO 639-1 code; English for a prompt of fewer than five words."""
    return str(_identifier().classify(text)[0]) if len(text.split()) >= _LEAST_WORDS else ENGLISH


def is_foreign(text: str, language: str) -> bool:
    """Whether a text is certainly not in a language, quotations apart. A short text is judged by its script alone."""
    words = QUOTED.sub(" ", text)
    scripts = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in words if letter.isalpha())
    letters = scripts.total()
    # a script in which the language is not written
    foreign = sum(n for script, n in scripts.items() if language not in _SCRIPTS.get(script, language).split())
    latin = scripts["LATIN"] if any(language in names.split() for names in _SCRIPTS.values()) else 0
    if letters and (foreign > _LEAST_FOREIGN_SCRIPT * letters or latin == letters > _LEAST_LETTERS):
        return True
    if letters < _LEAST_LETTERS or len(words.split()) < _LEAST_WORDS:
        return False
    ranked = dict(_identifier().rank(words))
    best = max(ranked, key=lambda name: ranked[name])
    return best != language and bool(ranked[best] >= _SURE and ranked.get(language, 0.0) <= _EXCLUDED)
