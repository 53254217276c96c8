"""The languages that texts can be asked for in: those that the guards' detector (py3langid) knows by two letters.

A prompt is English: the composer writes in the language of its prompt, and the verifier reads English.
`language_asked` finds a prompt that wants another language, so that it is refused before a job has paid for texts that
the guards reject.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

# names as in Unicode's CLDR
_NAMES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "az": "Azerbaijani", "ba": "Bashkir",
    "be": "Belarusian", "bg": "Bulgarian", "bn": "Bangla", "br": "Breton", "bs": "Bosnian", "ca": "Catalan",
    "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "dz": "Dzongkha", "el": "Greek", "en": "English",
    "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish",
    "fo": "Faroese", "fr": "French", "fy": "Western Frisian", "ga": "Irish", "gd": "Scottish Gaelic",
    "gl": "Galician", "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian",
    "ht": "Haitian Creole", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "ig": "Igbo", "is": "Icelandic",
    "it": "Italian", "ja": "Japanese", "jv": "Javanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer",
    "kn": "Kannada", "ko": "Korean", "ku": "Kurdish", "ky": "Kyrgyz", "la": "Latin", "lb": "Luxembourgish",
    "lg": "Ganda", "ln": "Lingala", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian", "mg": "Malagasy",
    "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "mt": "Maltese",
    "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "nn": "Norwegian Nynorsk", "no": "Norwegian", "oc": "Occitan",
    "om": "Oromo", "or": "Odia", "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "qu": "Quechua",
    "ro": "Romanian", "ru": "Russian", "rw": "Kinyarwanda", "sa": "Sanskrit", "se": "Northern Sami", "si": "Sinhala",
    "sk": "Slovak", "sl": "Slovenian", "sn": "Shona", "so": "Somali", "sq": "Albanian", "sr": "Serbian",
    "st": "Southern Sotho", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "tg": "Tajik",
    "th": "Thai", "tk": "Turkmen", "tl": "Tagalog", "tr": "Turkish", "tt": "Tatar", "ug": "Uyghur", "uk": "Ukrainian",
    "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "vo": "Volapük", "wa": "Walloon", "xh": "Xhosa", "yo": "Yoruba",
    "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip
LANGUAGES: Mapping[str, str] = MappingProxyType(_NAMES)
"""The names of languages, by ISO 639-1 codes."""

# the names of languages in themselves, of those that a prompt names so
_OWN_NAMES = {
    "deutsch": "de", "français": "fr", "francais": "fr", "español": "es", "espanol": "es", "castellano": "es",
    "italiano": "it", "português": "pt", "portugues": "pt", "nederlands": "nl", "polski": "pl", "polsku": "pl",
    "svenska": "sv", "dansk": "da", "norsk": "no", "suomeksi": "fi", "türkçe": "tr", "čeština": "cs", "česky": "cs",
    "magyarul": "hu", "română": "ro", "mandarin": "zh", "norwegian": "no",
}  # fmt: skip
_CODES = {name.lower(): code for code, name in _NAMES.items() if code != "en"} | _OWN_NAMES
_NAMED = "|".join(re.escape(name) for name in sorted(_CODES, key=len, reverse=True))
_WRITES = (
    r"write|written|answer|describe|respond|reply|speak|translate|caption|summari[sz]e|compose|phrase|text|description|"
    r"sentences?|output|schreib\w*|beschreib\w*|antwort\w*|décri\w*|répond\w*|écri\w*|descri\w*|respond\w*|escrib\w*"
)
# "Write two sentences in simple German.", "Use French.", "In Spanish: …", "Auf Deutsch bitte"; not "a sign in German
# shops", and not "if the sign is in German"
_ENDS = r"(?=\s*(?:[.,;:!?)]|$|language\b|only\b|please\b|and\b|about\b|with\b|using\b|for\b|bitte\b))"
_WISHES = re.compile(
    rf"\b(?:{_WRITES})\b[^.!?\n]{{0,80}}?\b(?:in|into|to|auf|ins|en|em|po|på|op)\s+(?:\w+\s+){{0,2}}?({_NAMED}){_ENDS}"
    rf"|\b(?:use|speak|language\s*(?:is|:|=))\s+(?:only\s+)?({_NAMED}){_ENDS}"
    rf"|(?:^|[.!?\n])\s*(?:in|auf|en|em|po|på)\s+({_NAMED}){_ENDS}",
    re.IGNORECASE,
)
# frequent words of languages in Latin letters that are no words of English
_FREQUENT = {
    "de": "der das und ist mit ein eine einen auf bild beschreibe nenne für nicht wenn sätzen satz dem des",
    "fr": "le la les des une est avec dans et pour image décris décrivez sur du phrases cette qui",
    "es": "el los las una con para que imagen describe del en esta por frases qué y",
    "it": "il gli una con per che immagine descrivi della nel questa di e frasi",
    "pt": "os uma com para que imagem descreva da na esta em e frases não",
    "nl": "het een met voor deze beschrijf afbeelding van en zinnen niet",
    "pl": "jest oraz obraz opisz z na w zdaniach nie co",
    "sv": "och bilden beskriv med ett av som är meningar inte",
    "tr": "ve bir bu resmi cümle ile için açıkla",
}
_FREQUENT_WORDS = {code: frozenset(words.split()) for code, words in _FREQUENT.items()}
_ENGLISH_WORDS = frozenset(
    "the a an is are of and in on to with if not use call name write say describe each its it at as by for from image "
    "picture notes one two only this that".split()
)
_LEFT_OUT = re.compile(r"\{[^{}]*\}|\"[^\"]*\"|“[^”]*”|«[^»]*»|‘[^’]*’")


def language_asked(prompt: str) -> str | None:
    """The language other than English that a prompt asks for, or is written in; "" for one that is not known.

    None for a prompt in English that asks for no other. Fields, and what stands in quotation marks, say nothing.
    """
    words = _LEFT_OUT.sub(" ", prompt)
    if wish := _WISHES.search(words):
        return _CODES[next(filter(None, wish.groups())).lower()]
    # letters of another script
    scripts = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in words if letter.isalpha())
    if scripts.total() - scripts["LATIN"] > scripts["LATIN"]:
        return ""
    # of frequent words, clearly more of another language
    found = Counter(re.findall(r"[^\W\d_]+", words.lower()))
    english = sum(found[word] for word in _ENGLISH_WORDS)
    counts = {code: sum(found[word] for word in frequent) for code, frequent in _FREQUENT_WORDS.items()}
    best = max(counts, key=lambda code: counts[code])
    return best if counts[best] >= 3 and counts[best] > 2 * english else None
