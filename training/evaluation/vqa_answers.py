"""How the VQA evaluation (GT-Vision-Lab/VQA, vqaEval.py) brings answers into one form before they are compared."""

from __future__ import annotations

import re

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
# a period is removed unless a digit follows it: the original's look-behind for a digit is mistyped and has no effect
PERIOD = re.compile(r"\.(?!\d)")
DIGITS_WITH_COMMA = re.compile(r"\d,\d")

# Contractions whose apostrophes are restored. Each entry of the original maps a form without some apostrophes to the
# whole form: without any for the words here, and without one of the two for the double contractions. Forms with a
# capital I of the original are left out, since words are in lower case when they are looked up.
_SIMPLE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
""".split()
_DOUBLE = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
""".split()
CONTRACTIONS = {
    **{word.replace("'", ""): word for word in _SIMPLE},
    **{word.replace("'", "", 1): word for word in _DOUBLE},
    **{"'".join(word.split("'")[:-1]) + word.rpartition("'")[2]: word for word in _DOUBLE},
    # the original removes this apostrophe
    "somebody'd": "somebodyd",
    **dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at"),
    **dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've"),
}


def normalized(answer: str) -> str:
    """The form of an answer that is compared: lower case, without punctuation and articles, numbers as digits."""
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    words = (NUMBERS.get(word, word) for word in without_punctuation(text).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def without_punctuation(text: str) -> str:
    """Remove each mark of punctuation that stands beside a space, or replace it by a space if it joins two words.

    In a text with a comma between two digits all marks are removed, so that "1,000" becomes "1000".
    """
    joined = DIGITS_WITH_COMMA.search(text) is not None
    found = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if beside_space or joined else " ")
    return PERIOD.sub("", found)
