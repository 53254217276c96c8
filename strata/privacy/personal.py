"""Personal data in texts: e-mail addresses, phone numbers, and numbers of accounts and cards by their check digits.

Phone numbers are found by phonenumbers (Google's libphonenumber): those with a country code in every form, those
without one only if they are written as in one of REGIONS. Presidio finds names and places too, but it loads a language
model for each language, and a sign such as "BAKERY MILLER" would be a person: what has check digits or a form is worth
more here. Names, and numbers that are cut by the edge of a picture, are not found.
"""

from __future__ import annotations

import functools
import re
from typing import Literal, NamedTuple

from strata.errors import InvalidInput

# a text without a match of this has none of these data; RE2 and Python's `re` read it alike
MAY_HOLD = r"@|\d(?:[^\d\n]{0,3}\d){6}"
# whose forms of national numbers are known: of English-speaking countries and the largest of the European Union
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "AU")
_EMAIL = re.compile(r"[\w.+-]{1,64} ?@ ?[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
# letters of the country, check digits, and 11 to 30 characters, in groups or not (ISO 13616)
_ACCOUNT = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
_CARD = re.compile(r"(?<!\w)(?<!\w[ -])\d(?:[ -]?\d){12,18}\b")
Kind = Literal["email", "phone", "account", "card"]


class Personal(NamedTuple):
    """What was found: its kind, and the text as it stands there."""

    kind: Kind
    text: str


def personal_data(text: str) -> list[Personal]:
    """The personal data in a text, each place once. Raises InvalidInput without phonenumbers."""
    if not re.search(MAY_HOLD, text):
        return []
    found = [Personal("email", match[0]) for match in _EMAIL.finditer(text)]
    numbers = [Personal("account", match[0]) for match in _ACCOUNT.finditer(text) if _is_account(match[0])]
    numbers += [Personal("card", match[0]) for match in _CARD.finditer(text) if _is_card(match[0])]
    # the digits of an account or a card are no phone number
    rest = functools.reduce(lambda left, one: left.replace(one.text, "\n"), numbers, text)
    return found + numbers + [Personal("phone", number) for number in _phones(rest)]


def _phones(text: str) -> list[str]:
    try:
        from phonenumbers import Leniency, PhoneNumberMatcher
    except ImportError:
        raise InvalidInput("personal data are found with phonenumbers: pip install 'strata[curation]'") from None
    # with a country code any form counts; without one the groups must be those of the country
    asked = [(None, Leniency.VALID), *((region, Leniency.STRICT_GROUPING) for region in REGIONS)]
    places: dict[tuple[int, int], str] = {}
    for region, leniency in asked:
        for match in PhoneNumberMatcher(text, region, leniency=leniency):
            if not any(start < match.end and match.start < end for start, end in places):
                places[match.start, match.end] = match.raw_string
    return [places[place] for place in sorted(places)]


def _is_account(text: str) -> bool:
    """Whether a text has the check digits of an IBAN (ISO 13616: the remainder of 97 is 1)."""
    whole = text.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in whole[4:] + whole[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    """Whether a text has the check digit of a card (Luhn; ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in text if letter.isdecimal()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0
